"""Conclusions of an audit: each is raised under its condition, and not just beside it."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest

from denature.audit.findings import CHECKS, TAGS, findings
from denature.audit.reading import difference, is_lower, short_names
from denature.audit.result import AuditResult, Interval
from tests.audits import (
    FULL,
    MODEL_ACCURACY,
    SAME,
    Taken,
    audit,
    estimate,
    interval,
    price,
    with_findings,
)

HALF = "Half of the advantage is taken within the audited queries"
ABOVE = "No defense is shown to keep the worst thief below half"
NAIVE = "A defense is shown to help against the naive thief only"
LABELS = "Labels alone give a thief nearly as much as scores do"
HEAD = "The model is a public encoder with a linear head, and its head was solved for"
EXACT = "A defense shows true answers"
RUINED = "A defense ruins the answers for honest users"
IDLE = "A defense costs honest users and is not shown to help"
NOTHING = "Recovered advantage is not measurable here"


def names(result: AuditResult) -> set[str]:
    return {finding.name for finding in result.findings}


def severity(result: AuditResult, name: str) -> str:
    return next(found.severity for found in result.findings if found.name == name)


def against(name: str, **taken: float) -> Taken:
    """One defense beside the undefended model, where both thieves take 90 %."""
    return {"none": {"naive": 0.9, "labels": 0.9}, name: taken}


def test_every_finding_says_when_why_and_what_to_do() -> None:
    seen = {
        finding.name: finding
        for result in (
            *(audit(), audit(SAME), audit(measurable=False), audit(trick(0.4, 0.88))),
            *(audit(against("mad@epsilon=1.0", naive=0.9)), ruined(0.1)),
            with_findings(
                replace(audit(), model=replace(audit().model, nan_answers=7, not_summing=7))
            ),
        )
        for finding in result.findings
    }
    assert len(seen) == len(CHECKS)
    for finding in seen.values():
        assert set(TAGS) <= set(finding.tags)
        for text in (finding.raised_if, finding.why, finding.do):
            assert text.endswith(".")


def test_findings_do_not_depend_on_findings() -> None:
    result = audit(SAME)
    assert findings(result) == findings(replace(result, findings=())) == result.findings


def test_half_is_reached_within_the_largest_budget() -> None:
    reached, beyond = audit({"none": {"naive": 0.51}}), audit({"none": {"naive": 0.49}})
    assert HALF in names(reached)
    assert HALF not in names(beyond)
    [finding] = [found for found in reached.findings if found.name == HALF]
    half = reached.curves[0].to_half
    assert finding.do.startswith(f"Allow one client fewer than {half.low:,.0f} queries")
    assert "OWASP AISVS C11.5" in finding.tags
    assert HALF not in names(audit({"mad@epsilon=1.0": {"naive": 0.9}}))


@pytest.mark.parametrize(
    ("left", "half", "raised"),
    [(0.60, 0.04, "high"), (0.52, 0.04, "medium"), (0.48, 0.04, "medium"), (0.45, 0.04, "")],
)
def test_no_defense_keeps_the_worst_thief_below_half(left: float, half: float, raised: str) -> None:
    result = audit(against("mad@epsilon=1.0", naive=left), half=half)
    assert (ABOVE in names(result)) == bool(raised)
    if raised:
        assert severity(result, ABOVE) == raised


def ruined(kept: float, name: str = "mad@epsilon=1.0", right: float = 0.5) -> AuditResult:
    """A defense that lets nothing through, and keeps the class of some images."""
    result = audit(against(name, naive=0.1))
    [bare, defense] = result.defenses
    defense = replace(defense, top1_kept=estimate(kept), accuracy=estimate(right))
    return with_findings(replace(result, defenses=(bare, defense)))


def test_a_defense_that_ruins_the_model_is_no_defense() -> None:
    assert RUINED in names(ruined(0.85))
    assert RUINED not in names(ruined(0.895))  # the interval reaches nine tenths
    assert ABOVE not in names(ruined(0.85))  # no defense is left that could be blamed
    both = {**against("mad@epsilon=1.0", naive=0.1), "top-k@k=1": {"naive": 0.8}}
    result = audit(both)
    assert ABOVE not in names(result)
    [bare, broken, fine] = result.defenses
    broken = replace(broken, top1_kept=estimate(0.1))
    assert ABOVE in names(with_findings(replace(result, defenses=(bare, broken, fine))))


@pytest.mark.parametrize(
    ("right", "ruins"), [(0.02, False), (0.0, False), (-0.005, False), (-0.1, True)]
)
def test_a_nasty_teacher_ruins_nothing_where_it_is_right_as_often(
    right: float, ruins: bool
) -> None:
    """It is another network, which names other classes than the model where both are wrong."""
    assert (RUINED in names(ruined(0.85, "nasty", MODEL_ACCURACY + right))) == ruins
    assert RUINED in names(ruined(0.85, right=MODEL_ACCURACY + right))


def test_a_model_that_needs_no_defense_is_not_said_to_lack_one() -> None:
    taken = {"none": {"naive": 0.3}, "mad@epsilon=1.0": {"naive": 0.48}}
    assert ABOVE not in names(audit(taken))
    assert ABOVE not in names(audit({"none": {"naive": 0.9}}))


def trick(naive: float, worst: float, before: float = 0.9) -> Taken:
    return {
        "none": {"naive": before, "recovery": "The answers are not perturbed."},
        "mad@epsilon=1.0": {"naive": naive, "recovery": worst},
    }


@pytest.mark.parametrize(
    ("taken", "raised"),
    [
        (trick(0.40, 0.88), True),
        (trick(0.40, 0.60), False),  # the defense lowers the worst thief too
        (trick(0.88, 0.89), False),  # the naive thief takes as much as before
        (trick(0.84, 0.86), False),  # neither thief surely beats the other
        (trick(0.40, 0.38), False),  # the naive thief is the worst one
    ],
)
def test_a_defense_helps_against_the_naive_thief_only(taken: Taken, raised: bool) -> None:
    result = audit(taken)
    assert (NAIVE in names(result)) == raised
    if raised:
        [finding] = [found for found in result.findings if found.name == NAIVE]
        assert finding.why.startswith(
            "Behind mad, threat A: the naive thief takes 40 % [36, 44] instead of 90 % [86, 94], "
            "but recovery takes 88 % [84, 92]."
        )


@pytest.mark.parametrize(
    ("labels", "half", "raised"),
    [
        (0.90, 0.02, True),
        (0.84, 0.02, True),  # trails by 6 points, 9 at most
        (0.80, 0.02, False),  # by 10 points, 13 at most
        (0.90, 0.09, False),  # by nothing, 13 at most: not settled
        (0.95, 0.09, True),  # the worst thief itself
    ],
)
def test_labels_are_worth_as_much_as_scores(labels: float, half: float, raised: bool) -> None:
    result = audit({"none": {"naive": 0.9, "labels": labels}}, half=half)
    assert (LABELS in names(result)) == raised


def test_labels_of_a_model_that_shows_nothing_else_are_no_finding() -> None:
    taken = {"none": {"naive": 0.9, "labels": 0.9}}
    assert LABELS in names(audit(taken))
    assert LABELS not in names(audit(taken, kind="label"))
    assert LABELS not in names(audit({"none": {"naive": 0.01, "labels": 0.01}}))


def test_a_public_head_is_found_where_its_thief_is_the_worst() -> None:
    assert "A thief with the model's public encoder is the worst one" in names(audit(SAME))
    found = audit(SAME)
    cells = tuple(replace(c, note="the head was solved from 73 answers") for c in found.cells)
    assert HEAD in names(with_findings(replace(found, cells=cells)))
    lowly = {"none": {"naive": 0.01, "same-features": 0.02}}
    assert not {name for name in names(audit(lowly)) if "public encoder" in name}
    beaten = {**SAME, "none": {**SAME["none"], "same-features": 0.5}}
    assert HEAD not in names(audit(beaten))
    assert HEAD not in names(audit(SAME, measurable=False))


@pytest.mark.parametrize(
    ("defense", "exact", "l1", "raised"),
    [
        ("modelguard-s@epsilon=0.2", 0.28, 0.1, True),
        ("modelguard-s@epsilon=0.2", 0.105, 0.1, False),  # the interval holds a tenth
        ("modelguard-s@epsilon=0.2", 0.02, 0.1, False),
        ("label-only", 1.0, None, False),
        ("none", 1.0, 0.0, False),
    ],
)
def test_answers_that_leak_as_they_are(
    defense: str, exact: float, l1: float | None, raised: bool
) -> None:
    result = replace(
        audit({"none": {"naive": 0.9}, defense: {"naive": 0.4}}),
        defenses=(price(defense, 1.0, 0.92, exact, l1),),
    )
    assert (EXACT in names(with_findings(result))) == raised


@pytest.mark.parametrize(
    ("left", "exact", "raised"), [(0.88, 0.0, True), (0.70, 0.0, False), (0.88, 1.0, False)]
)
def test_a_defense_that_costs_and_does_not_help(left: float, exact: float, raised: bool) -> None:
    result = audit(against("mad@epsilon=1.0", naive=left))
    [bare, defense] = result.defenses
    exactly = replace(defense, exact=replace(estimate(exact), high=exact))
    assert (IDLE in names(with_findings(replace(result, defenses=(bare, exactly))))) == raised


def test_a_defense_that_helps_in_one_threat_is_not_idle() -> None:
    """Lower than without it in threat B, where it starts from more."""
    result = audit(against("mad@epsilon=1.0", naive=0.80), owned=0.3)
    assert not lowered(result, "A")
    assert lowered(result, "B")
    assert IDLE not in names(result)


def lowered(result: AuditResult, threat: str) -> bool:
    found: Mapping[str, Interval | None] = {
        worst.defense: worst.recovered
        for worst in result.worst
        if (worst.threat, worst.budget) == (threat, 5000)
    }
    bare, defended = found["none"], found["mad@epsilon=1.0"]
    assert bare is not None
    assert defended is not None
    return is_lower(defended, bare)


def test_lost_classes_weigh_more_than_moved_probabilities() -> None:
    result = audit(against("mad@epsilon=1.0", naive=0.9))
    [bare, defense] = result.defenses
    assert severity(result, IDLE) == "low"
    rough = replace(defense, top1_kept=estimate(0.9))
    assert severity(with_findings(replace(result, defenses=(bare, rough))), IDLE) == "medium"


def test_nothing_measurable_raises_one_finding_of_recovered_advantage() -> None:
    assert names(audit(measurable=False)) == {NOTHING, EXACT}
    assert NOTHING not in names(audit())
    assert NOTHING not in names(audit({}))


# Readings


def test_the_interval_of_a_difference_adds_the_ends_as_squares() -> None:
    left = Interval(value=0.5, low=0.4, high=0.53)
    right = Interval(value=0.3, low=0.26, high=0.5)
    found = difference(left, right)
    assert found.value == pytest.approx(0.2)
    assert found.low == pytest.approx(0.2 - math.hypot(0.1, 0.2))
    assert found.high == pytest.approx(0.2 + math.hypot(0.03, 0.04))
    assert not is_lower(right, left)
    assert is_lower(interval(0.3), interval(0.36))
    assert not is_lower(interval(0.3), interval(0.355))


def test_short_names_drop_options_that_do_not_tell_defenses_apart() -> None:
    full = ("none", "mad@epsilon=0.5", "mad@epsilon=1.0", "rounding@decimals=1+top-k@k=3+tie=up")
    assert list(short_names(full).values()) == [*full[:3], "rounding+top-k"]
    assert list(short_names(tuple(FULL)).values()) == [
        "none", "rounding", "label-only", "gaussian", "mad",
    ]  # fmt: skip
