"""How nasty a nasty teacher became, in words."""

from collections.abc import Iterable

from denature.core.record import Record

SPOILS_FROM = 5.0
"""Nats. Measured on digits with `cnn` teachers, see docs/experiments/README.md: up to 3.2 no
student lost more than a point, from 7.5 on one lost two and more, from 170 on 18 to 69."""


def warning(record: Record) -> str | None:
    """What to say of a nasty teacher that is none; None of one that is, and of other runs."""
    found = record.divergence
    if found is None or found.value >= SPOILS_FROM:
        return None
    objective = record.config["objective"]
    return (
        f"not nasty: tau^2 KL from its adversary is only {found.value:.2g} nats on "
        f"{found.n:,} test images, and on digits students were spoiled from about "
        f"{SPOILS_FROM:g} on (tau {objective['temperature']:g}, omega {objective['omega']:g}). "
        "Raise --omega or --epochs, or take a schedule with a long stretch at the full rate, such "
        "as --schedule step."
    )


def divergence(record: Record) -> str:
    """How far a nasty teacher is from its adversary; nothing of other runs."""
    found = record.divergence
    return "" if found is None else f", tau^2 KL from its adversary {found.value:.3g} nats"


def not_nasty(records: Iterable[Record]) -> list[str]:
    """A sentence for a verdict, where some of the nasty teachers are none."""
    pushed = [it for it in records if it.divergence and it.config["objective"]["omega"] > 0]
    harmless = [it.divergence.value for it in pushed if it.divergence and warning(it) is not None]
    if not harmless:
        return []
    return [
        f"{len(harmless)} of {len(pushed)} nasty teachers with an omega above 0 are not nasty: "
        f"tau^2 KL from their adversaries is at most {max(harmless):.2g} nats, and on digits "
        f"students were spoiled from about {SPOILS_FROM:g} on. Their students show little about "
        "the defense."
    ]
