"""Skeptical students: the loss against known answers, what learns from what, and exact resume."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from denature.answers.answerer import Answers
from denature.cli.app import main
from denature.core.compute import Compute
from denature.core.errors import ConfigError, Stopped
from denature.core.record import read_record
from denature.core.stopping import Stopper
from denature.data import Dataset, load
from denature.data.feed import Feed
from denature.nets import create
from denature.nets.activations import ActivationRecorder, scale_of
from denature.nets.auxiliary import auxiliary_head
from denature.train import (
    CheckpointConfig,
    Distilled,
    Normal,
    Order,
    Run,
    Skeptical,
    Training,
    make,
    train,
)
from denature.train.learner import Learner
from denature.train.objectives.base import BatchContext
from denature.train.session import Session
from denature.train.team import ProcessGroup
from tests.networks import every_network

CPU = Compute(torch.device("cpu"), "fp32", channels_last=True)
QUICK = Training(epochs=2, batch_size=64, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train("mlp", "digits", Normal(), QUICK, out=tmp_path_factory.mktemp("teacher") / "run")


# The loss


class Fixed(nn.Module):
    """A head whose logits are given."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits


def context(shallow: Any, deep: Any, done: float = 1.0, teacher: Any = (0.0, 2.0)) -> BatchContext:
    logits = torch.tensor([[2.0, 0.0]], requires_grad=True)
    return BatchContext(
        logits=logits,
        labels=torch.tensor([0]),
        answers=Answers("logits", torch.tensor([teacher])),
        done=done,
        features=(torch.zeros(1, 4), torch.zeros(1, 4), torch.zeros(1, 4)),
        heads=nn.ModuleList([Fixed(shallow), Fixed(deep)]),
    )


def kl(target: list[float], own: list[float]) -> float:
    """KL between two softmaxes, written out."""
    p, q = (torch.tensor(values, dtype=torch.float64).softmax(0) for values in (target, own))
    return float((p * (p / q).log()).sum())


def test_the_loss_is_the_sum_of_its_five_terms() -> None:
    """alpha T^2 KL + (1 - alpha) CE at the shallow head, beta KL + (1 - beta) CE at the deep."""
    shallow, deep = torch.tensor([[1.0, 0.5]]), torch.tensor([[0.2, 0.4]])
    objective = Skeptical(temperature=2, alpha=0.8, beta=0.3)
    label = torch.tensor([0])
    wanted = (
        0.8 * 4 * kl([0.0, 1.0], [0.5, 0.25])
        + 0.2 * float(F.cross_entropy(shallow, label))
        + 0.3 * kl([1.0, 0.0], [0.1, 0.2])
        + 0.7 * float(F.cross_entropy(deep, label))
        + float(F.cross_entropy(torch.tensor([[2.0, 0.0]]), label))
    )
    assert objective.loss(context(shallow, deep)).item() == pytest.approx(wanted, rel=1e-6)


def test_before_the_delay_only_the_output_learns() -> None:
    objective = Skeptical(delay=0.5)
    heads = torch.tensor([[1.0, 0.5]]), torch.tensor([[0.2, 0.4]])
    alone = float(F.cross_entropy(torch.tensor([[2.0, 0.0]]), torch.tensor([0])))
    assert objective.loss(context(*heads, done=0.49)).item() == pytest.approx(alone)
    assert objective.loss(context(*heads, done=0.5)).item() > alone + 0.1


def gradient(objective: Skeptical, **given: Any) -> torch.Tensor:
    """The gradient that the student's output gets."""
    batch = context(torch.tensor([[1.0, 0.5]]), torch.tensor([[0.2, 0.4]]), **given)
    objective.loss(batch).sum().backward()
    assert batch.logits.grad is not None
    return batch.logits.grad


def test_the_output_learns_from_labels_alone_unless_it_is_coupled() -> None:
    alone = torch.tensor([[2.0, 0.0]]).softmax(1) - torch.tensor([[1.0, 0.0]])
    torch.testing.assert_close(gradient(Skeptical()), alone)
    torch.testing.assert_close(gradient(Skeptical(), teacher=(9.0, -3.0)), alone)
    apart = gradient(Skeptical(coupled=True)) - alone
    assert float(apart.abs().max()) > 1e-4


@pytest.mark.parametrize("kind", ["logits", "probabilities", "label"])
def test_every_kind_of_answer_is_learned_from(kind: Any) -> None:
    values = {"logits": torch.tensor([[0.0, 2.0]]), "label": torch.tensor([1])}
    values["probabilities"] = values["logits"].softmax(-1)
    batch = context(torch.tensor([[1.0, 0.5]]), torch.tensor([[0.2, 0.4]]))
    found = Skeptical().loss(replace(batch, answers=Answers(kind, values[kind])))
    other = Skeptical().loss(batch)
    assert bool(found.isfinite().all())
    if kind == "logits":
        assert torch.equal(found, other)
    elif kind == "probabilities":
        torch.testing.assert_close(found, other)
    else:  # the cross-entropies of the two classes differ by the two logits' difference
        right = Skeptical().loss(replace(batch, answers=Answers(kind, torch.tensor([0]))))
        torch.testing.assert_close(found - right, Skeptical().alpha * torch.tensor([1.0 - 0.5]))


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": 0}, {"alpha": 1.1}, {"beta": -0.1}, {"shallow": 0}, {"shallow": 4},
     {"delay": 1.0}],
)  # fmt: skip
def test_settings_outside_their_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} is"):
        Skeptical(**wrong)


# Stages and heads


@every_network
def test_every_network_has_stages_that_heads_can_stand_on(name: str) -> None:
    network = create(name, classes=3, image_size=16).eval()
    pixels = torch.rand(2, 3, 16, 16)
    shown = (pixels - scale_of(network)[0]) / scale_of(network)[1]
    with torch.no_grad(), ActivationRecorder(network, stages=True) as recorder:
        recorder.ask(pixels)
        stages, again = recorder.stages, (recorder.ask(pixels), recorder.stages)[1]
    assert len(stages) >= 1
    for stage, other in zip(stages, again, strict=True):
        assert torch.equal(stage, other)
        assert not any(torch.equal(stage, other) for other in (pixels, shown))
        assert auxiliary_head(tuple(stage.shape[1:]), 3).eval()(stage).shape == (2, 3)
    maps = [stage.shape[-1] for stage in stages if stage.ndim == 4]
    assert maps == sorted(set(maps), reverse=True)


def test_the_stages_of_a_residual_network_are_what_its_blocks_give_on() -> None:
    network = create("resnet18", classes=3, image_size=16).eval()
    given: list[torch.Tensor] = []
    body: Any = network.body
    for stage in (body.layer1, body.layer2, body.layer3):
        stage.register_forward_hook(lambda module, inputs, output: given.append(output))
    with torch.no_grad(), ActivationRecorder(network, stages=True) as recorder:
        recorder.ask(torch.rand(2, 3, 16, 16))
    for stage, wanted in zip(recorder.stages[:3], given, strict=True):
        assert stage is wanted


def test_tokens_are_averaged() -> None:
    head = auxiliary_head((5, 4), 3)
    tokens = torch.rand(2, 5, 4)
    torch.testing.assert_close(head(tokens), head[-1](tokens.mean(1)))


def test_a_network_with_too_few_stages_is_refused(digits: Dataset, teacher: Run) -> None:
    with pytest.raises(ConfigError, match="shallow is 2, and the network has 1 stages"):
        train("mlp", digits, Skeptical(shallow=2), QUICK, source=teacher)


# Training


def learner_of(objective: Any, **more: Any) -> Learner:
    network = create("cnn", classes=10, channels=1, image_size=8)
    training = QUICK.resolved(
        schedule="one-cycle", optimizer="adam", augment="none", device="cpu", precision="fp32"
    )
    return Learner(network, objective, training, CPU, steps=4, image=(1, 8, 8), **more)


def test_an_objective_without_features_pays_nothing(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No hook is registered, and the optimizer has the network's parameters alone."""
    monkeypatch.setattr("denature.train.features.ActivationRecorder", lambda *a, **k: 1 / 0)
    learner = learner_of(Normal())
    [batch] = list(Feed(digits.train, compute=CPU).epoch(1, view_seed=0, batch_size=2000))
    learner.step(batch, None)
    assert len(learner.parameters) == len(list(learner.network.parameters()))
    assert not any(name.startswith("heads/") for name in learner.state()[0])
    with pytest.raises(ZeroDivisionError):
        learner_of(Skeptical())


def test_heads_are_seeded_and_leave_other_randomness_alone() -> None:
    torch.manual_seed(3)
    learner_of(Normal())
    without = torch.random.get_rng_state()
    torch.manual_seed(3)
    first, second = learner_of(Skeptical()), learner_of(Skeptical())
    torch.manual_seed(3)
    learner_of(Skeptical())
    assert torch.equal(torch.random.get_rng_state(), without)
    for name, value in first.state()[0].items():
        if name.startswith("heads/"):
            assert torch.equal(value, second.state()[0][name])
    heads = [name for name in first.state()[0] if name.startswith("heads/")]
    assert heads


def test_heads_train_in_one_process() -> None:
    with pytest.raises(ConfigError, match="leave out the launcher"):
        learner_of(Skeptical(), team=TwoProcesses())


class TwoProcesses(ProcessGroup):  # type: ignore[misc]
    """The first of two processes, which wraps no network."""

    def __init__(self) -> None:
        super().__init__(0, 2)

    def spread(self, network: nn.Module, *, engine: str) -> nn.Module:
        return network


def test_a_skeptical_student_trains_and_its_run_has_no_heads(digits: Dataset, teacher: Run) -> None:
    training = replace(QUICK, epochs=6)
    run = train("cnn", digits, Skeptical(), training, source=teacher)
    assert run.accuracy.value > 0.9
    assert run.record.kind == "skeptical"
    assert run.record.inputs["teacher"].digest == teacher.digest
    plain = create("cnn", classes=10, channels=1, image_size=8)
    assert run.network.state_dict().keys() == plain.state_dict().keys()


def test_the_teacher_shapes_the_student_through_the_shallow_head(
    digits: Dataset, teacher: Run
) -> None:
    other = train("mlp", digits, Normal(temperature=3), replace(QUICK, seed=5))
    runs = [
        train("cnn@width=8", digits, Skeptical(), QUICK, source=source)
        for source in (teacher, other)
    ]
    alone = train("cnn@width=8", digits, Skeptical(delay=0.999), QUICK, source=teacher)
    normal = train("cnn@width=8", digits, Normal(), QUICK)
    assert len({run.digest for run in (*runs, normal)}) == 3
    history = [entry.loss for entry in alone.record.history[:1]]
    assert history == [entry.loss for entry in normal.record.history[:1]]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("delay", [0.0, 0.5])
def test_a_stopped_run_resumes_with_the_same_bits(
    digits: Dataset, teacher: Run, tmp_path: Path, optimizer: Any, delay: float
) -> None:
    training = replace(QUICK, epochs=2, optimizer=optimizer, lr=0.01)
    objective = Skeptical(delay=delay)
    through = train("cnn@width=8", digits, objective, training, source=teacher)
    times = 0

    def wish() -> bool:
        nonlocal times
        times += 1
        return times in (7, 20, 40)

    def go() -> Run:
        return train("cnn@width=8", digits, objective, training, source=teacher,
                     out=tmp_path / "run",
                     session=Session(checkpointing=CheckpointConfig(save_every_s=0, store="off"),
                                     stopper=Stopper(wish=wish)))  # fmt: skip

    stops = 0
    run = None
    while run is None:
        try:
            run = go()
        except Stopped:
            stops += 1
    assert stops >= 2
    assert run.digest == through.digest
    assert [e.loss for e in run.record.history] == [e.loss for e in through.record.history]


def test_students_share_a_pass_with_others(digits: Dataset, teacher: Run) -> None:
    orders = [
        Order(net="cnn@width=8", objective=objective, training=QUICK, source=teacher)
        for objective in (Skeptical(), Distilled(), Skeptical(alpha=0.5))
    ]
    together = make(orders, digits)
    for order, run in zip(orders, together, strict=True):
        [apart] = make([order], digits)
        assert run.digest == apart.digest


def test_the_command_line_makes_skeptical_students(teacher: Run, tmp_path: Path) -> None:
    words = f"skeptical cnn --data digits --teacher {teacher.folder} --epochs 1 --alpha 0.5,0.9"
    assert main([*words.split(), "--device", "cpu", "--out", str(tmp_path / "a"), "-q"]) == 0
    folders = sorted((tmp_path / "a").iterdir())
    records = [read_record(folder) for folder in folders]
    assert sorted(r.config["objective"]["alpha"] for r in records) == [0.5, 0.9]
    again = ["skeptical", "--config", str(folders[0]), "--out", str(tmp_path / "b"), "-q"]
    assert main(again) == 0
    assert read_record(tmp_path / "b").id == records[0].id
