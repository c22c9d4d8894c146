"""A page of results, and its one writer: a self-contained HTML file, figures and a table.

A content module of this package makes a page from a result; it draws nothing itself.
"""

import base64
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import quote

from denature.core.errors import RunError
from denature.core.files import atomic_path, write_text
from denature.core.progress import short_seconds
from denature.core.record import Record
from denature.core.text import counted, printable
from denature.core.untrusted import MIB, read_text
from denature.report.figures import Draw, svg, write_figure
from denature.report.tables import markdown, numbers
from denature.report.tooltips import described
from denature.report.words import listed, terms

REPORT, TABLE = "report.html", "table.md"

PERCENT = re.compile(r" %|(?<=\d)%(?![0-9A-Fa-f]{2})")
"""A percent sign of a number, and none of an address, such as that of `%20`."""

NAVIGATION = '<nav aria-label="Related">'
"""The links of a page, in its HTML."""

MOST_HTML = 64 * MIB
"""Bytes of a report whose links are written anew; those with figures have about 1 MiB."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A header and rows, which a click on a heading sorts; a page without rows leaves it out."""

    lines: Sequence[Sequence[str]]
    heading: str
    """Heading above the table, and its caption."""
    note: str = ""
    folded: str = ""
    """Summary under which the table is folded; an empty one leaves it open."""

    @cached_property
    def shown(self) -> list[list[str]]:
        """The lines without columns in which no row has anything."""
        empty = len(self.lines) == 1
        kept = [empty or any(cells[1:]) for cells in zip(*self.lines, strict=True)]
        return [[cell for cell, keep in zip(line, kept, strict=True) if keep]
                for line in self.lines]  # fmt: skip

    @property
    def numbers(self) -> list[bool]:
        """Whether each shown column holds numbers, which stand to the right."""
        return numbers(self.shown)

    @property
    def sorts(self) -> bool:
        """Whether there is an order to change: a list of settings has none."""
        return len(self.lines) > 2 and len(self.shown[0]) > 2

    @property
    def stacks(self) -> bool:
        """Whether each row becomes a block where a screen is too narrow for all columns."""
        return len(self.shown[0]) > 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """A figure that is still to be drawn; without data it is left out."""

    name: str
    """File name without a suffix."""
    draw: Draw
    caption: str
    """What the figure shows, below it."""
    heading: str = ""
    alt: str = ""
    """The same for readers who do not see the figure; the caption by default."""
    half: bool = False
    """Half of the page wide, so that two stand side by side where there is room."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatCell:
    """A cell of a heat map."""

    text: str
    tip: str
    """Text beside the pointer."""
    kind: Literal["measured", "minor", "empty"] = "measured"
    """`minor` for a number that does not count, `empty` for none."""
    share: float = 0.0
    """Strength of the colour, in [0, 1]."""
    marked: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatMap:
    """A coloured table; without rows it is left out."""

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[HeatCell]]]
    """Heading and cells, as many as columns."""
    caption: str
    """What a number and the colour mean."""
    corner: str = ""
    """Heading of the rows' headings."""
    note: str = ""
    heading: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A raster image or an animation, encoded."""

    name: str
    """File name with a suffix, which is the format."""
    data: bytes
    caption: str
    heading: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A line of a list; a strong beginning marks what needs attention."""

    text: str
    strong: str = ""
    badge: str = ""
    """A word before all else, such as a severity."""
    details: Sequence[tuple[str, str]] = ()
    """Terms with their texts, below."""
    tags: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Items:
    """A list of sentences."""

    items: Sequence[Item]
    heading: str = ""


Block: TypeAlias = Table | Plot | HeatMap | Picture | Items


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """Another page or file that belongs to this one."""

    text: str
    target: str
    """Path relative to the folder of the page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Content of a report, in the order in which it is read."""

    title: str
    summary: str = ""
    """The result in one sentence."""
    scope: str | None = None
    """Scope and permission of a test as they were stated, for the first line; None without one."""
    date: str = ""
    """Day of the test; by default that of the last run."""
    about: str = ""
    differs: str = ""
    """Difference from the original experiment, and sizes of this one."""
    verdict: Sequence[str] = ()
    blocks: Sequence[Block] = ()
    records: Sequence[Record] = ()
    """Runs behind the page, for its second line and its last."""
    opening: str = ""
    """Second line in place of the records' one."""
    links: Sequence[Link] = ()
    result: str = ""
    """The encoded result behind the page; a page of another result is drawn anew."""

    @property
    def tables(self) -> list[Table]:
        """Open tables that have rows; the first is the main one."""
        tables = [block for block in self.blocks if isinstance(block, Table)]
        return [table for table in tables if len(table.lines) > 1 and not table.folded]

    @property
    def marked(self) -> list[str]:
        """Items that need attention, with their headings."""
        return [
            f"{block.heading}: {item.strong} {item.text}"
            for block in self.blocks
            if isinstance(block, Items)
            for item in block.items
            if item.strong
        ]

    @property
    def dated(self) -> str:
        """Date, scope and permission of a test; of runs that test nothing else, their date."""
        last = max((record.started for record in self.records), default="")[:10]
        if self.scope is not None:
            return terms(self.scope, self.date or last)
        return f"Last run begun on {last}." if last else ""

    @property
    def lead(self) -> str:
        """Number and data of the runs, and the time that they took, or another second line."""
        if self.opening or not self.records:
            return self.opening
        sizes: dict[str, tuple[set[int], set[int]]] = {}
        for data in (record.data for record in self.records if record.data):
            train, test = sizes.setdefault(data.source, (set(), set()))
            train.add(data.train)
            test.add(data.test)
        found = "; ".join(
            f"{source} ({_sizes(train)} training and {_sizes(test)} test images)"
            for source, (train, test) in sorted(sizes.items())
        )
        runs = counted(len(self.records), "run")
        seconds = sum(record.seconds for record in self.records)
        return f"{runs} on {found or 'no data'}; {short_seconds(seconds)} of training in all."

    @property
    def provenance(self) -> str:
        """Device, versions, commit and data of the first run; empty without runs."""
        if not self.records:
            return ""
        first = self.records[0].environment
        versions = ", ".join(f"{k} {v}" for k, v in sorted(first.get("versions", {}).items()))
        digests = sorted({r.data.digest for r in self.records if r.data})
        parts = [
            *([first["device"]] if first.get("device") else []),
            versions,
            f"commit {first.get('commit') or 'of a release'}",
            f"data {', '.join(digests) or 'none'}",
            f"the first run began {self.records[0].started}",
        ]
        return f"{'; '.join(parts)}."


def _sizes(sizes: set[int]) -> str:
    return listed([f"{size:,}" for size in sorted(sizes)], "or")


def write(page: Page, folder: Path, *, anew: bool = False) -> Path:
    """Write report, main table and figures into a folder; returns the path of the report.

    A report of the same content stays as it is, except its links: drawing takes seconds.

    Args:
        page: content.
        folder: for the files.
        anew: whether a report of the same content is written too, as where others may have written
            it: what stands in a file besides its content is theirs.
    """
    report = folder / REPORT
    mark = _fingerprint(page)
    if not anew and report.is_file() and mark.encode() in report.read_bytes():
        relink(report, page.links)
        return report
    drawn = draw(page, folder)
    if page.tables:
        write_text(folder / TABLE, markdown(page.tables[0].lines) + "\n")
    write_text(report, _html(page, drawn, mark))
    return report


def relink(report: Path, links: Sequence[Link]) -> None:
    """Write the links of a report anew; all else stays, so no figure is drawn.

    Raises:
        OSError, ValueError: the report cannot be read or written.
    """
    former = read_text(report, MOST_HTML)
    start = former.find(NAVIGATION)
    end = former.find("</nav>", start) + len("</nav>")
    text = former
    if 0 <= start < end - len("</nav>"):
        text = former[:start] + _navigation(links) + former[end:]
    if text != former:
        write_text(report, text)


def _navigation(links: Sequence[Link]) -> str:
    """The element of a page's links, as `NAVIGATION` finds it; nothing without links."""
    if not links:
        return ""
    named = (
        f'<a href="{quote(os.fsencode(link.target))}">{escape(str(_unbroken(link.text)))}</a>'
        for link in links
    )
    return printable(f"{NAVIGATION}Related: {', '.join(named)}.</nav>")


def write_html(page: Page, path: Path) -> Path:
    """Write the report alone, atomically."""
    write_text(path, render(page))
    return path


def render(page: Page) -> str:
    """The page as HTML text: no font, no request, and a script where there is something to do."""
    drawn = [svg(block.draw) if isinstance(block, Plot) else "" for block in page.blocks]
    return _html(page, drawn, _fingerprint(page))


def draw(page: Page, folder: Path) -> list[str]:
    """Write all figures of a page into a folder; returns an SVG element for each plot.

    Raises:
        RunError: a figure's name, as a result states it, is no plain name of a file.
    """
    elements = []
    for block in page.blocks:
        if isinstance(block, Plot | Picture):
            _check_plain(block.name)
        element = ""
        if isinstance(block, Plot):
            element = write_figure(folder / block.name, block.draw)
        elif isinstance(block, Picture):
            with atomic_path(folder / block.name) as temporary:
                temporary.write_bytes(block.data)
        elements.append(element)
    return elements


def _check_plain(name: str) -> None:
    if not name or Path(name).name != name:
        raise RunError(
            f"The result names a figure {name!r}, which is no plain name of a file; nothing is "
            "written for it. Make the result again."
        )


def _html(page: Page, drawn: Sequence[str], fingerprint: str) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    pages = Environment(
        loader=PackageLoader("denature.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, finalize=_unbroken,
    )  # fmt: skip
    text = pages.get_template("page.html.jinja").render(
        page=page,
        blocks=list(_shown(page, drawn)),
        navigation=Markup(_navigation(page.links)),
        fingerprint=fingerprint,
    )
    return printable(text, keep="\n\t")  # a name may reverse the direction of what follows


def _unbroken(value: object) -> object:
    """A text whose percent signs stay in the line of their numbers, a space behind these."""
    return PERCENT.sub("\u00a0%", value) if type(value) is str else value  # not an SVG element


def _shown(page: Page, drawn: Sequence[str]) -> Iterator[tuple[Block, str]]:
    """The blocks that have content, with the elements of their figures."""
    for block, element in zip(page.blocks, drawn, strict=True):
        if isinstance(block, Table):
            if len(block.lines) > 1:
                yield block, ""
        elif isinstance(block, Items):
            if block.items:
                yield block, ""
        elif isinstance(block, HeatMap):
            if block.rows:
                yield block, ""
        elif isinstance(block, Picture):
            kind = block.name.rpartition(".")[2]
            coded = base64.b64encode(block.data).decode()
            alt = escape(block.caption)
            yield block, f'<img src="data:image/{escape(kind)};base64,{coded}" alt="{alt}">'
        elif element:
            yield block, described(element, block.alt or block.caption, block.name)


def _fingerprint(page: Page) -> str:
    """Digest of all that a report is made of, except links: result, records, texts and code."""
    digest = hashlib.sha256(page.result.encode())
    for record in page.records:
        digest.update(record.to_json().encode())
    texts = [page.title, page.summary, page.dated, page.about, page.differs, *page.verdict]
    texts += [repr(block) for block in page.blocks if isinstance(block, Table | HeatMap | Items)]
    digest.update("\n".join(texts).encode())
    for file in sorted(Path(__file__).parent.glob("*.[pj]*")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
