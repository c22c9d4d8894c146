"""Checks: rules over a subject, in their order, with the sentences of each rule in its result."""

from collections.abc import Mapping

from denature.core.checks import Check, Rule, run_checks

RULES: Mapping[str, Rule[int]] = {
    "large": Rule(
        raised_if="above 9",
        why="large numbers are large",
        advice="divide",
        look=lambda number: (number > 9, f"{number}."),
    ),
    "odd": Rule(
        raised_if="not a multiple of 2",
        why="odd numbers are odd",
        advice="add 1",
        look=lambda number: (bool(number % 2), f"{number % 2} is left."),
    ),
}


def test_each_rule_gives_one_check_with_its_sentences() -> None:
    assert run_checks(RULES, 12) == [
        Check(
            name="large",
            raised=True,
            found="12.",
            raised_if="above 9",
            why="large numbers are large",
            advice="divide",
        ),
        Check(
            name="odd",
            raised=False,
            found="0 is left.",
            raised_if="not a multiple of 2",
            why="odd numbers are odd",
            advice="add 1",
        ),
    ]


def test_checks_come_in_the_order_of_the_rules() -> None:
    assert [check.name for check in run_checks(dict(reversed(list(RULES.items()))), 3)] == [
        "odd",
        "large",
    ]
