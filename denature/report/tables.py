"""Tables of plain texts in the formats of documents."""

import io
import re
from collections.abc import Sequence
from csv import writer as csv_writer

from denature.core.frames import HIGH, LOW
from denature.core.text import printable

_MARKUP = re.compile(
    r"\\(?=[!-/:-@\[-`{-~])"  # a backslash before punctuation escapes that
    r"|<(?=[A-Za-z/!?])"  # a tag, a comment, an address
    r"|&(?=#?\w+;)"  # an entity
    r"|(?<=\])[\[(]"  # the target of a link
    r"|(?<![^\W_])_|_(?![^\W_])|[|`*~]"
)
"""What Markdown reads as more than a character; other punctuation stays legible as it is."""


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table of texts, in GitHub's Markdown; whatever they hold is shown and not interpreted."""
    header, *rows = [[_cell(text) for text in line] for line in lines]
    return "\n".join(
        "| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)
    )


def _cell(text: str) -> str:
    escaped = _MARKUP.sub(lambda found: "\\" + found[0], printable(text))
    return escaped.replace("$", "\\$") if text.count("$") > 1 else escaped  # a formula


_NUMBER = r"[+-]?\d[\d.,]*(?:e[+-]?\d+)?"

NUMBER = re.compile(rf"(?:beyond )?{_NUMBER}(?: [\[(].*)?")
"""A number as tables show it, with an interval or a remark behind it."""


def numbers(lines: Sequence[Sequence[str]]) -> list[bool]:
    """Whether each column holds numbers, as most of its cells do; the first one names the rows."""
    columns = [[cell for cell in column[1:] if cell] for column in zip(*lines, strict=True)]
    return [
        place > 0 and 2 * sum(NUMBER.fullmatch(cell) is not None for cell in column) > len(column)
        for place, column in enumerate(columns)
    ]


MEASURED = re.compile(rf"^({_NUMBER}) \[({_NUMBER}|n/a|-inf)(?:, ({_NUMBER}|inf|beyond))?\](.*)$")
"""A value with its interval, as tables show it: `98.1 [97.0, 99.2]`, and a remark."""

OPEN = ("n/a", "-inf", "inf", "beyond")
"""Ends of intervals that are no numbers, and stay empty."""

REMARK = "_remark"


def numeric(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """A table in which each number stands alone, for programs that read it.

    A column of values with intervals becomes three, the two others with `_low` and `_high` in their
    names, and a fourth, `_remark`, where there are texts too; thousands are not grouped.
    """
    header, *rows = lines
    columns = []
    for place, name in enumerate(header):
        cells = [row[place] if place < len(row) else "" for row in rows]
        found = [MEASURED.match(cell) for cell in cells]
        if not any(found):
            columns.append([name, *map(_ungrouped, cells)])
            continue
        parts = [_parts(match, cell) for match, cell in zip(found, cells, strict=True)]
        names = [name, name + LOW, name + HIGH, name + REMARK]
        for part, title in enumerate(names):
            values = [cell[part] for cell in parts]
            if part < 3 or any(values):
                columns.append([title, *values])
    return [list(line) for line in zip(*columns, strict=True)]


def _parts(match: re.Match[str] | None, cell: str) -> tuple[str, str, str, str]:
    """Value, ends of the interval, and remark; a text that is no number is a remark."""
    if match is None:
        number = re.fullmatch(_NUMBER, cell)
        return (_ungrouped(cell), "", "", "") if number else ("", "", "", cell)
    value, low, high, rest = (_ungrouped(part or "") for part in match.groups())
    low, high = ("" if end in OPEN else end for end in (low, high))
    return value, low, high, rest.strip()


def _ungrouped(cell: str) -> str:
    return cell.replace(",", "") if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", cell) else cell


def csv(lines: Sequence[Sequence[str]]) -> str:
    """A table as comma-separated values, each number in a column of its own; see `numeric`.

    A text that a spreadsheet would compute gets an apostrophe before it.
    """
    text = io.StringIO()
    writer = csv_writer(text, lineterminator="\n")
    writer.writerows([_harmless(printable(cell)) for cell in line] for line in numeric(lines))
    return text.getvalue().rstrip("\n")


def _harmless(cell: str) -> str:
    number = re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", cell)
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@") and cell and not number else cell


_TEX = {
    **{char: "\\" + char for char in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


def latex(lines: Sequence[Sequence[str]]) -> str:
    r"""A table for LaTeX with the package booktabs; whatever its texts hold is shown as it is."""
    header, *rows = (
        " & ".join("".join(_TEX.get(char, char) for char in printable(text)) for text in line)
        + r" \\"
        for line in lines
    )
    columns = "".join("r" if number else "l" for number in numbers(lines))
    body = "\n".join((r"\toprule", header, r"\midrule", *rows, r"\bottomrule"))
    return f"\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}"
