"""An experiment of the paper: its runs as cells of a table or points of curves, with intervals."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from denature.core.record import Record
from denature.core.stats import MARGIN, Estimate, Score, against_margin, paired_difference, pooled
from denature.report.kinds import objective_of
from denature.report.words import INTERVALS, of_one_seed, percent, points, spoils

TEACHER = "teacher"
"""The column of teachers themselves."""

ALONE = "alone"
"""The control of students: the same network trained on true labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedRun:
    """One run and its place in the table."""

    row: str
    column: str
    x: float | None
    seed: int
    record: Record
    against: Record | None = None
    """The control run of the same seed."""
    like: Record | None = None
    """Of a nasty teacher's student: the normal teacher's student from the same start."""
    teachers: tuple[Record, Record] | None = None
    """Of a nasty teacher's student: the nasty teacher and the normal one."""
    recalled: float | None = None
    """The paper's value as recalled, in percent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableCell:
    """All seeds of one place."""

    row: str
    column: str
    x: float | None
    seeds: int
    accuracy: Estimate
    difference: Estimate | None = None
    from_normal: Estimate | None = None
    """Difference from the normal teacher's student; only of students of nasty teachers."""
    of_teacher: Estimate | None = None
    """Difference of such a student's teacher from the normal one."""
    recalled: float | None = None

    def where(self, axis: str | None) -> str:
        """`CNN, of nasty at omega 0.04`; the axis is as in `cells_table`."""
        place = f"{self.column}, {self.row}"
        return place if self.x is None else f"{place} at {_on_axis(axis or '', self.x)}"


def cells_of(measured: Iterable[PlacedRun]) -> list[TableCell]:
    """Group runs by place, in the order of the places' first runs."""
    places: dict[tuple[str, str, float | None], list[PlacedRun]] = {}
    for run in measured:
        places.setdefault((run.row, run.column, run.x), []).append(run)
    cells = []
    for (row, column, x), runs in places.items():
        scores = {run.seed: _score(run.record) for run in runs}
        pairs = [(run.seed, run.teachers) for run in runs if run.teachers is not None]
        cells.append(
            TableCell(
                row=row,
                column=column,
                x=x,
                seeds=len(scores),
                accuracy=pooled([score.accuracy for score in scores.values()]),
                difference=paired_difference(scores, _by_seed((r.seed, r.against) for r in runs)),
                from_normal=paired_difference(scores, _by_seed((r.seed, r.like) for r in runs)),
                of_teacher=paired_difference(
                    _by_seed((seed, nasty) for seed, (nasty, _) in pairs),
                    _by_seed((seed, normal) for seed, (_, normal) in pairs),
                ),
                recalled=runs[0].recalled,
            )
        )
    return cells


def _by_seed(records: Iterable[tuple[int, Record | None]]) -> dict[int, Score]:
    return {seed: _score(record) for seed, record in records if record is not None}


def _score(record: Record) -> Score:
    score = record.score
    assert score is not None
    return score


NOTE = (
    f"Accuracy in percent, differences in points. {INTERVALS} Recalled values of the paper come "
    "from no readable source."
)
"""Explanation of a table."""


def cells_table(
    cells: Sequence[TableCell], *, against: str = ALONE, axis: str | None = None
) -> list[list[str]]:
    """Header and lines: a line for each place; for a curve a column for each x.

    Args:
        cells: the places of an experiment.
        against: name of the baseline of students' differences.
        axis: name of x, with its unit after a comma; None for a table.
    """
    if axis is not None:
        xs = sorted({cell.x for cell in cells if cell.x is not None})
        lines = [["Trained", "Network", *(_on_axis(axis, x) for x in xs)]]
        for row, column in dict.fromkeys((cell.row, cell.column) for cell in cells):
            own = {cell.x: cell for cell in cells if (cell.row, cell.column) == (row, column)}
            lines.append([row, column, *(_spell(own.get(x)) for x in xs)])
        return lines
    columns = list(dict.fromkeys(cell.column for cell in cells))
    columns.sort(key=lambda column: column != TEACHER)
    like = against == ALONE and any(cell.from_normal is not None for cell in cells)
    recalls = any(cell.recalled is not None for cell in cells)
    head = ["Network", "Learned", "Accuracy %", f"Against {against}"]
    head += ["Against normal's student"] * like + ["Seeds"] + ["Paper, recalled"] * recalls
    lines = [head]
    for column in columns:
        for cell in (cell for cell in cells if cell.column == column):
            row = cell.row.removeprefix("of ") if column == TEACHER else cell.row
            line = [column, row, percent(cell.accuracy), points(cell.difference)]
            line += [points(cell.from_normal)] * like + [str(cell.seeds)]
            recalled = "" if cell.recalled is None else f"{cell.recalled:.2f}"
            lines.append(line + [recalled] * recalls)
    return lines


def _on_axis(axis: str, x: float) -> str:
    """`omega 0.04`, `training samples 50 %`."""
    name, _, unit = axis.partition(",")
    return f"{name} {x:g}{unit}".strip()


def _spell(cell: TableCell | None) -> str:
    """`82.5 [81.9, 83.1] (-4.2 [-5.0, -3.4])`."""
    if cell is None:
        return ""
    apart = points(cell.difference)
    return percent(cell.accuracy) + (f" ({apart})" if apart else "")


def hazards(cells: Sequence[TableCell], *, axis: str | None = None) -> list[str]:
    """Caveats against reading a success off the table.

    A teacher may seem nasty only because its own accuracy fell. A student may be worse only because
    distillation at that temperature ruins it, which the normal teacher's student shows. Caveats
    cover single seeds too, though one seed settles nothing.
    """
    sentences = []
    for cell in cells:
        if cell.from_normal is None or cell.difference is None:
            continue
        if against_margin(cell.difference) != "below":
            continue
        fall, own = -cell.difference.value, cell.of_teacher
        if own is not None and fall <= -own.value:
            sentences.append(
                f"{cell.where(axis)}: {points(cell.difference)} points, its teacher itself "
                f"{points(own)}. That may be a worse teacher, and no nasty one."
            )
        elif fall + cell.from_normal.value >= fall / 2:
            sentences.append(
                f"{cell.where(axis)}: {points(cell.difference)} points, and from the normal "
                f"teacher's student {points(cell.from_normal)}. Most of it may be distillation in "
                "this setting."
            )
    return sentences


def summarised(cells: Sequence[TableCell], *, against: str = ALONE, axis: str | None = None) -> str:
    """One sentence: whether a nasty teacher spoiled students, see `denature.report.words.spoils`.

    A spoiled student ends below itself alone and below the normal teacher's student.
    """
    students = [
        (cell, cell.difference, cell.from_normal)
        for cell in cells
        if cell.difference is not None and cell.from_normal is not None
    ]
    if not students:
        return ""
    lowest, apart, _ = min(students, key=lambda student: student[1].value)
    both = against if against != ALONE else "themselves alone and the normal teacher's students"
    settled = [student for student in students if spoils(student[1], student[2])]
    beyond = f"by more than {100 * MARGIN:g} point, with the whole interval"
    if not settled and any(of_one_seed(apart) or of_one_seed(like) for _, apart, like in students):
        return (
            f"With one seed nothing is settled; the lowest is {lowest.where(axis)}: "
            f"{points(apart)} points from {against}."
        )
    if not settled:
        return (
            f"No student of a nasty teacher fell below {both} {beyond}; the lowest is "
            f"{lowest.where(axis)}: {points(apart)} points from {against}."
        )
    worst, apart, from_normal = min(settled, key=lambda student: student[1].value)
    more = f", {points(from_normal)} from the normal teacher's student" if against == ALONE else ""
    return (
        f"{len(settled)} of {len(students)} students of nasty teachers fell below {both} {beyond}; "
        f"the furthest is {worst.where(axis)}: {points(apart)} points from {against}{more}."
    )


def marks(records: Iterable[Record]) -> list[str]:
    """Departures of these runs from a setting's usual ones, as notes beside their numbers.

    Args:
        records: records of all runs on the page.
    """
    notes, records = [], list(records)
    if any(record.chosen_on == "test" for record in records):
        notes.append(
            "The epoch that was best on the test split was kept, so accuracies are biased upwards."
        )
    pushes = [objective_of(record) for record in records if record.kind == "nasty"]
    tamed = {(push.warmup, push.cap) for push in pushes if push.warmup or push.cap}
    for warmup, cap in sorted(tamed, key=str):
        capped = "" if cap is None else f", the push capped at {cap:g} nats"
        notes.append(
            f"Nasty training was tamed: omega rose over the first {warmup:.0%} of the steps"
            f"{capped}."
        )
    return notes
