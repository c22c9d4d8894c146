"""Flat minima and robustness: known correlations, verdicts, and a run of the whole experiment."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import rankdata

from denature.cli.app import main
from denature.recipes import flat_minima as recipe
from denature.report.flat_minima import (
    minima_table,
    page,
    rank_correlation,
    verdict_on_minima,
)
from denature.robust.config import AttackConfig
from denature.train import Training
from tests.made_results import minima, of_training


@pytest.mark.parametrize(
    ("xs", "ys", "rho", "chance"),
    [
        ([1, 2, 3, 4, 5], [1, 4, 9, 16, 25], 1.0, 2 / 120),
        ([1, 2, 3, 4, 5], [5, 4, 3, 2, 1], -1.0, 2 / 120),
        ([1, 2, 3, 4], [7, 7, 7, 7], 0.0, 1.0),
    ],
)
def test_rank_correlations_that_are_known(
    xs: list[float], ys: list[float], rho: float, chance: float
) -> None:
    assert rank_correlation(xs, ys) == pytest.approx((rho, chance))


def test_the_chance_of_a_correlation_is_that_of_all_orders() -> None:
    xs, ys = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 3.0, 5.0, 4.0]
    rho, chance = rank_correlation(xs, ys)
    differences = [
        sum((a - b) ** 2 for a, b in zip(rankdata(xs), order, strict=True))
        for order in itertools.permutations(rankdata(ys))
    ]
    assert rho == pytest.approx(1 - 6 * 4 / (5 * 24))  # by Spearman's formula
    above = sum(1 - 6 * d / (5 * 24) >= rho - 1e-9 for d in differences) / len(differences)
    assert chance == pytest.approx(2 * above)


def test_flatness_that_goes_with_robustness_is_said_and_another_order_is_not() -> None:
    places = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    along = [
        of_training(f"n{place}", robust=place, fall=0.8 - place, sensitivity=0.5)
        for place in places
    ]
    together, *each = verdict_on_minima(minima(*along))
    assert together.startswith("Over 7 networks those are more robust that are flatter by the acc")
    assert "not shown for those that are less sensitive to the image" in together
    assert (
        "n0.7: no evidence; in a flatter minimum: under moved weights it loses -60.0 [" in each[-1]
    )
    mixed = [
        of_training(f"n{place}", robust=place, fall=fall, sensitivity=0.5)
        for place, fall in zip(places, (0.3, 0.1, 0.4, 0.2, 0.5, 0.1, 0.3), strict=True)
    ]
    together = verdict_on_minima(minima(*mixed))[0]
    assert "those are more robust that are flatter by the largest curvature (" in together
    assert "not shown for those that are flatter by the accuracy under moved weights" in together


def test_one_seed_settles_no_difference() -> None:
    one = [
        of_training(name, robust=0.5, fall=fall, sensitivity=0.5, seeds=1)
        for name, fall in (("plain", 0.5), ("flat", 0.1))
    ]
    found = minima(*one)
    assert "not settled whether in a flatter minimum" in verdict_on_minima(found)[1]
    assert [line[0] for line in minima_table(found)] == ["Network", "plain", "flat"]
    assert page(found, []).summary == verdict_on_minima(found)[0]


@pytest.mark.slow
def test_the_experiment_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(
        recipe.SETTINGS["smoke"],
        net="mlp",
        training=Training(epochs=2, batch_size=64, device="cpu", precision="fp32"),
        attack_config=AttackConfig(
            effort="quick", samples=20, linf=(0.1,), attacks=("fgsm", "pgd")
        ),
        flatness=replace(recipe.SETTINGS["smoke"].flatness, samples=20, directions=2),
        seeds=2,
    )
    monkeypatch.setattr(recipe, "SETTINGS", {"smoke": small})
    words = ["reproduce", "flatness", "--scale", "smoke", "--out", str(tmp_path), "-q", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [network["name"] for network in found["networks"]] == [recipe.PLAIN, *recipe.WAYS]
    assert all(len(network["flatness"]) == 2 for network in found["networks"])
    assert Path(found["report"]).read_text().count("<table") >= 1
    assert len(found["verdict"]) == len(found["networks"])
