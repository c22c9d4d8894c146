"""Checks that may raise a flag: the measured numbers, what raises the flag, why, and what to do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

Subject = TypeVar("Subject")


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """Result of one check."""

    name: str
    raised: bool
    found: str
    """The measured numbers, as a sentence."""
    raised_if: str
    why: str
    advice: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule(Generic[Subject]):
    """One entry of a catalogue of checks: three sentences, and the function that checks."""

    raised_if: str
    """The condition, as a sentence."""
    why: str
    """What the condition means."""
    advice: str
    """What to do if the flag is raised."""
    look: Callable[[Subject], tuple[bool, str]]
    """From the subject to whether the flag is raised, and the measured numbers as a sentence."""


def run_checks(rules: Mapping[str, Rule[Subject]], subject: Subject) -> list[Check]:
    """Check a subject by all rules, in their order."""
    checks = []
    for name, rule in rules.items():
        raised, found = rule.look(subject)
        checks.append(
            Check(
                name=name,
                raised=raised,
                found=found,
                raised_if=rule.raised_if,
                why=rule.why,
                advice=rule.advice,
            )
        )
    return checks
