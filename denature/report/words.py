"""How numbers and findings are said to people; the only place where a share becomes a percent."""

from denature.core.stats import Estimate
from denature.report.summary import Row, Summary


def percent(estimate: Estimate) -> str:
    """`98.1 [97.0, 99.2]`, in percent."""
    return f"{estimate.value:.1%}"[:-1] + f" [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def points(estimate: Estimate | None) -> str:
    """`-12.3 [-15.0, -9.6]`, in percentage points."""
    if estimate is None:
        return ""
    value, low, high = (100 * x for x in (estimate.value, estimate.low, estimate.high))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def learned(row: Row) -> str:
    """Whom a student learned from."""
    if row.teacher == "none":
        return "alone (true labels)"
    shown = "labels only" if row.answers == "labels" else "all answers"
    return f"{row.teacher} teacher, {shown}"


def teacher_table(summary: Summary) -> list[list[str]]:
    """Header and lines."""
    lines = [["Teacher", "Network", "Accuracy %", "Against normal", "Seeds"]]
    for row in summary.teachers:
        name = f"{row.kind} ({row.note})" if row.note else row.kind
        lines.append([name, row.net, percent(row.accuracy), points(row.difference), str(row.seeds)])
    return lines


def student_table(summary: Summary) -> list[list[str]]:
    """Header and lines."""
    lines = [["Student", "Learned from", "Accuracy %", "Against alone", "Seeds"]]
    for row in summary.students:
        source = f"{learned(row)} ({row.note})" if row.note else learned(row)
        lines.append(
            [row.net, source, percent(row.accuracy), points(row.difference), str(row.seeds)]
        )
    return lines


def markdown(lines: list[list[str]]) -> str:
    """A table for a document."""
    rows = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def verdict(summary: Summary) -> list[str]:
    """What the tables mean, in at most two sentences; the second says what is not protected."""
    return [s for s in (_spoiled(summary), _labels(summary)) if s]


def _spoiled(summary: Summary) -> str | None:
    soft = [r for r in summary.students if r.teacher == "nasty" and r.answers == "soft"]
    soft = [r for r in soft if r.difference is not None]
    nasty = summary.teacher("nasty")
    if not soft or nasty is None:
        return None
    worst = min(soft, key=lambda r: r.difference.value if r.difference else 0.0)
    assert worst.difference is not None
    cost = (
        ""
        if nasty.difference is None
        else f"; the nasty teacher itself is {points(nasty.difference)} points from the normal one"
    )
    if worst.difference.high < 0:
        spoiled = [r for r in soft if r.difference and r.difference.high < 0]
        return (
            f"Imitating the nasty teacher's full answers spoils {_count(len(spoiled), len(soft))}: "
            f"{worst.net} ends {-100 * worst.difference.value:.1f} points below the same network "
            f"trained alone{cost}."
        )
    return (
        "The nasty teacher did not spoil its students beyond the interval: the worst, "
        f"{worst.net}, differs from the same network alone by {points(worst.difference)} points"
        f"{cost}."
    )


def _count(some: int, all_: int) -> str:
    return "every student here" if some == all_ else f"{some} of {all_} students here"


def _labels(summary: Summary) -> str | None:
    labels = [r for r in summary.students if r.teacher == "nasty" and r.answers == "labels"]
    labels = [r for r in labels if r.difference is not None]
    if not labels:
        return None
    shown = ", ".join(f"{r.net} {100 * r.accuracy.value:.1f} %" for r in labels)
    stopped = [r for r in labels if r.difference and r.difference.high < 0]
    if all(r.difference and r.difference.low == r.difference.high == 0 for r in labels):
        return (
            "It does not stop a thief who takes only its labels: for these training images they "
            f"are all right, so such students come out the same as alone ({shown})."
        )
    if not stopped:
        return (
            "It does not stop a thief who takes only its labels: such students are as good as "
            f"alone, within the interval ({shown})."
        )
    return (
        "A thief who takes only its labels loses less, but here loses something: "
        + ", ".join(f"{r.net} {points(r.difference)} points" for r in stopped)
        + "."
    )
