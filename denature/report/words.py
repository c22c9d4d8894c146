"""Numbers and findings in words."""

import re
from collections.abc import Sequence

from denature.audit.result import Interval
from denature.core.record import Record
from denature.core.stats import MARGIN, Estimate, against_margin
from denature.report.kinds import label_of
from denature.report.summary import Row, Summary
from denature.robust.verdict import Verdict


def terms(scope: str, date: str) -> str:
    """Date of a test, and its scope and permission as they were stated."""
    when = f"Tested on {date}. " if date else ""
    return f"{when}Scope and permission: {scope.strip().rstrip('.') or 'none was stated'}."


def listed(texts: Sequence[str], word: str) -> str:
    """`1,000, 5,000 or 20,000`, with `or` for a word."""
    *others, last = texts
    return f"{', '.join(others)} {word} {last}" if others else last


def reach(text: str, estimate: Estimate | Interval) -> str:
    """An interval in brackets; `[n/a]` where one seed gives none."""
    known = not isinstance(estimate, Estimate) or estimate.significant
    return f"[{text if known else 'n/a'}]"


def percent(estimate: Estimate | Interval) -> str:
    """`98.1 [97.0, 99.2]`, in percent."""
    ends = f"{100 * estimate.low:.1f}, {100 * estimate.high:.1f}"
    return f"{estimate.value:.1%}"[:-1] + f" {reach(ends, estimate)}"


def share(found: Estimate | Interval) -> str:
    """`98 % [97, 99]`, for sentences."""
    value, low, high = (100 * end for end in (found.value, found.low, found.high))
    return f"{value:z.0f} % {reach(f'{low:z.0f}, {high:z.0f}', found)}"


def headline(sentences: Sequence[str]) -> str:
    """The first sentence, up to a colon or semicolon, as a page's result in one line."""
    return re.split(r"[:;] |\. |\.$", sentences[0], maxsplit=1)[0] + "." if sentences else ""


def conclusion(verdict: Verdict) -> str:
    """The verdict on a defended network, as a predicate of that network."""
    gain = verdict.real.difference
    if verdict.word == "no evidence" and gain.significant and gain.high < 0:
        return "is less robust than undefended networks"
    return {
        "more robust": "is more robust than undefended networks",
        "no evidence": "is not shown to be more robust than undefended networks",
        "mostly an illusion": "owes most of its apparent robustness to masked gradients",
        "an illusion": "only looks robust, by masked gradients",
    }[verdict.word]


def score(record: Record) -> str:
    """The score of a run; see `format_score`."""
    measured = record.error if record.landmarks else record.accuracy
    if measured is None:
        return "never measured"
    return marked(format_score(measured, landmarks=record.landmarks), record.chosen_on == "test")


def format_score(measured: Estimate, *, landmarks: bool) -> str:
    """`accuracy 98.1 [97.0, 99.2] %`, or of landmarks `error 1.23 [1.20, 1.26] % of the side`."""
    if landmarks:
        return f"error {share_of_side(measured)} % of the side"
    return f"accuracy {percent(measured)} %"


def share_of_side(error: Estimate) -> str:
    """`1.23 [1.20, 1.26]`, in percent of the picture's side."""
    value, low, high = (100 * x for x in (error.value, error.low, error.high))
    return f"{value:.2f} {reach(f'{low:.2f}, {high:.2f}', error)}"


def points(estimate: Estimate | None) -> str:
    """`-12.3 [-15.0, -9.6]`, in percentage points; `n/a` for an interval that settles nothing."""
    if estimate is None:
        return ""
    value, low, high = (100 * x for x in (estimate.value, estimate.low, estimate.high))
    return f"{value:+z.1f} {reach(f'{low:+z.1f}, {high:+z.1f}', estimate)}"


def learned(row: Row) -> str:
    """The source that a student learned from."""
    return learned_from(row.kind, teacher=row.teacher, answers=row.answers)


def learned_from(kind: str, *, teacher: str, answers: str) -> str:
    """The source that a run learned from; see `denature.report.kinds`."""
    shown = {"soft": "all answers", "labels": "labels only", "synthetic": "without data"}
    return label_of(kind, teacher=teacher, answers=shown.get(answers, answers))


INTERVALS = (
    "Intervals (95 %) cover other seeds and other test images together; of one seed, other test "
    "images alone. Differences are paired by seed, and by test image where the records hold which "
    f"images were answered rightly. Differences within {100 * MARGIN:g} point count as none."
)
"""How to read accuracies and differences, wherever a table shows them."""

BEST_ON_TEST = "best epoch on the test images"
"""Note beside an accuracy that is biased upwards by the choice of its epoch."""

CHOSEN_ON_TEST = "Epochs were chosen by the test images, so these accuracies are too high."


def marked(text: str, chosen_on_test: bool) -> str:
    """An accuracy, and whether its epoch was the best on the images that it was measured on."""
    return f"{text} ({BEST_ON_TEST})" if chosen_on_test else text


def teacher_table(summary: Summary) -> list[list[str]]:
    """Header and lines."""
    lines = [["Teacher", "Network", "Accuracy %", "Against normal", "Seeds"]]
    for row in summary.teachers:
        apart = points(row.difference)
        lines.append([_noted(row.kind, row), row.net, percent(row.accuracy), apart, str(row.seeds)])
    return lines


def student_table(summary: Summary) -> list[list[str]]:
    """Header and lines."""
    lines = [["Student", "Learned from", "Accuracy %", "Against alone", "Seeds"]]
    for row in summary.students:
        apart, source = _points_of(row), _noted(learned(row), row)
        lines.append([row.net, source, percent(row.accuracy), apart, str(row.seeds)])
    return lines


def _points_of(row: Row) -> str:
    """A difference; with the number of paired seeds, where it is below the row's."""
    difference = row.difference
    if difference is None:
        return ""
    pairs = 1 if of_one_seed(difference) else difference.n
    return points(difference) + (f" ({pairs} of {row.seeds} seeds)" if pairs < row.seeds else "")


def _noted(name: str, row: Row) -> str:
    notes = [row.note] * bool(row.note) + [BEST_ON_TEST] * row.chosen_on_test
    return f"{name} ({', '.join(notes)})" if notes else name


def measured(summary: Summary) -> str:
    """Accuracies in a sentence, for runs that no verdict compares: of many, the two ends."""
    rows = summary.students or summary.teachers
    if not rows:
        return ""
    said = [
        f"{percent(row.accuracy)} % ({row.net}, {_noted(learned(row), row)})"
        for row in sorted(rows, key=lambda row: row.accuracy.value)
    ]
    if len(said) == 1:
        return f"Accuracy {said[0]}."
    return f"Accuracies from {said[0]} to {said[-1]}."


def spoils(difference: Estimate | None, from_normal: Estimate | None) -> bool:
    """Whether a nasty teacher spoiled a student: the student ends below both of its controls.

    The controls are the same student alone, since an attacker would otherwise train alone, and the
    normal teacher's student, since distillation itself may cost as much. Both differences must
    exceed `MARGIN`, with the whole interval, over more than one seed.
    """
    return all(
        apart is not None and not of_one_seed(apart) and against_margin(apart) == "below"
        for apart in (difference, from_normal)
    )


def of_one_seed(difference: Estimate | None) -> bool:
    """Whether a difference comes from a single pair of runs, which settles nothing."""
    return difference is not None and (difference.over == "images" or difference.n < 2)


def verdict_on_students(summary: Summary) -> list[str]:
    """Findings of the tables: whether students are spoiled, and which answers stay unprotected."""
    nasty = [row for row in summary.students if row.teacher == "nasty"]
    soft = [row for row in nasty if row.answers == "soft" and row.difference is not None]
    labels = [row for row in nasty if row.answers == "labels" and row.difference is not None]
    sentences = []
    if soft:
        sentences.append(_spoiled(soft, summary))
    if labels:
        sentences.append(_labels(labels))
    if any(row.chosen_on_test for row in (*summary.teachers, *summary.students)):
        sentences.append(CHOSEN_ON_TEST)
    return sentences


def _spoiled(rows: Sequence[Row], summary: Summary) -> str:
    spoiled = [row for row in rows if spoils(row.difference, row.from_normal)]
    worst = min(spoiled or rows, key=_apart)
    ends = f"{worst.net} differs by {points(worst.difference)} points from the same network alone"
    if worst.from_normal is not None:
        ends += f" and {points(worst.from_normal)} from the normal teacher's student"
    teacher = next((r for r in summary.teachers if r.recipe == worst.teacher_recipe), None)
    if teacher is not None and teacher.difference is not None:
        ends += f"; its teacher itself differs by {points(teacher.difference)} from the normal one"
    if spoiled:
        return f"Imitating the nasty teacher's answers spoils {_count(spoiled, rows)}: {ends}."
    if of_one_seed(worst.difference) or of_one_seed(worst.from_normal):
        return f"With one seed nothing is settled. Imitating the nasty teacher's answers, {ends}."
    unknown = [row for row in rows if row.from_normal is None]
    if unknown:
        which = "" if len(unknown) == len(rows) else f" of {', '.join(row.net for row in unknown)}"
        return (
            f"Without the normal teacher's students{which} it cannot be told whether the nasty "
            f"teacher or distillation itself costs accuracy: {ends}."
        )
    return (
        f"No student is shown to be spoiled by more than {100 * MARGIN:g} point, against itself "
        f"alone and against the normal teacher's student: {ends}."
    )


def _apart(row: Row) -> float:
    assert row.difference is not None
    return row.difference.value


def _count(part: Sequence[Row], whole: Sequence[Row]) -> str:
    if len(part) < len(whole):
        return f"{len(part)} of {len(whole)} students here"
    every = {1: "the only student", 2: "both students"}
    return f"{every.get(len(whole), f'all {len(whole)} students')} here"


def _labels(rows: Sequence[Row]) -> str:
    """Cost of learning from labels alone; a difference without significance is not equality."""
    shown = ", ".join(f"{row.net} {points(row.difference)} points" for row in rows)
    if any(of_one_seed(row.difference) for row in rows):
        return (
            f"With one seed it is not settled what learning from its labels alone costs: {shown}."
        )
    words = {against_margin(row.difference) for row in rows}
    if words <= {"within", "above"}:
        return (
            "It does not protect its labels: students of its labels alone end within "
            f"{100 * MARGIN:g} point of those of the true labels, or above them ({shown})."
        )
    if "below" in words:
        return _labels_cost([r for r in rows if against_margin(r.difference) == "below"], shown)
    return (
        f"Whether learning from its labels alone costs more than {100 * MARGIN:g} point is not "
        f"settled ({shown} from alone)."
    )


def _labels_cost(lost: Sequence[Row], shown: str) -> str:
    """Labels of the normal teacher cost something too where it errs: that is no protection."""
    cost = f"Learning from its labels alone costs accuracy ({shown} from alone)"
    known = [row for row in lost if row.from_normal is not None]
    if not known:
        return f"{cost}; what the normal teacher's labels cost is not known here."
    apart = ", ".join(f"{row.net} {points(row.from_normal)} points" for row in known)
    words = {against_margin(row.from_normal) for row in known}
    if words == {"below"}:
        return f"{cost}, more than the normal teacher's labels ({apart} from those)."
    if words <= {"within", "above"}:
        return f"{cost}, as the normal teacher's labels do ({apart} from those)."
    return f"{cost}; whether more than the normal teacher's labels is not settled ({apart})."
