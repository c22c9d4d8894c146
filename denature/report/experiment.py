"""An experiment of the paper: its runs as cells of a table or points of curves, with intervals."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from denature.core.record import Record
from denature.core.stats import Estimate, mean_over_seeds, paired_difference
from denature.report.words import percent, points

TEACHER = "teacher"
"""The column of teachers themselves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One run in its place."""

    row: str
    column: str
    x: float | None
    seed: int
    record: Record
    against: Record | None
    """The run of the same seed that it is compared with."""
    recalled: float | None
    """What the paper is recalled to report there, in percent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """All seeds of one place."""

    row: str
    column: str
    x: float | None
    accuracy: Estimate
    difference: Estimate | None
    recalled: float | None
    seeds: int
    teacher_accuracy: float | None
    """Mean accuracy of who taught it."""


def cells_of(measured: Iterable[Measured]) -> list[Cell]:
    """Group by place, in the order in which the places come."""
    places: dict[tuple[str, str, float | None], list[Measured]] = {}
    for one in measured:
        places.setdefault((one.row, one.column, one.x), []).append(one)
    cells = []
    for (row, column, x), ones in places.items():
        mine = {one.seed: _accuracy(one.record) for one in ones}
        theirs = {one.seed: _accuracy(one.against) for one in ones if one.against is not None}
        taught = [one.record.inputs["teacher"].accuracy for one in ones
                  if "teacher" in one.record.inputs]  # fmt: skip
        known = [found.value for found in taught if found is not None]
        single = ones[0].record.accuracy
        assert single is not None
        cells.append(
            Cell(
                row=row,
                column=column,
                x=x,
                accuracy=single if len(mine) == 1 else mean_over_seeds(list(mine.values())),
                difference=paired_difference(mine, theirs),
                recalled=ones[0].recalled,
                seeds=len(mine),
                teacher_accuracy=sum(known) / len(known) if known else None,
            )
        )
    return cells


def _accuracy(record: Record) -> float:
    assert record.accuracy is not None
    return record.accuracy.value


NOTE = (
    "Accuracy in percent with its 95 % interval: over seeds (Student's t), over test images "
    "(Wilson) where there is one seed. Differences are in points, paired by seed; of one seed's "
    "nothing is known but the value. What the paper is recalled to report comes from no readable "
    "source."
)
"""How to read a table."""


def table(cells: Sequence[Cell], *, against: str = "alone") -> list[list[str]]:
    """Header and lines: a line for each place; for a curve a column for each x."""
    if any(cell.x is not None for cell in cells):
        xs = sorted({cell.x for cell in cells if cell.x is not None})
        lines = [["Trained", "Network", *(f"{x:g}" for x in xs)]]
        for row, column in dict.fromkeys((cell.row, cell.column) for cell in cells):
            own = {cell.x: cell for cell in cells if (cell.row, cell.column) == (row, column)}
            lines.append([row, column, *(_said(own.get(x)) for x in xs)])
        return lines
    columns = list(dict.fromkeys(cell.column for cell in cells))
    columns.sort(key=lambda column: column != TEACHER)
    shown = any(cell.recalled is not None for cell in cells)
    head = ["Network", "Learned", "Accuracy %", f"Against {against}", "Seeds"]
    lines = [head + ["Paper, recalled"] * shown]
    for column in columns:
        for cell in (cell for cell in cells if cell.column == column):
            row = cell.row.removeprefix("of ") if column == TEACHER else cell.row
            line = [column, row, percent(cell.accuracy), _apart(cell), str(cell.seeds)]
            recalled = "" if cell.recalled is None else f"{cell.recalled:.2f}"
            lines.append(line + [recalled] * shown)
    return lines


def _said(cell: Cell | None) -> str:
    """`82.5 [81.9, 83.1] (-4.2 [-5.0, -3.4])`."""
    if cell is None:
        return ""
    return percent(cell.accuracy) + (f" ({_apart(cell)})" if cell.difference else "")


def _apart(cell: Cell) -> str:
    """A difference; of one seed's the interval says nothing."""
    if cell.difference is None:
        return ""
    return points(cell.difference) if cell.seeds > 1 else f"{100 * cell.difference.value:+.1f}"


def hazards(cells: Sequence[Cell]) -> list[str]:
    """What must be said before anybody reads a success off the table.

    A teacher may be "nasty" only because it got worse, and a student may be worse only because
    distillation at that temperature ruins it, which the normal teacher's student shows.
    """
    said = []
    for cell in cells:
        if not _is_nasty(cell.row) or cell.column == TEACHER or cell.difference is None:
            continue
        if cell.difference.high >= 0:  # it did not fall beyond the interval
            continue
        fall = -cell.difference.value
        where = f"{cell.column}, {cell.row}" + ("" if cell.x is None else f" at {cell.x:g}")
        teacher = _like(cells, cell, cell.row, TEACHER)
        lost = -teacher.difference.value if teacher and teacher.difference else None
        if lost is not None and fall <= lost:
            said.append(
                f"{where}: it lost {100 * fall:.1f} points, its teacher itself {100 * lost:.1f}. "
                "That is a worse teacher, not a nasty one."
            )
            continue
        normal = _like(cells, cell, _normal_row(cell.row), cell.column)
        if normal and normal.difference and fall <= -2 * normal.difference.value:
            said.append(
                f"{where}: of its {100 * fall:.1f} points, {-100 * normal.difference.value:.1f} are"
                " lost with the normal teacher too. That is distillation in this setting."
            )
    return said


def verdict(cells: Sequence[Cell], *, against: str = "alone") -> str:
    """One sentence: whether a nasty teacher spoiled anybody, by more than the interval."""
    students = [
        (cell, cell.difference)
        for cell in cells
        if _is_nasty(cell.row) and cell.column != TEACHER and cell.difference is not None
    ]
    if not students:
        return ""
    worst, fall = min(students, key=lambda pair: pair[1].value)
    where = f"{worst.column}, {worst.row}" + ("" if worst.x is None else f" at {worst.x:g}")
    if worst.seeds < 2:
        return (
            f"With one seed nothing is settled; the lowest is {where}: "
            f"{100 * fall.value:+.1f} points from {against}."
        )
    settled = [cell for cell, difference in students if difference.high < 0]
    if not settled:
        return f"No student fell below {against} beyond the interval; the lowest is {where}."
    return (
        f"{len(settled)} of {len(students)} students of nasty teachers fell below {against} by "
        f"more than the interval over seeds; the lowest is {where}: {points(fall)} points."
    )


def _is_nasty(row: str) -> bool:
    return "nasty" in row


def _normal_row(row: str) -> str:
    return row.replace("nasty", "normal")


def _like(cells: Sequence[Cell], cell: Cell, row: str, column: str) -> Cell | None:
    """The cell at the same x in another row or column."""
    return next((c for c in cells if (c.row, c.column, c.x) == (row, column, cell.x)), None)
