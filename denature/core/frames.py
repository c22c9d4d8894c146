"""Results in a notebook and for further analysis: a line, a small table, a frame of numbers."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from denature.core.errors import needs
from denature.core.text import printable

if TYPE_CHECKING:
    from pandas import DataFrame

Rows: TypeAlias = Sequence[Mapping[str, Any]]
"""Rows of a table as plain values by column; shares are in [0, 1]."""

LOW, HIGH = "_low", "_high"
"""Ends of the columns with the 95 % interval of the column before."""

MOST_SHOWN = 20
"""Rows of a table in a notebook's cell."""


class Measured(Protocol):
    """A value with its interval."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


class Tabular:
    """A result that shows itself: its class states `summary` and `rows`."""

    __slots__ = ()

    @property
    def summary(self) -> str:
        """The result in a line."""
        raise NotImplementedError

    def rows(self) -> Rows:
        """The main table."""
        raise NotImplementedError

    def to_frame(self) -> "DataFrame":
        """The main table as a frame of pandas; an interval is in two columns, `_low` and `_high`.

        Raises:
            MissingExtra: pandas is not installed.
        """
        with needs("pandas", "A frame"):
            import pandas
        return pandas.DataFrame(list(self.rows()))

    def __repr__(self) -> str:
        return printable(f"<{type(self).__name__}: {self.summary}>")

    def _repr_html_(self) -> str:
        return html_of(self.summary, self.rows())


def measured(name: str, found: Measured | None) -> dict[str, float | None]:
    """Columns of a measured value and its interval."""
    ends = (None, None, None) if found is None else (found.value, found.low, found.high)
    return dict(zip((name, name + LOW, name + HIGH), ends, strict=True))


def percent(found: Measured) -> str:
    """`98.1 % [97.0, 99.2]`."""
    value, low, high = (100 * number for number in (found.value, found.low, found.high))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"


def html_of(summary: str, rows: Rows) -> str:
    """A summary and the first rows of a table as HTML, in which nothing is interpreted."""
    columns = [name for name in (rows[0] if rows else ()) if not name.endswith((LOW, HIGH))]
    head = "".join(f"<th>{_text(name.replace('_', ' '))}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(_cell(row, name))}</td>" for name in columns) + "</tr>"
        for row in rows[:MOST_SHOWN]
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if rows else ""
    rest = f"<p>{len(rows) - MOST_SHOWN:,} more rows.</p>" if len(rows) > MOST_SHOWN else ""
    return f"<div><p>{_text(summary)}</p>{table}{rest}</div>"


def _cell(row: Mapping[str, Any], name: str) -> str:
    value, low, high = (row.get(name + end) for end in ("", LOW, HIGH))
    shown = "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
    return shown if low is None or high is None else f"{shown} [{low:.3g}, {high:.3g}]"


def _text(text: str) -> str:
    return escape(printable(text))
