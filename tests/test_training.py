"""What a run promises: the same again, honest numbers, and a stop where numbers end."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from denature.cli.app import main
from denature.core.compute import resolve
from denature.core.errors import TrainingError
from denature.core.seeds import seeded
from denature.core.weights import digest
from denature.data import Dataset, load
from denature.data.feed import Feed, steps_per_epoch
from denature.nets import create
from denature.recipes.paper.settings import CAP, WARMUP
from denature.train import (
    Distilled,
    Nasty,
    Normal,
    Run,
    Training,
    distilled,
    nasty,
    normal,
    train,
)
from denature.train.learner import learning_rate
from tests.networks import NETWORKS

QUICK = Training(epochs=2, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def teacher(data: Dataset) -> Run:
    return train("mlp", data, Normal(), replace(QUICK, epochs=6))


@pytest.mark.parametrize("net", ["mlp", "cnn", pytest.param("resnetc20", marks=pytest.mark.slow)])
def test_a_network_learns_the_digits(data: Dataset, net: str) -> None:
    run = train(net, data, Normal(), replace(QUICK, epochs=5, batch_size=32, fraction=0.5))
    assert run.accuracy.value > 0.7
    assert run.accuracy.n == len(data.test)


@pytest.mark.parametrize("net", NETWORKS)
def test_every_network_can_be_fitted(data: Dataset, net: str) -> None:
    """The largest would take minutes to learn the digits; all learn one batch of them."""
    images, labels = data.train.images[:12].float() / 255, data.train.labels[:12]
    losses: list[float] = []
    with seeded(0, net):
        network = create(net, classes=10, channels=1, image_size=8).train()
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        # Without batch norm the start is slow: papernot took 36 to 59 steps with twelve seeds.
        for _ in range(12 if net != "papernot" else 120):
            loss = nn.functional.cross_entropy(network(images), labels)
            losses.append(loss.item())
            if losses[-1] < 0.5 * losses[0]:
                return
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    pytest.fail(f"the losses of {net} are {losses}")


def test_a_push_that_runs_away_is_tamed_and_the_record_says_so(data: Dataset) -> None:
    """What happens to the paper's biggest networks, by a large omega and rate on a small one."""
    fast = replace(QUICK, epochs=6, batch_size=64, optimizer="sgd", lr=0.1)
    adversary = train("mlp", data, Normal(), fast)
    stock = Nasty(temperature=20, omega=0.5)
    wild = train("mlp", data, stock, fast, source=adversary)
    tame = train("mlp", data, replace(stock, warmup=WARMUP, cap=CAP), fast, source=adversary)
    assert wild.accuracy.value < 0.3 < 0.9 < tame.accuracy.value
    assert tame.record.given["objective"]["cap"] == CAP
    assert tame.record.given["objective"]["warmup"] == WARMUP


def test_the_same_run_twice_has_the_same_weights(data: Dataset) -> None:
    first, second = (train("cnn", data, Normal(), QUICK) for _ in range(2))
    assert digest(first.network) == digest(second.network) == first.record.net.digest
    assert replace(first.record, seconds=0).history[0].loss == second.record.history[0].loss


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"view_seed": 1}, {"batch_size": 64}, {"lr": 0.01}]
)
def test_each_knob_changes_the_weights(data: Dataset, change: dict[str, Any]) -> None:
    plain = train("mlp", data, Normal(), QUICK)
    assert digest(train("mlp", data, Normal(), replace(QUICK, **change)).network) != digest(
        plain.network
    )


def test_training_leaves_the_callers_random_numbers_alone(data: Dataset) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train("mlp", data, Normal(), replace(QUICK, epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_the_test_split_plays_no_part_in_training(data: Dataset) -> None:
    """Other labels in the test split change the accuracy and nothing else."""
    honest = train("mlp", data, Normal(), QUICK)
    labels = data.test.labels.clone()
    labels[data.test.rows] = (labels[data.test.rows] + 1) % 10
    lying = replace(data, test=replace(data.test, labels=labels))
    fooled = train("mlp", lying, Normal(), QUICK)
    assert digest(fooled.network) == digest(honest.network)
    assert fooled.accuracy.value < 0.1 < honest.accuracy.value


def test_an_accuracy_whose_epoch_the_test_images_chose_is_marked_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark, run = "best epoch on the test images", str(tmp_path / "run")
    words = ["train", "mlp", "--data", "digits", "--epochs", "2", "--checkpoint", "best-test"]
    assert main([*words, "--device", "cpu", "--out", run, "-q"]) == 0
    other = str(tmp_path / "other")  # a figure has two runs at least
    assert main([*words[:-2], "--device", "cpu", "--out", other, "-q"]) == 0
    for command in (
        ["runs", run],
        ["runs", run, "--compare"],
        ["eval", run, "--data", "digits"],
        ["report", run, other, "--markdown", "--out", str(tmp_path / "report.html")],
    ):
        capsys.readouterr()
        assert main(command) == 0
        assert mark in capsys.readouterr().out, command
    assert (tmp_path / "report.html").read_text().count(mark) >= 3  # table, figure and list of runs
    out = str(tmp_path / "attacked")
    attack = ["robustness", run, "--undefended", run, "--controls", "1", "--data", "digits"]
    attack += ["--samples", "10", "--attacks", "fgsm", "--device", "cpu", "--out", out, "-q"]
    assert main(attack) == 0
    assert mark in capsys.readouterr().out
    page = (tmp_path / "attacked" / "report.html").read_text()
    assert mark in page
    assert "these accuracies are too high" in page
    # A larger holdout holds the images that chose; no image chose the epoch of the other run.
    capsys.readouterr()
    assert main(["eval", run, "--data", "digits", "--holdout", "0.4"]) == 0
    assert mark in capsys.readouterr().out
    assert main(["eval", other, "--data", "digits"]) == 0
    assert mark not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("checkpoint", "chosen_on"), [("best-validation", "validation"), ("best-test", "test")]
)
def test_a_chosen_checkpoint_is_the_best_epoch_and_said_to_be_chosen(
    data: Dataset, checkpoint: Any, chosen_on: str
) -> None:
    run = train("mlp", data, Normal(), replace(QUICK, epochs=6, lr=0.05, checkpoint=checkpoint))
    scores = [
        epoch.test_accuracy if chosen_on == "test" else epoch.validation_accuracy
        for epoch in run.record.history
    ]
    assert all(score is not None for score in scores)
    assert run.record.chosen_on == chosen_on
    assert run.record.chosen_epoch == scores.index(max(s for s in scores if s is not None)) + 1
    if chosen_on == "test":
        assert run.accuracy.value == max(s for s in scores if s is not None)
    else:
        assert run.record.data is not None
        assert run.record.data.validation + run.record.data.train == len(data.train)


def test_a_nasty_teacher_moves_away_from_its_adversary(data: Dataset, teacher: Run) -> None:
    compute = resolve(teacher.network, device="cpu", precision="fp32")
    pixels = next(iter(Feed(data.test, compute=compute).plain())).pixels

    def distance(run: Run) -> float:
        answers = [compute.answer(r.network, pixels).softmax(-1) for r in (run, teacher)]
        return float((answers[0] - answers[1]).abs().sum(-1).mean())

    meek = nasty("mlp", data, adversary=teacher, omega=0.0, temperature=20, epochs=6)
    foul = nasty("mlp", data, adversary=teacher, omega=0.1, temperature=20, epochs=6)
    assert distance(foul) > 2 * distance(meek)


def test_a_nasty_run_without_push_is_a_normal_run(data: Dataset, teacher: Run) -> None:
    meek = nasty("mlp", data, adversary=teacher, omega=0.0, epochs=2, precision="fp32",
                 schedule="one-cycle")  # fmt: skip
    plain = normal("mlp", data, epochs=2, precision="fp32")
    torch.testing.assert_close(meek.network.state_dict(), plain.network.state_dict())


def test_warm_up_raises_omega_from_nothing() -> None:
    logits, other = torch.randn(4, 3), torch.randn(4, 3)
    labels = torch.zeros(4, dtype=torch.int64)
    from denature.answers import Answers

    objective = Nasty(omega=0.1, warmup=0.5)
    answers = Answers("logits", other)
    start, half, full = (objective(logits, labels, answers, done=done) for done in (0.0, 0.25, 0.5))
    torch.testing.assert_close(start, Normal()(logits, labels, None, done=0))
    torch.testing.assert_close(half - start, (full - start) / 2)
    torch.testing.assert_close(full, objective(logits, labels, answers, done=0.9))


def test_the_adversary_and_the_teacher_are_not_trained(data: Dataset, teacher: Run) -> None:
    before = digest(teacher.network)
    nasty("mlp", data, adversary=teacher, epochs=1)
    distilled("mlp", data, teacher=teacher, epochs=1)
    assert digest(teacher.network) == before == teacher.record.net.digest
    assert not teacher.network.training


def test_a_student_of_labels_learns_the_teachers_mistakes(data: Dataset, teacher: Run) -> None:
    """A teacher that calls everything a seven has a student that does so too."""
    seven = nn.Linear(64, 10)
    with torch.no_grad():
        seven.weight.zero_()
        seven.bias.copy_(torch.eye(10)[7] * 9)
    liar = nn.Sequential(nn.Flatten(), seven)
    net = replace(teacher.record.net, digest=digest(liar))
    lying = Run(replace(teacher.record, net=net), liar.eval())
    student = distilled("mlp", data, teacher=lying, answers="labels", epochs=2)
    assert student.record.config["objective"]["alpha"] == 1.0
    sevens = (data.test.labels[data.test.rows] == 7).float().mean()
    assert student.accuracy.value == pytest.approx(float(sevens))


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_answers_of_either_soft_kind_teach_the_same(kind: str) -> None:
    from denature.answers import Answers

    logits, teacher_logits = torch.randn(6, 5), torch.randn(6, 5)
    labels = torch.arange(6) % 5
    values = teacher_logits if kind == "logits" else teacher_logits.softmax(-1)
    loss = Distilled(temperature=3)(logits, labels, Answers(kind, values), done=0)  # type: ignore[arg-type]
    expected = Distilled(temperature=3)(logits, labels, Answers("logits", teacher_logits), done=0)
    torch.testing.assert_close(loss, expected)


def test_init_starts_from_the_runs_weights(data: Dataset, teacher: Run) -> None:
    crawl = train("mlp", data, Normal(), replace(QUICK, epochs=1, lr=1e-9), init=teacher)
    torch.testing.assert_close(
        crawl.network.state_dict(), teacher.network.state_dict(), atol=1e-5, rtol=0
    )
    assert crawl.record.inputs["init"].digest == teacher.record.net.digest


def test_a_loss_that_is_not_finite_stops_with_its_step(data: Dataset, tmp_path: Path) -> None:
    wild = Training(epochs=3, optimizer="sgd", lr=1e6, schedule="constant", precision="fp32")
    with pytest.raises(TrainingError, match=r"not finite at step \d+ of 36.*lower --lr") as caught:
        train("mlp", data, Normal(), wild, out=tmp_path / "run")
    assert int(str(caught.value).split("step ")[1].split()[0]) < 10
    assert not (tmp_path / "run" / "record.json").exists()


def test_clipping_bounds_a_step_of_sgd(data: Dataset) -> None:
    """One step of plain length: lr times the clipped norm, without momentum from before."""
    base = Training(
        epochs=1, optimizer="sgd", lr=1.0, schedule="constant", weight_decay=0.0,
        batch_size=len(data.train), precision="fp32", clip_norm=1e-3,
    )  # fmt: skip
    start = train("mlp", data, Normal(), replace(base, lr=1e-12))
    moved = train("mlp", data, Normal(), base)
    length = sum(
        float((a - b).detach().square().sum())
        for a, b in zip(moved.network.parameters(), start.network.parameters(), strict=True)
    )
    assert length**0.5 == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize(
    ("schedule", "milestones", "shares"),
    [
        ("constant", (), {0: 1, 50: 1, 99: 1}),
        ("cosine", (), {0: 1, 50: 0.5, 100: 0}),
        ("step", (4, 8), {0: 1, 39: 1, 40: 0.1, 79: 0.1, 80: 0.01}),
        ("one-cycle", (), {24: 0.98, 25: 0.9933333, 99: 0.0066667}),
    ],
)
def test_the_learning_rate_follows_its_schedule(
    schedule: Any, milestones: tuple[int, ...], shares: dict[int, float]
) -> None:
    config = Training(epochs=10, schedule=schedule, milestones=milestones, lr=2.0)
    for step, share in shares.items():
        assert learning_rate(config, step=step, total=100) == pytest.approx(2 * share, abs=1e-6)


def test_a_fraction_trains_on_fewer_samples(data: Dataset) -> None:
    run = train("mlp", data, Normal(), replace(QUICK, fraction=0.1))
    assert run.record.data is not None
    assert run.record.data.train == round(0.1 * len(data.train))


@pytest.mark.parametrize(("samples", "batch", "steps"), [(10, 5, 2), (11, 5, 2), (12, 5, 3)])
def test_a_last_batch_of_one_is_left_out(samples: int, batch: int, steps: int) -> None:
    data = load("digits")
    split = replace(data.train, rows=data.train.rows[:samples])
    compute = resolve(nn.Linear(1, 1), device="cpu", precision="fp32")
    batches = list(Feed(split, compute=compute).epoch(1, view_seed=0, batch_size=batch))
    assert len(batches) == steps == steps_per_epoch(samples, batch)
    assert len({int(s) for b in batches for s in b.samples}) == sum(len(b.samples) for b in batches)


def test_weights_that_are_not_finite_after_the_last_step_are_noticed(data: Dataset) -> None:
    """One step only: its loss is finite, and what it leaves is not."""
    wild = Training(
        epochs=1, optimizer="sgd", lr=1e38, schedule="constant", precision="fp32",
        batch_size=len(data.train),
    )  # fmt: skip
    with pytest.raises(TrainingError, match="last step left weights that are not finite"):
        train("mlp", data, Normal(), replace(wild, weight_decay=1e38))


@pytest.mark.slow
def test_half_precision_learns_as_well(data: Dataset) -> None:
    full = normal("cnn", data, epochs=4, precision="fp32")
    half = normal("cnn", data, epochs=4, precision="bf16")
    assert abs(full.accuracy.value - half.accuracy.value) < 0.05
    assert half.record.config["training"]["precision"] == "bf16"
