"""The verdict of an audit, on results with known numbers."""

from dataclasses import replace

import pytest

from denature.audit.result import Crossing
from denature.report.audit_verdict import crossing_text, verdict
from denature.report.words import share
from tests.audits import audit, estimate, interval


def test_the_verdict_names_what_is_taken_what_stops_it_and_a_limit() -> None:
    taken, stopped, limit = verdict(audit(owned=0.5))
    assert taken == (
        "A clone recovers more than half of the undefended model's advantage: with 5,000 "
        "queries without a defense, a thief without labelled images takes 88 % [84, 92] of the "
        "model's advantage, and its clone is right on 82 % [81, 83] of the test images, the model "
        "on 92 % [91, 93]; a thief with 500 labelled images of its own takes 44 % [40, 48]."
    )
    assert stopped == (
        "No defense is shown to keep the worst thief below half; 3 of 4 defenses lower what it "
        "takes, and the lowest measured is 74 % [70, 78] in the worse of both threats, behind "
        "label-only, which keeps the shown class on 100.0 [99.9, 100.0] % of the images and shows "
        "no probabilities."
    )
    assert limit == (
        "Half of the advantage is taken without a defense by a thief without labelled images "
        "within 1,000 queries, the smallest budget, after 947 [880, 1,136] by interpolation: a "
        "limit on the queries of one client, over all of its keys, belongs below 880, which an "
        "audit with smaller budgets would measure."
    )
    assert verdict(audit(first=0.3))[2] == (
        "Half of the advantage is taken without a defense after about 2,532 [2,273, 2,792] queries "
        "by a thief with 500 labelled images of its own: a limit on the queries of one client, "
        "over all of its keys, belongs below 2,273."
    )


@pytest.mark.parametrize(
    ("value", "half", "said"),
    [
        (0.97, 0.04, "The undefended model can be cloned almost completely:"),
        (0.97, 0.10, "A clone recovers more than half of the undefended model's advantage:"),
        (0.56, 0.04, "A clone recovers more than half of the undefended model's advantage:"),
        (
            0.56,
            0.10,
            "Whether a clone recovers half of the undefended model's advantage is not settled:",
        ),
        (0.20, 0.10, "The undefended model was cloned in part:"),
        (0.02, 0.10, "The undefended model was not seen to be cloned:"),
        (
            0.45,
            0.50,
            "Whether a clone recovers half of the undefended model's advantage is not settled:",
        ),
    ],
)
def test_the_first_sentence_claims_what_the_interval_supports(
    value: float, half: float, said: str
) -> None:
    assert verdict(audit({"none": {"naive": value}}, half=half))[0].startswith(said)


@pytest.mark.parametrize(
    ("left", "half", "said"),
    [
        (0.40, 0.04, "The one defense keeps the worst thief below half: the lowest measured is 40"),
        (0.47, 0.04, "No defense is shown to keep the worst thief below half; the one defense low"),
        (0.85, 0.04, "The one defense is not shown to lower what the worst thief takes: the lowes"),
        (0.60, 0.30, "The one defense is not shown to lower what the worst thief takes: the lowes"),
    ],
)
def test_a_defense_is_credited_with_what_the_interval_of_the_difference_supports(
    left: float, half: float, said: str
) -> None:
    taken = {"none": {"naive": 0.9}, "mad@epsilon=1.0": {"naive": left}}
    assert verdict(audit(taken, half=half))[1].startswith(said)


def test_a_defense_has_to_hold_in_every_threat() -> None:
    taken = {"none": {"naive": 0.9}, "mad@epsilon=1.0": {"naive": 0.6}}
    assert "lowers what it takes" in verdict(audit(taken, owned=0.5))[1]
    assert "keeps the worst thief below half" not in verdict(audit(taken, owned=0.5))[1]
    taken["none"] = {"naive": 0.9, "labels": 1.2}
    assert "keeps the worst thief below half" in verdict(audit(taken, threats=("A",), owned=0.5))[1]


def test_a_defense_that_ruins_the_answers_is_not_credited() -> None:
    taken = {"none": {"naive": 0.9}, "mad@epsilon=1.0": {"naive": 0.2}}
    result = audit({**taken, "top-k@k=1": {"naive": 0.8}})
    [bare, broken, fine] = result.defenses
    broken = replace(broken, top1_kept=estimate(0.02), accuracy=estimate(0.02))
    said = verdict(replace(result, defenses=(bare, broken, fine)))[1]
    assert said.startswith("No defense is shown to keep the worst thief below half; the one def")
    assert "is 80 % [76, 84] in the worse of both threats, behind top-k" in said
    assert said.endswith("it changes the shown class of too many images: mad (keeps 2 % [2, 2]).")
    alone = replace(audit(taken), defenses=(bare, broken))
    assert verdict(alone)[1].startswith("No usable defense was measured, so nothing is known")


def test_where_nothing_is_measurable_nothing_is_claimed() -> None:
    said = verdict(audit(measurable=False))
    assert len(said) == 3
    assert "not measurable here" in said[0]
    assert "a thief with 500 labelled images of its own starts from 52 % [50, 54]" in said[0]
    assert said[1] == "So the audit says nothing for or against any defense."
    [*_, limit] = verdict(replace(audit(), curves=()))
    assert limit.endswith("is not measurable here.")


def test_a_half_beyond_the_largest_budget_is_called_so() -> None:
    limit = verdict(audit({"none": {"naive": 0.48}}))[2]
    assert "lies beyond 5,000 queries, the largest budget, though " in limit
    assert "may be enough by its interval" in limit
    assert "though" not in verdict(audit({"none": {"naive": 0.2}}))[2]
    plan = audit().plan
    assert crossing_text(Crossing(value=None, low=None, high=None), plan) == "beyond 5,000"
    assert crossing_text(Crossing(value=None, low=4773.2, high=None), plan) == (
        "beyond 5,000 [from 4,773]"
    )
    assert crossing_text(Crossing(value=1200.0, low=800.0, high=None), plan) == (
        "1,200 [800, beyond]"
    )


def test_without_the_undefended_model_the_weakest_defense_stands_for_it() -> None:
    said = verdict(audit({"mad@epsilon=1.0": {"naive": 0.2, "labels": 0.3}}))
    assert said[0].startswith("The model was cloned in part: with 5,000 queries behind mad, ")
    assert "keeps the worst thief below half" in said[1]


def test_an_interval_in_a_sentence_is_whole_percents() -> None:
    assert share(interval(0.001, 0.004)) == "0 % [0, 0]"
    assert share(interval(-0.2, 0.15)) == "-20 % [-35, -5]"
