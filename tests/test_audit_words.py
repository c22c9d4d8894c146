"""Words of an audit where budgets, seeds, threats and baselines are not the usual ones."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from denature.audit.findings import rate_limit
from denature.audit.gate import best_defense, junit
from denature.audit.reading import final, left_by, query_limit
from denature.audit.result import ONE_CLASS, AuditResult, Crossing, Worst
from denature.audit.score import AdvantageCurve, constant_hits, queries_to
from denature.cli.audit import _gate
from denature.core.errors import GateFailed
from denature.report.audit_verdict import headline, verdict
from tests.audits import TEST, audit, estimate, interval, price, with_findings


def changed(result: AuditResult, *entries: Worst) -> AuditResult:
    """A result with other entries of the worst thieves, by defense, threat and budget."""
    places = {(w.defense, w.threat, w.budget): w for w in (*result.worst, *entries)}
    return with_findings(replace(result, worst=tuple(places.values())))


def entry(
    result: AuditResult, defense: str, budget: int, value: float, half: float = 0.04
) -> Worst:
    found = next(w for w in result.worst if (w.defense, w.budget) == (defense, budget))
    return replace(found, thief="semi-supervised", recovered=interval(value, half))


def test_a_defense_counts_by_the_worst_of_both_threats() -> None:
    """One that lowers the worst threat is not denied for another that it leaves as it was."""
    taken = {"none": {"naive": 0.9}, "label-only": {"naive": 0.3}}
    result = audit(taken, owned=0.5)
    worst = tuple(
        replace(w, recovered=interval(0.45)) if (w.defense, w.threat) == ("label-only", "A") else w
        for w in result.worst
    )
    result = replace(result, worst=worst)
    assert "the best defense, label-only, leaves 45 %" in headline(result)
    assert "keeps the worst thief below half" in verdict(result)[1]


@pytest.mark.parametrize("high", [None, 900.0])
def test_what_the_interval_does_not_settle_may_be_so(high: float | None) -> None:
    result = audit({"none": {"naive": 0.9}}, threats=("B",))
    half = Crossing(value=1800, low=1200, high=None if high is None else 2400)
    result = replace(result, curves=tuple(replace(c, to_half=half) for c in result.curves))
    finding = rate_limit(result)
    assert finding is not None
    words = (
        ("is taken", "are enough", "high") if high else ("may be taken", "may be enough", "medium")
    )
    assert f"Half of the advantage {words[0]} without" in verdict(result)[2]
    assert words[1] in finding.why
    assert finding.severity == words[2]


def test_the_limit_below_all_budgets_is_that_of_the_finding() -> None:
    result = audit({"none": {"naive": 0.9}}, threats=("B",))
    half = Crossing(value=11, low=10, high=13)
    result = replace(result, curves=tuple(replace(c, to_half=half) for c in result.curves))
    finding = rate_limit(result)
    assert finding is not None
    assert "belongs below 10, which an audit" in verdict(result)[2]
    assert "fewer than 10 queries" in finding.do


def test_a_guess_of_one_class_varies_with_the_sample() -> None:
    """Or intervals of what is recovered from an unbalanced model are too narrow."""
    classes = np.array([0] * 70 + [1] * 30)
    hits = constant_hits(classes, 2)
    assert isinstance(hits, np.ndarray)
    assert hits.shape == (1, 100)
    assert hits.mean() == 0.7
    assert constant_hits(np.arange(100) % 2, 2) == 0.5


def test_the_page_names_one_limit() -> None:
    """Where the threat that reaches half later may reach it earlier by its interval."""
    result = audit()
    ends = {
        "A": Crossing(value=1384, low=1274, high=1450),
        "B": Crossing(value=1390, low=1160, high=1480),
    }
    curves = tuple(
        replace(curve, to_half=ends[curve.threat]) if curve.defense == "none" else curve
        for curve in result.curves
    )
    result = replace(result, curves=curves)
    found = query_limit(result)
    assert found is not None
    assert (found.threat, found.limit) == ("A", 1160)
    assert "below 1,160" in verdict(result)[2]
    finding = rate_limit(result)
    assert finding is not None
    assert "fewer than 1,160 queries in all, the low end of the other threat's" in finding.do


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_gate_fails_where_the_best_defense_leaves_more(share: float, tmp_path: Path) -> None:
    result = audit({"none": {"naive": 0.9}, "label-only": {"naive": 0.3}}, threats=("B",))
    with pytest.raises(GateFailed, match="label-only") if share < 0.3 else nullcontext():
        _gate(result, share, tmp_path)
    assert (tmp_path / "junit.xml").exists()


def test_a_gate_without_a_measurement_holds_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = audit({"none": {"naive": 0.9}}, threats=("B",))
    _gate(result, 0.95, tmp_path)
    assert not capsys.readouterr().err
    lost = tuple(replace(worst, recovered=None) for worst in result.worst)
    _gate(replace(result, worst=lost), 0.0, tmp_path)
    assert (
        "shows nothing: no recovered advantage is measurable here; the verdict says why"
        in capsys.readouterr().err
    )


def test_where_the_gate_holds_no_case_of_junit_fails() -> None:
    result = audit({"none": {"naive": 0.9}, "label-only": {"naive": 0.3}}, threats=("B",))
    best = best_defense(result)
    assert best is not None
    assert best[0] == "label-only"
    suite = ElementTree.fromstring(junit(result, 0.5))
    assert suite.get("failures") == "0"
    [none, label_only] = suite
    assert "the gate holds behind label-only" in none[0].get("message", "")
    assert len(label_only) == 0
    assert ElementTree.fromstring(junit(result, 0.1)).get("failures") == "2"


def test_a_thief_of_a_smaller_budget_counts_where_it_is_shown_to_take_more() -> None:
    taken = {"none": {"naive": 0.45}, "mad@epsilon=1.0": {"naive": 0.4}}
    result = audit(taken, threats=("B",))
    early = [entry(result, name, 1000, 0.7) for name in taken]
    found = changed(result, *early)
    assert {w.budget for w in final(found, "B").values()} == {1000}
    assert headline(found).startswith("With 1,000 queries the worst thief takes 70 % [66, 74]")
    taken_by, stopped, _ = verdict(found)
    assert taken_by.startswith(
        "A clone recovers more than half of the undefended model's advantage"
    )
    assert "below half" not in stopped
    best = best_defense(found)
    assert best is not None
    assert best[1] == pytest.approx(0.7)
    # By chance a little more with fewer queries: the larger budget counts.
    near = changed(result, *(entry(result, name, 1000, 0.44) for name in taken))
    assert {w.budget for w in final(near, "B").values()} == {5000}


def test_one_seed_settles_no_difference() -> None:
    taken = {"none": {"naive": 0.9}, "mad@epsilon=1.0": {"naive": 0.6}}
    result = audit(taken, threats=("B",))
    assert "lowers what it takes" in verdict(result)[1]
    one = with_findings(replace(result, plan=replace(result.plan, seeds=1)))
    said = verdict(one)
    assert said[0].endswith("With one seed this holds for these clones alone.")
    assert said[1].startswith("The one defense is not shown to lower what the worst thief takes")
    assert any("is not shown to help" in finding.name for finding in one.findings)


def test_a_defense_is_not_credited_with_what_no_thief_takes_without_it() -> None:
    taken = {name: {"naive": 0.3} for name in ("none", "rounding@decimals=1", "label-only")}
    said = verdict(audit(taken, threats=("B",)))[1]
    assert said.startswith(
        "No thief is shown to take half, with or without a defense; no defense is shown to lower"
    )


def limited(*, low: float, value: float, least: int = 0, budgets: tuple[int, ...]) -> str:
    result = audit({"none": {"naive": 0.9}}, threats=("A",), budgets=budgets)
    half = Crossing(value=value, low=low, high=2 * value)
    curves = tuple(replace(curve, to_half=half, least=least) for curve in result.curves)
    return verdict(with_findings(replace(result, curves=curves)))[2]


def test_a_limit_that_is_interpolated_below_all_budgets_says_so() -> None:
    early = "belongs below 22, interpolated below the smallest budget, 100, which"
    assert early in limited(low=22, value=111, budgets=(100, 500))
    assert limited(low=220, value=300, budgets=(100, 500)).endswith("belongs below 220.")
    # The curve of a threat may begin at a larger budget than the plan.
    said = limited(low=800, value=1000, least=2000, budgets=(500, 2000))
    assert "within 2,000 queries, the smallest budget" in said


def test_the_limit_is_the_least_of_all_threats() -> None:
    result = audit({"none": {"naive": 0.9}})
    ends = {
        "A": Crossing(value=2000, low=1900, high=None),
        "B": Crossing(value=2500, low=1200, high=None),
    }
    curves = tuple(replace(curve, to_half=ends[curve.threat]) for curve in result.curves)
    assert "belongs below 1,200" in verdict(replace(result, curves=curves))[2]


def test_a_ruined_defense_passes_no_case() -> None:
    result = audit({"none": {"naive": 0.9}, "mad@epsilon=1.0": {"naive": 0.02}}, threats=("B",))
    ruined = replace(result, defenses=(price("mad@epsilon=1.0", 0.3, 0.3, 0.0, 0.9),))
    none, case = ElementTree.fromstring(junit(ruined, 0.5))
    assert none.find("failure") is not None
    skipped = case.find("skipped")
    assert skipped is not None
    said = "this defense keeps the shown class of only 30 % of the images, and is right on 30 %"
    assert skipped.get("message") == said


def test_a_model_at_chance_that_is_copied_is_said_to_be() -> None:
    result = audit({"none": {"naive": 0.9}}, threats=("B",))
    lost = tuple(
        replace(w, recovered=None, recovered_fidelity=interval(0.97), fidelity=estimate(0.97))
        for w in result.worst
    )
    model = replace(result.model, accuracy=estimate(0.1))
    said = verdict(replace(result, worst=lost, model=model))
    assert "Its answers can be copied all the same: with 1,000 queries a clone gives" in said[1]
    assert "97 %" in said[1]
    assert "not shown to be better than chance" in said[2]
    badly = tuple(replace(w, recovered_fidelity=interval(0.02)) for w in lost)
    assert "copied" not in " ".join(verdict(replace(result, worst=badly, model=model)))


def test_a_model_that_names_the_largest_class_only_is_no_better_than_a_constant() -> None:
    result = audit({"none": {"naive": 0.9}}, threats=("B",))
    lost = tuple(replace(w, recovered=None, recovered_fidelity=None) for w in result.worst)
    constant = replace(result.baselines[0], name=ONE_CLASS, accuracy=estimate(0.91, TEST))
    model = replace(result.model, accuracy=estimate(0.91))
    said = verdict(replace(result, worst=lost, model=model, baselines=(constant,)))
    assert "not shown to be better than chance" in said[2]
    assert not left_by(replace(result, worst=lost), "B")


@pytest.mark.parametrize(
    ("counts", "share"),
    [((50, 50), 0.5), ((45, 55), 0.5), ((91, 9), 0.91), ((10, 10, 10, 10), 0.25), ((0, 8), 1.0)],
)
def test_an_answer_without_a_look_is_right_as_often_as_its_class(
    counts: Sequence[int], share: float
) -> None:
    classes = np.repeat(np.arange(len(counts)), counts)
    assert np.mean(constant_hits(classes, len(counts))) == pytest.approx(share)


def test_a_curve_begins_at_the_images_that_the_thief_owns() -> None:
    curve = AdvantageCurve(
        budgets=(200, 800), values=np.array([0.6, 0.9]), draws=np.zeros((2000, 2))
    )
    from_one, from_owned = (queries_to(0.3, curve, start=start).value for start in (1, 50))
    assert from_one == pytest.approx(200**0.5)
    assert from_owned == pytest.approx(100)  # halfway from 50 to 200 on a logarithmic axis
