"""Divergence of a nasty teacher from its adversary, in words."""

from collections.abc import Iterable

from denature.core.record import Record
from denature.report.kinds import objective_of

SPOILS_FROM = 5.0
"""Nats. Measured on digits with `cnn` teachers, see docs/experiments/README.md: up to 3.2 no
student lost more than a point, from 7.5 on one lost 1.9 and more, from 170 on 18 to 69."""

SPOILED = "from between 3.2 and 7.5 on, with one seed"


def warning(record: Record) -> str | None:
    """Warning of a nasty teacher that is not nasty; None for a nasty one, and for other runs."""
    measured = record.divergence
    if measured is None or measured.value >= SPOILS_FROM:
        return None
    objective = objective_of(record)
    return (
        f"not nasty: tau^2 KL from its adversary is only {_below(measured.value)} nats on "
        f"{measured.n:,} test images, and on digits students were spoiled {SPOILED} "
        f"(tau {objective.temperature:g}, omega {objective.omega:g}). "
        "Raise --omega or --epochs, or take a schedule with a long stretch at the full rate, such "
        "as --schedule step."
    )


def divergence(record: Record) -> str:
    """Divergence of a nasty teacher from its adversary; empty for other runs."""
    measured = record.divergence
    return "" if measured is None else f", tau^2 KL from its adversary {measured.value:.3g} nats"


def not_nasty(records: Iterable[Record]) -> list[str]:
    """A sentence for a verdict, if any nasty teacher is not nasty; else none."""
    pushed = [r for r in records if r.divergence and objective_of(r).omega > 0]
    harmless = [r.divergence.value for r in pushed if r.divergence and warning(r) is not None]
    if not harmless:
        return []
    number, count = len(harmless), len(pushed)
    which = "The nasty teacher" if count == 1 else f"{number} of {count} nasty teachers"
    return [
        f"{which} with an omega above 0 {'is' if number == 1 else 'are'} not nasty: "
        f"tau^2 KL from the adversary is at most {_below(max(harmless))} nats, and on digits "
        f"students were spoiled {SPOILED}. Students of such a teacher show "
        "little about the defense."
    ]


def _below(value: float) -> str:
    """A value below `SPOILS_FROM` by two digits, or by as many as show that it is below."""
    texts = (f"{value:.{digits}g}" for digits in range(2, 18))
    return next(text for text in texts if float(text) < SPOILS_FROM)
