"""An evaluation of robustness: its samples, what it keeps, and attacks that fail."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from denature.core.errors import ConfigError, Stopped
from denature.core.stopping import Stopper
from denature.data import load
from denature.robust.base import Attack, AttackCost
from denature.robust.catalogue import ATTACKS, chosen
from denature.robust.config import EFFORTS, AttackConfig
from denature.robust.evaluation import choose, evaluate
from denature.robust.masking import look
from denature.robust.summary import summary
from denature.robust.target import Target
from denature.train import Normal, Run, Training, train
from denature.train.session import Session
from tests.evaluations import (
    flatness,
    robustness,
    robustness_and_page,
)

ATTACK_CONFIG = AttackConfig(effort="quick", samples=40)


@pytest.fixture(scope="module")
def plain(trained_mlp: Run) -> Run:
    return trained_mlp


def test_a_network_trained_at_a_temperature_is_attacked_with_it_put_back(plain: Run) -> None:
    target = Target(plain, torch.rand(4, 1, 8, 8), device="cpu")
    attack_config = replace(ATTACK_CONFIG, attacks=("pgd",))
    assert chosen(attack_config, target) == ("pgd",)
    target.trained_at = 100.0
    assert chosen(attack_config, target) == ("pgd", "pgd-rescaled")
    assert target.temperature == 100


def test_where_nothing_ran_there_is_no_worst_and_still_a_page(
    plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Tensor:
        raise RuntimeError("no memory")

    monkeypatch.setitem(ATTACKS, "pgd", replace(ATTACKS["pgd"], propose=broken))
    attack_config = replace(ATTACK_CONFIG, attacks=("pgd",))
    [only] = robustness_and_page([plain], "digits", attack_config, tmp_path, controls=1).judged
    assert only.robustness.worst["linf"] == {}
    assert only.robustness.attacks[0].error == "RuntimeError: no memory"
    assert "failed: RuntimeError: no memory" in (tmp_path / "report.html").read_text()


def test_samples_are_of_each_class_its_share() -> None:
    data = load("digits")
    taken = choose(data.test, 100, 0)
    counts = np.bincount(taken.labels[taken.rows].numpy(), minlength=10)
    assert len(taken) == 100
    assert counts.min() == counts.max() == 10
    assert not set(taken.rows.tolist()) - set(data.test.rows.tolist())
    smaller = choose(data.test, 40, 0)
    assert set(smaller.rows.tolist()) < set(taken.rows.tolist())
    assert choose(data.test, 10**6, 0) is data.test


def test_what_was_attacked_is_not_attacked_again(
    plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load("digits")
    images = data.test.images[data.test.rows].float() / 255
    target = Target(plain, images, device="cpu")
    calls = 0

    def wish() -> bool:
        nonlocal calls
        calls += 1
        return calls > 4

    attack_config = replace(ATTACK_CONFIG, batch_size=20)
    with pytest.raises(Stopped, match="Run the same command again"):
        evaluate(
            target,
            target,
            data,
            attack_config,
            tmp_path,
            session=Session(stopper=Stopper(wish=wish)),
        )
    half = len(list(tmp_path.glob("*.npz")))
    assert 0 < half < 3 * len(EFFORTS["quick"].attacks)
    first = evaluate(target, target, data, attack_config, tmp_path)

    def never(*_: object) -> Tensor:
        raise AssertionError("asked again")

    for name, attack in ATTACKS.items():
        monkeypatch.setitem(ATTACKS, name, replace(attack, propose=never))
    again = evaluate(target, target, data, attack_config, tmp_path)
    for name, tried in first.tried.items():
        for norm, measured in tried.distances.items():
            np.testing.assert_array_equal(measured, again.tried[name].distances[norm])
        assert again.tried[name].error == ""


def test_an_attack_that_fails_counts_for_nothing(
    plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load("digits")
    target = Target(plain, data.test.images[data.test.rows].float() / 255, device="cpu")
    square, calls = ATTACKS["square"], 0

    def sometimes(*given: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("out of luck")
        return square.propose(*given)

    monkeypatch.setitem(ATTACKS, "square", replace(square, propose=sometimes))
    attack_config = replace(ATTACK_CONFIG, batch_size=20)
    evidence = evaluate(target, target, data, attack_config, tmp_path)
    found = summary(evidence, attack_config, {})
    [told] = [it for it in found.attacks if it.name == "square"]
    assert told.not_run == 20
    assert told.error == "RuntimeError: out of luck"
    # A share over the survivors of a crash would flatter the attack, or the network.
    assert told.crashed
    assert told.robust == {}
    assert {share.n for share in found.worst["linf"].values()} == {40}
    assert "square" not in evidence.complete
    # What it found on other batches still counts against the network.
    fooled = evidence.tried["square"].fooled("linf", 0.3)
    assert not (evidence.robust(list(evidence.tried), "linf", 0.3) & fooled).any()
    assert look(evidence)


def test_what_an_attack_proposes_is_not_believed(
    plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images beyond the budget or out of range, and images that fool no network, do not count."""
    data = load("digits")
    target = Target(plain, data.test.images[data.test.rows].float() / 255, device="cpu")

    def far(scene: object, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
        return 5 - 9 * images

    liar = Attack(about="lies", norm="linf", propose=far, cost=lambda _: AttackCost(1))
    trouble = replace(EFFORTS["quick"], attacks=("liar",))
    monkeypatch.setitem(ATTACKS, "liar", liar)
    monkeypatch.setitem(EFFORTS, "quick", trouble)
    evidence = evaluate(target, target, data, ATTACK_CONFIG, tmp_path)
    tried = evidence.tried["liar"]
    assert tried.found.min() >= 0
    assert tried.found.max() <= 1
    robust = summary(evidence, ATTACK_CONFIG, {}).attacks[0].robust
    assert all(it.value > 0.9 for it in robust.values())


def test_images_that_are_not_finite_fool_nothing(
    plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load("digits")
    target = Target(plain, data.test.images[data.test.rows].float() / 255, device="cpu")

    def broken(scene: object, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
        return images * float("nan")

    monkeypatch.setitem(
        ATTACKS,
        "liar",
        Attack(about="x", norm="linf", propose=broken, cost=lambda _: AttackCost(1)),
    )
    monkeypatch.setitem(EFFORTS, "quick", replace(EFFORTS["quick"], attacks=("liar",)))
    tried = evaluate(target, target, data, ATTACK_CONFIG, tmp_path).tried["liar"]
    assert np.isfinite(tried.found).all()
    assert all((distances == np.inf).all() for distances in tried.distances.values())


def test_an_attack_is_told_at_the_budgets_that_it_ran_at(plain: Run, tmp_path: Path) -> None:
    data = load("digits")
    target = Target(plain, data.test.images[data.test.rows].float() / 255, device="cpu")
    config = replace(ATTACK_CONFIG, linf=(0.1, 0.2, 0.3))
    evidence = evaluate(target, target, data, config, tmp_path)
    first = evidence.tried["fgsm"]
    few = replace(evidence, tried={**evidence.tried, "fgsm": replace(first, budgets=(0.2,))})
    told = {it.name: it.robust for it in summary(few, config, {}).attacks}
    assert list(told["fgsm"]) == ["0.2"]
    assert list(told["pgd"]) == ["0.1", "0.2", "0.3"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"linf": (8.0,)}, "at most 1: values lie in"),
        ({"l2": (0.0,)}, "above 0"),
        ({"samples": 3}, "at least 10"),
        ({"effort": "heroic"}, "There is no effort 'heroic'"),
    ],
)
def test_budgets_that_make_no_sense_are_told(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        AttackConfig(**options)


def test_a_network_of_landmarks_cannot_be_attacked(tmp_path: Path, plain: Run) -> None:
    finder = train("sepcnn@width=4", "drawn-faces", Normal(), Training(epochs=1, device="cpu"))
    with pytest.raises(ConfigError, match="predicts landmarks"):
        Target(finder, torch.rand(2, 3, 64, 64))
    with pytest.raises(ConfigError, match="has landmarks; attacks here change classes"):
        robustness([finder], "drawn-faces", ATTACK_CONFIG, tmp_path)
    with pytest.raises(ConfigError, match="has landmarks; flatness is measured for classes"):
        flatness([finder], "drawn-faces", tmp_path)
    with pytest.raises(ConfigError, match="No target given"):
        robustness([], "digits", ATTACK_CONFIG, tmp_path)
