"""Attacks and checks against networks whose border is known by pen and paper."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from denature.data import Dataset, load
from denature.data.dataset import Split
from denature.robust.catalogue import ATTACKS
from denature.robust.config import EFFORTS, AttackConfig
from denature.robust.evaluation import evaluate
from denature.robust.masking import chance, look
from denature.robust.target import Target
from denature.train import Normal, Run, Training, train
from tests.evaluations import (
    around,
)


class Linear(nn.Module):
    """The gap of the logits of two classes is w . (x - 1/2) + bias; others are out of reach."""

    def __init__(self, weights: Tensor, bias: float, classes: int = 2) -> None:
        super().__init__()
        self.weights, self.bias, self.classes = weights, bias, classes

    def forward(self, x: Tensor) -> Tensor:
        gap = ((x - 0.5) * self.weights).flatten(1).sum(1) + self.bias
        others = [torch.full_like(gap, -20.0 - n) for n in range(self.classes - 2)]
        return torch.stack([torch.zeros_like(gap), gap, *others], dim=1)


@pytest.fixture(scope="module")
def line() -> tuple[Dataset, Run]:
    """Grey images, all alike, of class 1; the border is 0.6 / |w| away in each norm."""
    weights = torch.zeros(1, 8, 8)
    weights[0, 2, 3], weights[0, 5, 5] = 3.0, 4.0
    data, count = load("digits"), 40
    images = torch.full((count, 1, 8, 8), 128, dtype=torch.uint8)
    split = Split(images, torch.ones(count, dtype=torch.int64), torch.arange(count))
    data = replace(data, test=split, train=split, classes=("no", "yes"), digest="line")
    run = train("mlp", data, Normal(), Training(epochs=1, device="cpu"))
    return data, around(run, Linear(weights, 0.6), "line")


GAP = 0.6 + (128 / 255 - 0.5) * 7


def test_the_ensemble_finds_the_border_of_a_line(
    line: tuple[Dataset, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It attacks nine classes one by one, so ten are needed."""
    data, run = line
    data = replace(data, classes=tuple("abcdefghij"))
    network = run.network
    assert isinstance(network, Linear)
    run = around(run, Linear(network.weights, network.bias, classes=10), "ten")
    trouble = replace(EFFORTS["standard"], attacks=("autoattack",))
    monkeypatch.setitem(EFFORTS, "standard", trouble)
    target = Target(run, torch.full((4, 1, 8, 8), 128 / 255), device="cpu")
    border = GAP / 7
    attack_config = AttackConfig(samples=10, linf=(border * 1.02,))
    [tried] = evaluate(target, target, data, attack_config, tmp_path).tried.values()
    assert tried.error == ""
    assert tried.ran.all()
    assert (tried.distances["linf"] >= border * 0.999).all()
    assert tried.fooled("linf", border * 1.02).all()


ELSEWHERE = ("pgd-unbounded", "decision", "autoattack")
"""Attacks with no border of their own, or with a test of their own."""


@pytest.mark.parametrize("name", [n for n in ATTACKS if n not in ELSEWHERE])
def test_each_attack_finds_the_border_of_a_line(
    name: str, line: tuple[Dataset, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """|w|_1 is 7, |w|_2 is 5; one pixel is enough."""
    data, run = line
    attack = ATTACKS[name]
    border = {"linf": GAP / 7, "l2": GAP / 5, "l0": 1.0}[attack.norm]
    near = (border * 0.9, border * 1.15)
    trouble = replace(EFFORTS["standard"], attacks=(name,), ensembles=2, steps=20)
    monkeypatch.setitem(EFFORTS, "standard", trouble)
    budgets = {"linf": near, "l2": near} if attack.norm != "l0" else {}
    attack_config = replace(AttackConfig(samples=10), **budgets)  # type: ignore[arg-type]
    target = Target(run, torch.full((4, 1, 8, 8), 128 / 255), device="cpu")
    found = evaluate(target, target, data, attack_config, tmp_path)
    [tried] = found.tried.values()
    assert tried.error == ""
    assert tried.ran.all()
    measured = tried.distances[attack.norm]
    # No image is changed below the border; what is changed is not far beyond it.
    assert (measured >= border * 0.999).all()
    most = {"l0": 2.0, "linf": border * 1.16, "l2": border * 1.16}[attack.norm]
    if name == "square":  # random: some get through
        assert (measured <= most).any()
    else:
        assert (measured <= most).all()


def test_a_border_is_found_by_the_answered_class_alone(
    line: tuple[Dataset, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HopSkipJump comes from outside, and is near in a few steps."""
    data, run = line
    trouble = replace(EFFORTS["full"], attacks=("decision",), iterations=200)
    monkeypatch.setitem(EFFORTS, "full", trouble)
    target = Target(run, torch.full((4, 1, 8, 8), 128 / 255), device="cpu")
    attack_config = AttackConfig(effort="full", samples=10)
    [tried] = evaluate(target, target, data, attack_config, tmp_path).tried.values()
    assert tried.error == ""
    measured = tried.distances["l2"]
    assert (measured >= GAP / 5 * 0.999).all()
    assert (measured <= GAP / 5 * 2).all()


def test_of_two_kinds_of_distance_each_is_measured() -> None:
    images = torch.zeros(1, 3, 2, 2)
    changed = images.clone()
    changed[0, 0, 0, 0], changed[0, 2, 0, 0], changed[0, 1, 1, 1] = 0.3, 0.4, 1.0
    from denature.robust.evaluation import _distances

    found = _distances(images, changed, torch.tensor([True]))
    assert found["linf"].item() == 1
    assert found["l2"].item() == pytest.approx((0.25 + 1) ** 0.5)
    assert found["l0"].item() == 2  # pixels, not values
    assert np.isinf(_distances(images, changed, torch.tensor([False]))["l0"]).all()


@pytest.mark.parametrize(
    ("more", "fewer", "wanted"), [(5, 0, 1 / 32), (0, 0, 1.0), (3, 3, 42 / 64), (10, 0, 2**-10)]
)
def test_the_sign_test_is_that_of_the_books(more: int, fewer: int, wanted: float) -> None:
    assert chance(more, fewer) == pytest.approx(wanted)


class Trapped(nn.Module):
    """Going from grey to bright, the wrong class comes nearer, falls far behind, and then wins."""

    def forward(self, x: Tensor) -> Tensor:
        moved = x.flatten(1).mean(1) - 128 / 255
        near, hump = 1.5 - 50 * moved, 0.5 + 50 * (moved - 0.02)
        far = 2 - 60 * (moved - 0.05)
        gap = torch.where(moved < 0.02, near, torch.where(moved < 0.05, hump, far))
        return torch.stack([torch.zeros_like(gap), gap], dim=1)


def test_small_steps_that_are_caught_are_found_out(
    line: tuple[Dataset, Run], tmp_path: Path
) -> None:
    data, run = line
    run = around(run, Trapped(), "trapped")
    target = Target(run, torch.full((4, 1, 8, 8), 128 / 255), device="cpu")
    attack_config = AttackConfig(effort="quick", samples=40, linf=(0.1,), attacks=("fgsm", "pgd"))
    evidence = evaluate(target, target, data, attack_config, tmp_path)
    checks = {check.name: check for check in look(evidence)}
    assert checks["one step beats many"].raised
    assert "fgsm fools 100% of 40 samples at 0.1, pgd 0%" in checks["one step beats many"].found
    assert checks["unbounded attacks fail"].found == "pgd-unbounded did not run."
    assert checks["the cross-entropy misleads"].found.startswith("Not checked")
    assert {name for name, check in checks.items() if check.raised} == {"one step beats many"}
