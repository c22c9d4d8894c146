"""Flatness against surfaces that are known: quadratic losses, linear answers."""

import json
import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from denature.answers.answerer import Answers
from denature.answers.coding import coding
from denature.answers.config import InferenceConfig
from denature.cli.app import main
from denature.data import load
from denature.data.dataset import Split
from denature.recipes.training_loss import TrainingLoss, trained_on, training_loss
from denature.report.kinds import KINDS
from denature.robust.flatness import (
    Flatness,
    Loss,
    filter_normalised,
    flatness,
    jacobian_norms,
    largest_curvature,
    moved,
    surface,
)
from denature.robust.target import Target
from denature.train import Distilled, Hardened, Nasty, Normal, Run, Training, load_run, train
from denature.train.classes import ClassMatcher
from tests.evaluations import flatness as compare
from tests.evaluations import page_is_drawn_again

IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 1, 0, 1, 0])


@pytest.fixture(scope="module")
def run() -> Run:
    training = Training(epochs=8, batch_size=64, device="cpu", precision="fp32")
    return train("mlp", "digits", Normal(), training)


def of(run: Run, network: nn.Module) -> Target:
    return Target(Run(replace(run.record), network.eval()), IMAGES, device="cpu")


def by_labels(labels: torch.Tensor) -> Loss:
    return TrainingLoss(Normal(), labels, None, "cross-entropy")


@dataclass(frozen=True)
class Fixed:
    """A loss that does not depend on the logits."""

    values: torch.Tensor

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        return self.values + 0 * logits.sum(1)

    def part(self, rows: slice) -> "Fixed":
        return Fixed(self.values[rows])


class Two(nn.Module):
    """Two classes, by one weight for each pixel; no bias."""

    def __init__(self, scale: float = 0.1) -> None:
        super().__init__()
        drawn = torch.Generator().manual_seed(1)
        self.layer = nn.Linear(64, 2, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(scale * torch.randn(2, 64, generator=drawn))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(x.flatten(1))
        return found


def test_the_curvature_is_the_hessians_largest_eigenvalue(run: Run) -> None:
    """Against all eigenvalues of the whole Hessian of 128 weights."""
    two = Two()
    target = of(run, two)

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(IMAGES.flatten(1) @ weight.T, LABELS)

    weight = two.layer.weight.detach()
    hessian = torch.func.jacrev(torch.func.jacrev(loss))(weight).reshape(128, 128)
    wanted = torch.linalg.eigvalsh(hessian)[-1].item()
    value, change = largest_curvature(target, IMAGES, by_labels(LABELS), seed=0, steps=200)
    assert value == pytest.approx(wanted, rel=0.01)
    assert change < 1e-3
    many = (
        IMAGES.repeat(30, 1, 1, 1),
        by_labels(LABELS.repeat(30)),
    )  # more than are computed at once
    assert largest_curvature(target, *many, seed=0, steps=200)[0] == pytest.approx(value, rel=1e-4)


def test_the_jacobian_of_a_linear_network_is_its_weights(run: Run) -> None:
    two = Two()
    target, weight = of(run, two), two.layer.weight
    bare, shown = jacobian_norms(target, IMAGES)
    assert bare == pytest.approx([weight.norm().item()] * 6, rel=1e-5)
    # Of two probabilities each is p (1 - p) times the difference of the weights.
    p = target(IMAGES).softmax(1)[:, 0]
    difference = (weight[0] - weight[1]).norm()
    wanted = (math.sqrt(2) * p * (1 - p) * difference).tolist()
    assert shown == pytest.approx(wanted, rel=1e-4)


def test_directions_are_as_long_as_the_filters_and_leave_norms_alone() -> None:
    from denature.nets import create

    network = create("resnetc20", classes=10, image_size=32)
    direction = filter_normalised(network, 5)
    weights = dict(network.named_parameters())
    assert all(weights[name].ndim > 1 for name in direction)
    assert len(direction) < len(weights)
    for name, by in direction.items():
        torch.testing.assert_close(by.flatten(1).norm(dim=1), weights[name].flatten(1).norm(dim=1))
    again = filter_normalised(network, 5)
    assert all(torch.equal(by, again[name]) for name, by in direction.items())


def test_scaling_a_layer_changes_nothing_that_is_compared(run: Run) -> None:
    """Twice the weights and twice the logits: the same accuracy at every relative size."""
    small, large = of(run, Two(0.1)), of(run, Two(0.2))
    for size in (0.0, 0.3, 1.0):
        a = moved(small, filter_normalised(small.network, 3), size, IMAGES)
        b = moved(large, filter_normalised(large.network, 3), size, IMAGES)
        torch.testing.assert_close(2 * a, b)


def test_a_trained_network_gets_worse_as_its_weights_move(run: Run) -> None:
    data = load("digits")
    images = data.test.images[data.test.rows[:200]].float() / 255
    labels = data.test.labels[data.test.rows[:200]]
    target = Target(run, images, device="cpu")
    before = {name: value.clone() for name, value in target.network.state_dict().items()}
    found = flatness(
        target, images, labels, by_labels(labels), loss_is="cross-entropy", tested=images,
        sizes=(0.0, 0.5, 2.0), directions=4,
    )  # fmt: skip
    assert found.accuracy[0].value > 0.9
    assert found.accuracy[0].value > found.accuracy[2].value
    assert found.loss[0].value < found.loss[1].value < found.loss[2].value
    assert found.curvature > 0
    assert (found.accuracy[1].n, found.accuracy[1].over) == (4, "seeds and images")
    # Without a change all directions are one network, and images are all there is.
    assert (found.accuracy[0].n, found.accuracy[0].over) == (200, "images")
    assert found.accuracy[0].low < found.accuracy[0].value
    places, losses = surface(target, images, by_labels(labels), points=5)
    assert losses.shape == (5, 5)
    assert losses[2, 2] == pytest.approx(found.loss[0].value, rel=1e-4)
    assert losses[2, 2] == losses.min()
    for name, value in target.network.state_dict().items():
        assert torch.equal(value, before[name])
    assert places[0] == -places[-1] == -1


def test_the_loss_is_that_of_the_run_at_its_temperature_and_with_its_targets(
    tmp_path: Path,
) -> None:
    data, brief = load("digits"), Training(epochs=1, device="cpu", precision="fp32", fraction=0.5)
    plain = train("mlp", data, Normal(), brief, out=tmp_path / "plain")
    split = trained_on(plain.record, data)
    assert torch.equal(split.rows, data.train.fraction(0.5).rows)
    images, labels = split.images[split.rows].float() / 255, split.labels[split.rows]

    def found(run: Run) -> tuple[torch.Tensor, str]:
        loss = training_loss(run, images, labels, ClassMatcher(data))
        half = loss.part(slice(5, 10))(run.network(images[5:10]))
        torch.testing.assert_close(half, loss(run.network(images))[5:10])
        return loss(run.network(images)), loss.name

    smooth = train("mlp", data, Normal(temperature=4, smoothing=0.2), brief)
    given = smooth.network(images) / 4
    wanted = nn.functional.cross_entropy(given, labels, reduction="none", label_smoothing=0.2)
    losses, name = found(smooth)
    torch.testing.assert_close(losses, wanted)
    assert name == "normal (temperature 4, smoothing 0.2)"

    hardened = train("mlp", data, Hardened(temperature=7), brief, source=plain)
    targets = (plain.network(images) / 7).softmax(-1)
    wanted = -(targets * (hardened.network(images) / 7).log_softmax(-1)).sum(-1)
    losses, name = found(hardened)
    torch.testing.assert_close(losses, wanted)
    assert name == "hardened (temperature 7)"

    shutil.rmtree(tmp_path / "plain")  # without its teacher, the labels at its temperature
    wanted = nn.functional.cross_entropy(hardened.network(images) / 7, labels, reduction="none")
    losses, name = found(hardened)
    torch.testing.assert_close(losses, wanted)
    assert "against the labels at temperature 7: its teacher was not found at" in name


@pytest.mark.parametrize("storage", ["exact", "top-1"])
def test_a_teacher_is_asked_again_in_the_order_and_form_that_its_student_learned(
    storage: str, tmp_path: Path
) -> None:
    """The student's data number the classes the other way round."""
    data, brief = load("digits"), Training(epochs=2, device="cpu", precision="fp32")
    teacher = train("mlp", data, Normal(), brief, out=tmp_path / "teacher")

    def backwards(split: Split) -> Split:
        return replace(split, labels=9 - split.labels)

    turned = replace(
        data, classes=data.classes[::-1], train=backwards(data.train), test=backwards(data.test),
        digest="turned",
    )  # fmt: skip
    objective, asking = Distilled(temperature=4, alpha=0.9), InferenceConfig(storage=storage)
    student = train("mlp", turned, objective, brief, source=teacher, inference=asking)
    images, labels = turned.train.images[:50].float() / 255, turned.train.labels[:50]
    loss = training_loss(student, images, labels, ClassMatcher(turned))
    answers = teacher.network(images).detach().flip(1)
    answers = coding(storage, classes=10, dtype=torch.float32).round(answers)
    logits = student.network(images)
    wanted = objective(logits, labels, Answers("logits", answers), done=1.0)
    torch.testing.assert_close(loss(logits), wanted)


def test_weights_are_moved_on_training_images_and_images_are_test_images(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load("digits")
    seen: dict[str, torch.Tensor] = {}

    def look(target: Target, images: torch.Tensor, *rest: object, **named: Any) -> Flatness:
        seen.update(moved=images, changed=named["tested"])
        return flatness(target, images, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("denature.recipes.flatness.flatness", look)
    [around] = compare([run], data.config, tmp_path, samples=40, directions=2).networks
    assert (around.weights_split, around.images_split) == ("train", "test")
    for split, given in ((data.train, seen["moved"]), (data.test, seen["changed"])):
        there = {image.numpy().tobytes() for image in split.images[split.rows]}
        assert len(given) == 40
        assert all((255 * image).round().byte().numpy().tobytes() in there for image in given)


def test_a_teacher_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record states its folder from the working directory of the training on."""
    monkeypatch.chdir(tmp_path)
    brief = Training(epochs=1, device="cpu", precision="fp32")
    teacher = train("mlp", "digits", Normal(), brief, out=Path("runs/teacher"))
    train("mlp", "digits", Distilled(), brief, source=teacher, out=Path("runs/student"))
    data = load("digits")
    images, labels = data.test.images[:10].float() / 255, data.test.labels[:10]

    def loss() -> TrainingLoss:
        student = load_run(tmp_path / "runs" / "student")
        return training_loss(student, images, labels, ClassMatcher(data))

    here = loss()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    there = loss()
    assert there.name == here.name
    assert here.answers is not None
    assert there.answers is not None
    assert torch.equal(there.answers.values, here.answers.values)
    shutil.rmtree(tmp_path / "runs" / "teacher")
    assert "its teacher was not found at runs/teacher" in loss().name


def test_flatness_that_was_measured_is_not_measured_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compare([run], "digits", tmp_path, samples=20, directions=2)
    monkeypatch.setattr("denature.recipes.flatness.flatness", None)
    assert compare([run], "digits", tmp_path, samples=20, directions=2) == first
    with pytest.raises(TypeError):
        compare([run], "digits", tmp_path, samples=20, directions=3)


def test_flatness_by_another_loss_is_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a student whose teacher was away the first time."""
    monkeypatch.chdir(tmp_path)
    brief = Training(epochs=1, device="cpu", precision="fp32")
    teacher = train("mlp", "digits", Normal(), brief, out=Path("runs/teacher"))
    train("mlp", "digits", Distilled(), brief, source=teacher, out=Path("runs/student"))

    def loss() -> str:
        student = load_run(tmp_path / "runs" / "student")
        found = compare([student], "digits", tmp_path / "flat", samples=20, directions=2)
        return found.networks[0].loss_is

    (tmp_path / "runs" / "teacher").rename(tmp_path / "runs" / "away")
    assert "not found" in loss()
    (tmp_path / "runs" / "away").rename(tmp_path / "runs" / "teacher")
    assert "not found" not in loss()


def test_a_strangers_record_names_no_file(run: Run, tmp_path: Path) -> None:
    other = replace(run, record=replace(run.record, id="../../escaped"))
    compare([other], "digits", tmp_path / "a" / "b", samples=20, directions=2)
    assert not list(tmp_path.rglob("escaped*"))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_run_has_its_loss_or_a_remark(kind: str) -> None:
    assert KINDS[kind].rebuilt or KINDS[kind].remark


def test_intervals_of_a_loss_end_at_its_least_value(run: Run) -> None:
    """A nasty teacher's loss falls below 0: its divergence from its adversary is subtracted."""
    for objective, away in ((Nasty(), 40.0), (Normal(), 0.0)):
        loss = TrainingLoss(objective, LABELS, None, objective.kind)
        of_image = torch.tensor([9.0, 0.0, 0.0, 0.0, 0.0, 0.0]) - away
        found = flatness(of(run, Two()), IMAGES, LABELS, Fixed(of_image),
                         loss_is=loss.name, tested=IMAGES, least=loss.least, sizes=(0.0, 0.5),
                         directions=2)  # fmt: skip
        for estimate in found.loss:
            assert estimate.value == 1.5 - away
            assert estimate.high > estimate.value + 2
            # Of these images alone the interval reaches 2 below the mean.
            assert (estimate.low < -away - 2) if away else (estimate.low == 0)


def test_the_least_value_of_the_loss_is_that_of_the_run(
    trained_mlp: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[float] = []

    def look(*given: Any, **named: Any) -> Flatness:
        seen.append(named["least"])
        return flatness(*given, **named)

    monkeypatch.setattr("denature.recipes.flatness.flatness", look)
    brief = Training(epochs=1, device="cpu", precision="fp32")
    nasty = train("mlp", "digits", Nasty(), brief, source=trained_mlp)
    compare([trained_mlp, nasty], "digits", tmp_path, samples=10, directions=2)
    assert seen == [0.0, -math.inf]


@pytest.mark.slow
def test_the_command_line_sets_networks_side_by_side(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = Training(epochs=3, batch_size=64, device="cpu", precision="fp32")
    folders = []
    for seed in (0, 1):
        folders.append(str(tmp_path / f"run-{seed}"))
        train("mlp", "digits", Normal(), replace(training, seed=seed), out=folders[-1])
    words = ["flatness", *folders, "--data", "digits", "--samples", "60", "--directions", "2", "-q"]
    scope = ("--scope", "Contract 17")
    assert main([*words, "--out", str(tmp_path / "out"), "--json", *scope]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [it["run"] for it in told["networks"]] == folders
    assert all(len(it["accuracy"]) == len(it["sizes"]) for it in told["networks"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "Scope and permission: Contract 17." in page
    assert page_is_drawn_again(tmp_path / "out")
    assert main(["flatness", "--data", "digits", "-q"]) == 1
    assert "No run was named" in capsys.readouterr().err
    capsys.readouterr()
    assert main([*words[:5], "--samples", "60", "--directions", "1", "-q"]) == 1
    assert "60 samples and 1 directions" in capsys.readouterr().err
