"""Results of experiments as files, and their pages: every type of result by its name.

A result is a frozen dataclass that JSON holds, and its page a pure function of result and records.
So `denature report FOLDER` draws any page again from the folder's files.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Protocol

from denature.core.errors import ConfigError, RunError, unknown
from denature.core.files import write_text
from denature.core.frames import Rows, Tabular
from denature.core.record import Record, find_records, write_records
from denature.core.redact import record_without_paths, without_paths
from denature.core.schema import decode, encode
from denature.core.untrusted import read_json
from denature.report import page as pages
from denature.report.links import MOST, RECORDS, RESULT, links_of, related
from denature.report.page import Page
from denature.report.tables import numeric

TYPES: Mapping[str, str] = {
    "demo": "demo:DemoResult",
    "paper": "paper:PaperResult",
    "nose": "nose:NoseResult",
    "defensive-distillation": "defensive:DefensiveDistillationResult",
    "robustness-and-extraction": "robustness_and_extraction:RobustnessAndExtractionResult",
    "robustness": "robustness:RobustnessResult",
    "flatness": "flatness:FlatnessResult",
    "flat-minima": "flat_minima:FlatMinimaResult",
    "theft": "theft:Theft",
    "audit": "audit:AuditResult",
}
"""Each type of result: its content module here, which has a function `page`, and its class."""


class Result(Protocol):
    """What every result has besides its own fields."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    result_type: ClassVar[str]
    """A key of `TYPES`."""


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Outcome(Tabular):
    """A result, its page, and the folder that holds both."""

    result: Any
    page: Page
    folder: Path
    seconds: float | None = None
    """Time that the call took; None for an outcome that was read."""

    @property
    def report(self) -> Path:
        return self.folder / pages.REPORT

    @property
    def records(self) -> Sequence[Record]:
        """Records of the runs behind the result."""
        return self.page.records

    @property
    def lines(self) -> Sequence[Sequence[str]]:
        """The main table: header and rows."""
        return self.page.tables[0].lines if self.page.tables else [[]]

    @property
    def verdict(self) -> Sequence[str]:
        return self.page.verdict

    @property
    def summary(self) -> str:
        return ": ".join((self.page.title, *self.verdict[:1]))

    def rows(self) -> Rows:
        """Rows of the result where it states them, else the main table as the page shows it."""
        if isinstance(self.result, Tabular):
            return self.result.rows()
        if not self.page.tables:
            return []
        header, *lines = numeric(self.lines)
        return [dict(zip(header, map(_number, line), strict=True)) for line in lines]

    def to_json(self) -> str:
        """The result as one line of JSON, with its verdict, table and report."""
        found = {**_plain(self.result, self.page), "folder": str(self.folder)}
        found["report"] = str(self.report)
        if self.seconds is not None:
            found["seconds"] = round(self.seconds, 2)
        return json.dumps(found, allow_nan=False)


def _number(cell: str) -> str | float | None:
    """A cell as a number where it is one; None where it is empty."""
    try:
        return float(cell) if cell else None
    except ValueError:
        return cell


def page_of(result: Result, records: Sequence[Record]) -> Page:
    """The page of a result of any type, which names no path of this machine."""
    plain = without_paths(encode(result))
    if plain != encode(result):
        result = _decoded(result.result_type, plain, where="the result")
    records = [record_without_paths(record) for record in records]
    page: Page = _module(result.result_type).page(result, records)
    return replace(page, records=records, result=json.dumps(asdict(result)))


def write_outcome(result: Result, records: Sequence[Record], folder: Path) -> Outcome:
    """Write a result and all that follows from it: records, table, figures and report.

    The page is that of the result as it is read back, so it can be drawn again bit by bit. Files
    name no path of this machine; the outcome that is returned does.
    """
    plain = without_paths(encode(result), folder)
    written = _decoded(result.result_type, plain, where=str(folder / RESULT))
    page = page_of(written, records)
    folder.mkdir(parents=True, exist_ok=True)  # first, since its owner decides what it links to
    page = _linked(page, written, folder)
    write_records(folder / RECORDS, page.records)
    text = json.dumps(_plain(written, page), allow_nan=False)
    write_text(folder / RESULT, text + "\n")
    pages.write(page, folder)
    _relink_related(written, folder)
    result = _decoded(result.result_type, encode(result), where=str(folder / RESULT))
    return Outcome(result=result, page=page, folder=folder)


def _linked(page: Page, result: Result, folder: Path) -> Page:
    return replace(page, links=links_of(_named(result), folder))


def _relink_related(result: Result, folder: Path) -> None:
    """Write the links of the pages that a page leads to anew, so that they lead to it."""
    for place, plain in islice(related(_named(result), folder), MOST):
        with suppress(OSError, ValueError):  # such as a folder that is read-only
            pages.relink(place / pages.REPORT, links_of(plain, place))


def _named(result: Result) -> dict[str, Any]:
    return {"result_type": result.result_type, **asdict(result)}


def read_outcome(folder: Path) -> Outcome:
    """The outcome in a folder, read from its files.

    Raises:
        RunError: a file is missing or damaged.
        ConfigError: the result is of another version, or of an unknown type.
    """
    path = folder / RESULT
    try:
        raw = read_json(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}.") from None
    named = raw.get("result_type") if isinstance(raw, dict) else None
    if named is None:
        raise ConfigError(
            f"{path} names no type of result: an earlier version wrote it. Run the same command "
            "again; finished runs are not made again."
        )
    if named not in TYPES:
        raise unknown("type of result", str(named), TYPES)
    result = _decoded(named, without_paths(raw, folder), where=str(path))
    page = page_of(result, find_records([folder / RECORDS]))
    return Outcome(result=result, page=_linked(page, result, folder), folder=folder)


def _decoded(result_type: str, plain: Any, *, where: str) -> Any:
    """A result from the plain values of its JSON."""
    form = getattr(_module(result_type), TYPES[result_type].split(":")[1])
    return decode(form, plain, where=where)


def _plain(result: Result, page: Page) -> dict[str, Any]:
    """A result's fields, and for readers of the file its verdict and main table."""
    lines = page.tables[0].lines if page.tables else []
    return {
        "result_type": result.result_type,
        **asdict(result),
        "verdict": page.verdict,
        "lines": lines,
    }


def _module(result_type: str) -> Any:
    return import_module(f"denature.report.{TYPES[result_type].split(':')[0]}")
