"""How numbers and findings are said to people; the only place where a share becomes a percent."""

from denature.core.record import Record
from denature.core.stats import Estimate
from denature.report.summary import Row, Summary


def percent(estimate: Estimate) -> str:
    """`98.1 [97.0, 99.2]`, in percent."""
    return f"{estimate.value:.1%}"[:-1] + f" [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def score(record: Record) -> str:
    """How good a run is; see `spell`."""
    found = record.error if record.landmarks else record.accuracy
    return "never measured" if found is None else spell(found, landmarks=record.landmarks)


def spell(measured: Estimate, *, landmarks: bool) -> str:
    """`accuracy 98.1 [97.0, 99.2] %`, or of landmarks `error 1.23 [1.20, 1.26] % of the side`."""
    if landmarks:
        return f"error {share_of_side(measured)} % of the side"
    return f"accuracy {percent(measured)} %"


def share_of_side(error: Estimate) -> str:
    """`1.23 [1.20, 1.26]`, in percent of the picture's side."""
    value, low, high = (100 * x for x in (error.value, error.low, error.high))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


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
    if row.teacher == "victim":
        return f"a victim's {row.answers}"
    shown = {"soft": "all answers", "labels": "labels only", "dreams": "without data"}
    return f"{row.teacher} teacher, {shown[row.answers]}"


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
    rows = [r for r in summary.students if r.teacher == "nasty" and r.answers == "soft"]
    soft = [(r, r.difference) for r in rows if r.difference is not None]
    if not soft:
        return None
    settled = [pair for pair in soft if pair[1].high < 0]
    worst, fall = min(settled or soft, key=lambda pair: pair[1].value)
    teacher = next((r for r in summary.teachers if r.recipe == worst.teacher_recipe), None)
    cost = (
        ""
        if teacher is None or teacher.difference is None
        else f"; its teacher itself is {points(teacher.difference)} points from the normal one"
    )
    if fall.n < 2:
        return (
            f"With one seed nothing is settled: {worst.net}, imitating the nasty teacher's full "
            f"answers, ends {100 * fall.value:+.1f} points from the same network trained alone."
        )
    if settled:
        return (
            f"Imitating the nasty teacher's full answers spoils {_count(len(settled), len(soft))}: "
            f"{worst.net} ends {-100 * fall.value:.1f} points below the same network trained "
            f"alone{cost}."
        )
    return (
        "The nasty teacher did not spoil its students beyond the interval: the worst, "
        f"{worst.net}, differs from the same network alone by {points(fall)} points{cost}."
    )


def _count(some: int, all_: int) -> str:
    return "every student here" if some == all_ else f"{some} of {all_} students here"


def _labels(summary: Summary) -> str | None:
    rows = [r for r in summary.students if r.teacher == "nasty" and r.answers == "labels"]
    labels = [(r, r.difference) for r in rows if r.difference is not None]
    if not labels:
        return None
    shown = ", ".join(f"{r.net} {100 * r.accuracy.value:.1f} %" for r, _ in labels)
    if all(difference.n < 2 for _, difference in labels):
        shown = ", ".join(f"{r.net} {100 * d.value:+.1f} points from alone" for r, d in labels)
        return f"Nor is it settled what a thief loses who takes only its labels: {shown}."
    if all(difference.low == difference.high == 0 for _, difference in labels):
        return (
            "It does not stop a thief who takes only its labels: such students come out exactly "
            f"like those of the true labels ({shown})."
        )
    stopped = [(r, d) for r, d in labels if d.high < 0]
    if not stopped:
        return (
            "It does not stop a thief who takes only its labels: such students are as good as "
            f"alone, within the interval ({shown})."
        )
    lost = ", ".join(f"{r.net} {points(d)} points" for r, d in stopped)
    return f"A thief who takes only its labels loses something too: {lost}."
