"""Verdicts on networks of which the truth is known, and how often they are wrong."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.coverage import (
    CASES,
    INTERVALS,
    LIMITS,
    OLD,
    attacked,
    coverage,
    evidence,
    scenarios,
    words,
)
from denature.robust.outcomes import EvaluationData
from denature.robust.verdict import PLAIN, judge

NONE = [name for name in CASES if name.startswith(("no defense", "three seeds without"))]


@pytest.mark.slow
@pytest.mark.parametrize("samples", [100, 500])
@pytest.mark.parametrize("name", NONE)
def test_networks_without_a_defense_are_rarely_called_more_robust(name: str, samples: int) -> None:
    found = words(400, samples, **CASES[name])  # type: ignore[arg-type]
    assert found.get("more robust", 0.0) < 0.05
    assert found.get("an illusion", 0.0) + found.get("mostly an illusion", 0.0) < 0.05


def test_what_is_there_is_found_more_often_than_not() -> None:
    robust = words(200, 500, gain=0.7, spread=0.1)
    assert robust["more robust"] > 0.5
    mask = words(200, 500, masked=3.0)
    # By chance some of these networks are so much more robust that something may be left.
    assert mask["an illusion"] > 0.5
    assert mask["an illusion"] + mask["mostly an illusion"] > 0.7
    partly = words(200, 500, seeds=3, masked=3.0, gain=0.2, spread=0.05)
    assert partly["mostly an illusion"] > 0.5
    assert partly.get("more robust", 0.0) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in INTERVALS if name not in LIMITS])
def test_intervals_hold_the_true_value(name: str) -> None:
    draw, counts = INTERVALS[name]
    every_scenario = [scenario for n in counts for scenario in scenarios(n, draw)]
    if name.startswith("mean distance"):  # which the number of images determines alone
        every_scenario = list({scenario.images: scenario for scenario in every_scenario}.values())
    least = min(coverage(draw, scenario, 300)[0] for scenario in every_scenario)
    # 95 is wanted; 300 draws leave 1.3 points of chance, the normal interval of a skewed mean 1.
    assert least >= 0.92


def test_without_the_images_an_interval_misses_the_truth() -> None:
    draw, _ = INTERVALS[OLD]
    assert min(coverage(draw, scenario, 100)[0] for scenario in scenarios(10, draw)) < 0.7


N = 400


def at(share: float, budget: float) -> np.ndarray:
    """Budgets at which images fall: so large a share holds beyond `budget`."""
    falls = np.full(N, budget / 4)
    falls[: round(share * N)] = 1.0
    return falls


def network(*, plain: float, everything: float, budget: float = 0.2) -> EvaluationData:
    return evidence(np.ones(N, bool), at(plain, budget), at(everything, budget))


def undefended(share: float) -> list[EvaluationData]:
    """Three, a point apart."""
    return [network(plain=s, everything=s) for s in (share - 0.01, share, share + 0.01)]


def test_the_same_gain_under_plain_attacks_and_under_all_is_no_illusion() -> None:
    """Ten points that the spread of seeds does not settle are no evidence, and not nothing."""
    others = [network(plain=s, everything=s) for s in (0.42, 0.5, 0.58)]
    said = judge([network(plain=0.6, everything=0.6)], others, [])
    assert said.word == "no evidence"
    assert said.real.difference.value == pytest.approx(0.1, abs=0.005)
    assert said.masked is not None
    assert said.masked.value == pytest.approx(0)


def test_where_no_plain_attack_ran_nothing_is_said_of_plain_attacks() -> None:
    ours, others = network(plain=0.9, everything=0.6), undefended(0.1)

    def without(evidence: EvaluationData) -> EvaluationData:
        left = {name: tried for name, tried in evidence.tried.items() if name not in PLAIN}
        return replace(evidence, tried=left)

    said = judge([without(ours)], [without(other) for other in others], [])
    assert (said.apparent, said.masked) == (None, None)
    assert said.real.difference.value > 0.4
    assert "plain" not in said.said


def test_a_mask_with_little_behind_it_is_mostly_an_illusion() -> None:
    said = judge([network(plain=1.0, everything=0.07)], undefended(0.01), [])
    assert said.word == "mostly an illusion"
    assert said.apparent is not None
    assert said.apparent.difference.value > 0.9
    nothing = judge([network(plain=1.0, everything=0.01)], undefended(0.01), [])
    assert nothing.word == "an illusion"


def test_a_gain_within_the_spread_of_seeds_is_no_evidence() -> None:
    """59 % against 46, 50 and 56 %: what a third seed of the same training may reach."""
    others = [network(plain=s, everything=s) for s in (0.46, 0.5, 0.56)]
    assert judge([network(plain=0.59, everything=0.59)], others, []).word == "no evidence"
    close = [network(plain=s, everything=s) for s in (0.45, 0.46, 0.47)]
    assert judge([network(plain=0.59, everything=0.59)], close, []).word == "more robust"


def test_networks_are_compared_on_what_all_of_them_answer_rightly() -> None:
    """A tenth that the undefended ones answer wrongly as they are is no gain of the other."""
    wrong = np.ones(N, bool)
    wrong[: N // 10] = False
    others = [evidence(wrong, at(s, 0.2), at(s, 0.2)) for s in (0.49, 0.5, 0.51)]
    said = judge([network(plain=0.5, everything=0.5)], others, [])
    assert said.samples == N - N // 10
    assert said.real.difference.value == pytest.approx(0, abs=1e-9)
    assert said.word == "no evidence"


def test_a_gain_below_five_points_is_none_however_sure() -> None:
    others = [network(plain=0.5, everything=0.5) for _ in range(3)]
    said = judge([network(plain=0.54, everything=0.54)], others, [])
    assert said.real.difference.low > 0
    assert said.word == "no evidence"
    assert "more than seeds and samples leave open, and less than the 5 points" in said.said


def test_a_loss_that_is_sure_is_said_to_be_one() -> None:
    said = judge([network(plain=0.2, everything=0.14)], undefended(0.48), [])
    assert said.word == "no evidence"
    assert said.said.endswith("points: less robust, with the whole interval.")


def test_where_what_is_left_is_not_settled_not_all_is_called_an_illusion() -> None:
    others = [network(plain=s, everything=s) for s in (0.2, 0.3, 0.4)]
    said = judge([network(plain=0.95, everything=0.42)], others, [])
    assert said.real.difference.low < 0 < said.real.difference.high
    assert said.word == "mostly an illusion"
    assert said.said.endswith("whether that much is left is not settled.")


def test_evidence_of_the_simulation_is_as_it_is_meant() -> None:
    """The spread of seeds in the scenarios above is about ten points of robust accuracy."""
    random = np.random.default_rng(0)
    image = random.normal(0, 0.6, 2000)
    shares = [
        attacked(random, image).robust(["autoattack"], "linf", 0.1).mean() for _ in range(200)
    ]
    assert 0.05 < np.std(shares) < 0.15


def crashed(found: EvaluationData, attack: str) -> EvaluationData:
    """The same where an attack failed on some samples."""
    ran = found.tried[attack].ran.copy()
    ran[:50] = False
    tried = {**found.tried, attack: replace(found.tried[attack], ran=ran, crashed=True)}
    return replace(found, tried=tried)


def test_an_attack_that_crashed_on_an_undefended_network_makes_no_mask_of_another() -> None:
    """Plain attacks leave 70 and 50 % right, AutoAttack 40 and 20: the same loss on both sides."""
    ours = network(plain=0.7, everything=0.4)
    others = [network(plain=p, everything=p - 0.3) for p in (0.49, 0.5, 0.51)]
    assert judge([ours], others, []).word == "more robust"
    said = judge([ours], [*others[:2], crashed(others[2], "autoattack")], [])
    assert said.word == "no evidence"
    assert said.masked is not None
    assert said.masked.value == pytest.approx(0)


def test_one_undefended_network_is_never_enough() -> None:
    """Three alike seeds of a defense say nothing of the spread of what it is compared with."""
    ours = [network(plain=s, everything=s) for s in (0.79, 0.8, 0.81)]
    said = judge(ours, [network(plain=0.5, everything=0.5)], [])
    assert said.word == "no evidence"
    assert "the spread between seeds is unknown" in said.said
    assert judge(ours, [network(plain=s, everything=s) for s in (0.5, 0.51)], []).word == (
        "more robust"
    )


def test_where_nothing_can_be_compared_that_is_said() -> None:
    wrong = evidence(np.zeros(N, bool), at(0.5, 0.2), at(0.5, 0.2))
    said = judge([wrong], undefended(0.5), [])
    assert (said.word, said.samples) == ("no evidence", 0)
    assert "no sample that all compared networks answer rightly" in said.said


def test_where_no_attack_ran_to_its_end_on_all_networks_that_is_said() -> None:
    """Samples were compared, and no attack finished on each of them."""
    others = [network(plain=s, everything=s) for s in (0.49, 0.5, 0.51)]
    for name in ("fgsm", "pgd", "autoattack"):
        others[2] = crashed(others[2], name)
    found = judge([network(plain=0.7, everything=0.7)], others, [])
    assert found.word == "no evidence"
    assert found.said == "No attack ran to its end on all compared networks."
