"""Flat minima and robustness: known correlations, verdicts, and a run of the whole experiment."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import rankdata

from denature.cli.app import main
from denature.recipes import flat_minima as recipe
from denature.report.figures import new_figure
from denature.report.flat_minima import (
    _spread,
    minima_table,
    page,
    rank_correlation,
    verdict_on_minima,
)
from denature.report.flatness import verdict_on_flatness
from denature.robust.config import AttackConfig
from denature.train import Training
from tests.made_results import flat, flatness, minima, near, of_training


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
    assert "n0.7: no evidence; in a flatter minimum: of its training accuracy above" in each[-1]
    assert "above chance it keeps +61.2 [+61.2, +61.2] points more than the plain" in each[-1]
    mixed = [
        of_training(f"n{place}", robust=place, fall=fall, sensitivity=0.5)
        for place, fall in zip(places, (0.3, 0.1, 0.4, 0.2, 0.5, 0.1, 0.3), strict=True)
    ]
    together = verdict_on_minima(minima(*mixed))[0]
    assert together.startswith("Over 7 networks it is not shown that those are more robust that")
    # Curvature falls with robustness here, and is of losses of different scales.
    assert "curvature" not in together


def test_a_network_that_fits_less_is_not_flatter_for_it() -> None:
    """Both keep half of their accuracy above chance, and lose 45 and 20 points of accuracy."""
    fits = replace(flat("fits", 0.55, 0.5), classes=10)
    fits = replace(fits, accuracy=(near(1.0), *fits.accuracy[1:]))
    less = replace(flat("less", 0.3, 0.5), classes=10)
    less = replace(less, accuracy=(near(0.5), *less.accuracy[1:]))
    assert fits.kept.value == pytest.approx(0.5)
    assert less.kept.value == pytest.approx(0.5)
    entries = flatness(fits, less).entries
    assert "not settled whether the minimum is flatter" in verdict_on_flatness(entries)[0]
    # A network at chance has nothing to keep.
    lost = replace(less, accuracy=(near(0.1), *less.accuracy[1:]))
    assert (lost.kept.value, lost.kept.low, lost.kept.high) == (0.0, 0.0, 1.0)


def test_an_eigenvalue_that_still_moves_is_marked() -> None:
    plain = of_training("plain", robust=0.5, fall=0.5, sensitivity=0.5)
    moves = replace(
        plain,
        name="moves",
        flatness=tuple(replace(flat, curvature_moved=0.02) for flat in plain.flatness),
    )
    header, *lines = minima_table(minima(plain, moves))
    place = header.index("Curvature")
    assert [line[place] for line in lines] == ["0.667", "about 0.667"]
    assert lines[0][header.index("Loss rises")] == "0.08"


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
    # Asked again, it reads what it measured; a damaged file alone is measured again.
    monkeypatch.setattr(recipe, "flatness_of", None)
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["networks"] == found["networks"]
    kept = sorted(tmp_path.rglob("flatness/*.json"))
    assert len(kept) == 2 * len(found["networks"])
    kept[0].write_text(kept[0].read_text().replace('"directions": 2', '"directions": 3'))
    with pytest.raises(TypeError):
        main(words)


@pytest.mark.parametrize("span", [(40, 60), (10, 15), (0.8, 1.2), (0.5, 6), (3, 300), (1, 5000)])
def test_labels_of_an_axis_stay_apart(span: tuple[float, float]) -> None:
    figure = new_figure(2.4, 2.0)
    axes = figure.add_subplot()
    axes.plot(span, (0, 1))
    _spread(axes)
    figure.canvas.draw()
    shown = [label for label in axes.get_xticklabels(which="both") if label.get_text()]
    boxes = sorted((label.get_window_extent() for label in shown), key=lambda box: float(box.x0))
    assert len(boxes) >= 2
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
