"""Hardening: the losses by hand, the runs as the original has them, each way on digits."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from denature.answers import Answers
from denature.answers.transfer import Transfer
from denature.attacks import Ball, pgd
from denature.cli.app import main
from denature.core.errors import ConfigError, Stopped
from denature.core.stopping import Stopper
from denature.data import load
from denature.losses import soft_cross_entropy
from denature.recipes.hardening.config import Hardening
from denature.recipes.hardening.orders import METHODS, Place, orders
from denature.report.kinds import answers_of
from denature.train import Normal, Order, Run, Training, load_run, make, train
from denature.train.objectives import Adversarial, Distilled, Hardened, Nasty
from denature.train.session import Session

QUICK = Training(epochs=2, batch_size=64, device="cpu", precision="fp32")


def test_defensive_distillation_has_no_square_of_the_temperature() -> None:
    """Two classes at T 2: the teacher says (3/4, 1/4), the student (9/10, 1/10)."""
    teacher = torch.tensor([[2 * math.log(3), 0.0]], dtype=torch.float64)
    student = torch.tensor([[2 * math.log(9), 0.0]], dtype=torch.float64)
    loss = soft_cross_entropy(student, teacher, temperature=2)
    assert loss.item() == pytest.approx(-(0.75 * math.log(0.9) + 0.25 * math.log(0.1)), rel=1e-12)
    said = Hardened(temperature=2.0)(
        student, torch.tensor([1]), Answers("logits", teacher), done=0.0
    )
    assert torch.equal(said, loss)


@pytest.mark.parametrize("temperature", [1.0, 20.0, 100.0])
def test_its_gradient_is_that_of_soft_labels_at_the_temperature(temperature: float) -> None:
    """dL/dz = (softmax(z / T) - softmax(teacher / T)) / T."""
    torch.manual_seed(0)
    student = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(4, 5, dtype=torch.float64)
    soft_cross_entropy(student, teacher, temperature=temperature).sum().backward()
    wanted = ((student / temperature).softmax(1) - (teacher / temperature).softmax(1)) / temperature
    torch.testing.assert_close(student.grad, wanted.detach())


def test_a_teacher_at_a_temperature_and_smoothed_labels_are_cross_entropies() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 4), torch.randint(4, (6,))
    heated = Normal(temperature=10.0)(logits, labels, None, done=0.0)
    torch.testing.assert_close(heated, F.cross_entropy(logits / 10, labels, reduction="none"))
    smoothed = Normal(smoothing=0.2)(logits, labels, None, done=0.0)
    soft = F.one_hot(labels, 4) * 0.8 + 0.05
    torch.testing.assert_close(smoothed, -(soft * logits.log_softmax(1)).sum(1))


def made(
    hardening: Hardening, out: Path, net: str = "mlp", training: Training = QUICK
) -> dict[str, Run]:
    wanted = orders(hardening, Place(net=net, training=training, out=out))
    return dict(zip(wanted, make(list(wanted.values()), "digits"), strict=True))


def test_teacher_and_student_are_trained_at_t_and_say_so(tmp_path: Path) -> None:
    runs = made(Hardening(temperature=30.0), tmp_path)
    teacher, student = runs["teacher"].record, runs["student"].record
    assert list(runs) == ["teacher", "student"]
    assert teacher.config["objective"]["temperature"] == 30
    assert (student.kind, student.config["objective"]["temperature"]) == ("hardened", 30)
    assert student.inputs["teacher"].digest == teacher.net.digest
    assert answers_of(student) == "soft"
    assert student.net.initial != teacher.net.initial
    # At T its logits grew about T times as large as at 1: which is what saturates at 1.
    cold = train("mlp", "digits", Normal(), QUICK).network
    images = load("digits").test.images[load("digits").test.rows].float() / 255
    hot = runs["teacher"].network(images).abs().mean() / cold(images).abs().mean()
    assert hot > 2


def test_the_originals_start_is_the_weights_after_one_epoch(tmp_path: Path) -> None:
    runs = made(Hardening(same_start=True), tmp_path)
    assert list(runs) == ["start", "teacher", "student"]
    assert len(runs["start"].record.history) == 1
    assert runs["start"].record.config["objective"]["temperature"] == 1
    after = runs["start"].record.net.digest
    assert runs["teacher"].record.net.initial == runs["student"].record.net.initial == after


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a method changes, of one network."""

    accuracy: float
    survived: float
    """Accuracy against PGD."""
    confidence: float
    """Mean probability of the answered class."""
    size: float
    """Mean size of a logit."""
    from_teacher: float
    """Mean distance of the probabilities at temperature 4 from the teacher's."""


@torch.no_grad()
def measured(network: torch.nn.Module, teacher: torch.nn.Module) -> Measured:
    test = load("digits").test
    images, labels = test.images[test.rows].float() / 255, test.labels[test.rows]
    with torch.enable_grad():
        near = pgd(network, images, labels, Ball(epsilon=0.1), steps=10)
    logits = network(images)
    apart = (logits / 4).softmax(1) - (teacher(images) / 4).softmax(1)
    return Measured(
        accuracy=(logits.argmax(1) == labels).float().mean().item(),
        survived=(network(near).argmax(1) == labels).float().mean().item(),
        confidence=logits.softmax(1).amax(1).mean().item(),
        size=logits.abs().mean().item(),
        from_teacher=apart.abs().sum(1).mean().item(),
    )


@pytest.mark.slow
def test_each_way_hardens(tmp_path: Path) -> None:
    """Against a network without any; bounds are half of the least that four seeds had."""
    training = replace(QUICK, epochs=5)
    plain = train("mlp", "digits", Normal(), training).network
    kinds, found, of_plain = {}, {}, {}
    for by in METHODS:
        hardening = replace(Hardening(), method=by, steps=2, epsilon=0.1)
        runs = made(hardening, tmp_path / by, training=training)
        kinds[by] = [run.record.kind for run in runs.values()]
        teacher, student = next(iter(runs.values())).network, list(runs.values())[-1].network
        found[by], of_plain[by] = measured(student, teacher), measured(plain, teacher)
        assert found[by].accuracy > (0.75 if by == "defensive-distillation" else 0.9), by
    usual = of_plain["label-smoothing"]
    assert found["defensive-distillation"].size > 6 * usual.size  # measured: 12 times
    assert found["label-smoothing"].confidence < usual.confidence - 0.06  # 0.12
    for by, least in (("adversarial", 0.07), ("trades", 0.08), ("robust-distillation", 0.018)):
        assert found[by].survived > usual.survived + least, by  # 0.15, 0.16 and 0.037
    for by, most in (("self-distillation", 0.85), ("robust-distillation", 0.5)):
        # 0.69 and 0.19 of it.
        assert found[by].from_teacher < most * of_plain[by].from_teacher, by
    assert kinds == {
        "defensive-distillation": ["normal", "hardened"],
        "label-smoothing": ["normal"],
        "self-distillation": ["normal", "distilled"],
        "adversarial": ["adversarial"],
        "trades": ["adversarial"],
        "robust-distillation": ["adversarial", "distilled"],
    }


def test_generations_and_smaller_students(tmp_path: Path) -> None:
    hardening = Hardening(method="self-distillation", generations=3, student="cnn@width=4")
    wanted = orders(hardening, Place(net="cnn", training=QUICK, out=tmp_path))
    names = ["teacher", "student-1", "student-2", "student-3"]
    assert list(wanted) == names
    students = [wanted[name] for name in names[1:]]
    assert [it.net for it in students] == ["cnn@width=4"] * 3
    assert [it.source for it in students] == [wanted[name] for name in names[:-1]]
    assert all(isinstance(it.objective, Distilled) for it in students)
    assert len({it.training.seed for it in wanted.values()}) == 4


def test_adversarial_training_attacks_all_of_a_network(tmp_path: Path) -> None:
    """Also of one that has an attribute `module`, as wrappers that normalise do."""

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.module((x - 0.5) * 100)
            return logits

    attacked: list[type] = []
    wrapped = Wrapped()
    objective = Adversarial(ball=Ball(epsilon=0.1), steps=1)
    with pytest.MonkeyPatch.context() as patch:
        inner = Adversarial.probed

        def probed(self: Adversarial, network: nn.Module, *rest: Any) -> Any:
            attacked.append(type(network))
            return inner(self, network, *rest)

        patch.setattr(Adversarial, "probed", probed)
        train(wrapped, load("digits"), objective, replace(QUICK, epochs=1))
    assert set(attacked) == {Wrapped}


@pytest.mark.parametrize("objective", [Hardened(), Nasty()])
def test_what_learns_from_logits_refuses_other_answers(objective: Any) -> None:
    data = load("digits")
    answers = torch.full((len(data.train.images), 10), 0.1)
    transfer = Transfer("probabilities", answers, victim="x")
    with pytest.raises(ConfigError, match=r"needs the logits of its .*answers are probabilities"):
        train("mlp", data, objective, QUICK, source=transfer)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "net"), [("pgd", "cnn@width=16"), ("trades", "mlp")])
def test_adversarial_training_protects_and_goes_on_bit_for_bit(
    method: str, net: str, tmp_path: Path
) -> None:
    data, training = load("digits"), replace(QUICK, epochs=6)
    ball = Ball(epsilon=0.15)
    objective = Adversarial(method=method, ball=ball, steps=4)  # type: ignore[arg-type]
    calls = 0

    def wish() -> bool:
        nonlocal calls
        calls += 1
        return calls > 40

    def run(stopper: Stopper) -> Run:
        return train(
            net, data, objective, training, out=tmp_path / "run", session=Session(stopper=stopper)
        )

    with pytest.raises(Stopped):
        run(Stopper(wish=wish))
    hardened = run(Stopper())
    assert hardened.digest == train(net, data, objective, training).digest
    plain = train(net, data, Normal(), training)
    images = data.test.images[data.test.rows].float() / 255
    labels = data.test.labels[data.test.rows]

    def right(of: Run) -> float:
        torch.manual_seed(0)
        near = pgd(of.network, images, labels, ball, steps=10)
        return float((of.network(near).argmax(1) == labels).float().mean())

    assert right(hardened) > right(plain) + 0.3
    assert hardened.record.config["objective"]["ball"] == {"norm": "linf", "epsilon": 0.15}


def test_batch_norm_is_not_moved_by_what_only_attacks(tmp_path: Path) -> None:
    """Three steps of PGD training count three batches, whatever their attacks asked."""
    training = Training(epochs=1, batch_size=700, device="cpu", precision="fp32")
    run = train("resnetc20", "digits", Adversarial(ball=Ball(epsilon=0.1), steps=3), training)
    counted = {int(v) for k, v in run.network.state_dict().items() if k.endswith("batches_tracked")}
    assert counted == {3}


def test_the_command_line_hardens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["harden", "mlp", "--data", "digits", "--temperature", "50", "--epochs", "2", "-q"]
    assert main([*words, "--out", str(tmp_path / "hard")]) == 0
    assert "student is the hardened network" in capsys.readouterr().out
    record = load_run(tmp_path / "hard" / "student").record
    assert record.config["objective"] == {"kind": "hardened", "temperature": 50}
    assert main([*words, "--out", str(tmp_path / "hard"), "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [it["kind"] for it in told] == ["normal", "hardened"]
    assert main(["train", "mlp", "--data", "digits", "--smoothing", "0.1", "--epochs", "1", "-q",
                 "--out", str(tmp_path / "smooth")]) == 0  # fmt: skip
    objective = load_run(tmp_path / "smooth").record.config["objective"]
    assert objective == {"kind": "normal", "temperature": 1, "smoothing": 0.1}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"temperature": 0.0}, "temperature is 0"),
        ({"temperature": -1.0}, "above 0"),
        ({"generations": 0}, "at least 1"),
        ({"method": "prayer"}, "There is no method 'prayer'"),
        (
            {"method": "trades", "same_start": True},
            "to defensive distillation into the same network",
        ),
        ({"student": "mlp", "same_start": True}, "to defensive distillation into the same network"),
    ],
)
def test_what_cannot_harden_is_told(options: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Hardening(**options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="epsilon is 8"):
        orders(
            Hardening(method="adversarial", epsilon=8.0),
            Place(net="mlp", training=QUICK, out=Path()),
        )


def test_a_hardened_order_needs_its_teacher() -> None:
    with pytest.raises(ConfigError, match="needs a run as teacher"):
        make([Order(net="mlp", objective=Hardened(), training=QUICK)], "digits")
