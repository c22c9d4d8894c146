"""Links from a page to the runs, the thefts and the audits that belong to it."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

from denature.core.record import RECORD
from denature.core.redact import without_paths
from denature.core.untrusted import MIB, read_json
from denature.report.page import REPORT, Link

RESULT, RECORDS = "result.json", "records.jsonl"

WORDS = {"audit": "audit", "theft": "theft", "robustness": "robustness"}
"""Types of results of one model, as words before their folders' names."""

MOST = 8
"""Runs that are named one by one, and other results; more runs are in the file of records."""

MOST_READ = 64
"""Results beside a page that are opened, the newest ones."""

MOST_RESULT = 4 * MIB
"""Bytes of such a result; a large audit has 0.4 MiB."""


def links_of(plain: Mapping[str, Any], folder: Path) -> list[Link]:
    """Links of the page of a result: its runs, other results of the same model, its files.

    Args:
        plain: the result as JSON holds it.
        folder: folder of the page; what lies beside it is looked at.
    """
    links = [*_runs(plain, folder), *islice(_others(plain, folder), MOST)]
    links.append(Link(text="all records", target=RECORDS))
    return [*links, Link(text="result as JSON", target=RESULT)]


def models_of(plain: Mapping[str, Any]) -> set[str]:
    """Digests and addresses of the models that a result is about."""
    kind = plain.get("result_type")
    try:
        if kind == "audit":
            return {str(plain["model"]["digest"]), str(plain["model"]["name"])}
        if kind == "theft":
            return {str(plain["target"]), *str(plain["target"]).split()[1:2]}
        if kind == "robustness":
            return {str(one["robustness"]["digest"]) for one in plain["judged"]} - {""}
    except (KeyError, TypeError):  # of an earlier version, or none of ours
        pass
    return set()


def _runs(plain: Mapping[str, Any], folder: Path) -> Iterator[Link]:
    """The model's own run, and runs below the folder, by their records.

    A record that names a path of this machine, such as its data, is no link: a shared folder would
    show the path. The file of all records holds its other facts.
    """
    model = plain.get("model")
    name = str(model.get("name")) if isinstance(model, Mapping) else ""
    if name and not Path(name).is_absolute() and _is_shareable(Path(name)):
        yield Link(text="the model's run", target=_to(Path(name), folder, RECORD))
    runs = sorted(path.parent for path in folder.rglob(RECORD)) if folder.is_dir() else []
    for run in filter(_is_shareable, runs if len(runs) <= MOST else ()):
        yield Link(text=f"run: {run.name}", target=_to(run, folder, RECORD))


def _is_shareable(run: Path) -> bool:
    record = _read(run / RECORD) if (run / RECORD).is_file() else {}
    return bool(record) and without_paths(record) == record


def related(plain: Mapping[str, Any], folder: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Other results of the same model beside a folder, newest first: folder and plain values."""
    own = models_of(plain)
    for path in _beside(folder.absolute())[:MOST_READ] if own else ():
        other = _read(path)
        if own & models_of(other):
            yield path.parent, other


def _others(plain: Mapping[str, Any], folder: Path) -> Iterator[Link]:
    """Other results of the same model beside the folder, newest first."""
    for place, other in related(plain, folder):
        word = WORDS[str(other["result_type"])]
        yield Link(text=f"{word}: {place.name}", target=_to(place, folder))


def _beside(folder: Path) -> list[Path]:
    """Results with a page beside a folder, newest first.

    Those of other owners are left out: a folder such as /tmp is shared, and what another user
    writes there is no result of this one.
    """
    found = []
    with suppress(OSError):
        owner = folder.stat().st_uid
        for beside in folder.parent.iterdir():
            with suppress(OSError):
                place, file = beside.lstat(), (beside / RESULT).lstat()
                page = (beside / REPORT).lstat()
                if (
                    beside != folder
                    and S_ISDIR(place.st_mode)
                    and S_ISREG(file.st_mode)
                    and S_ISREG(page.st_mode)
                    and place.st_uid == file.st_uid == page.st_uid == owner
                    and file.st_size <= MOST_RESULT
                ):
                    found.append((-file.st_mtime_ns, beside / RESULT))
    return [path for _, path in sorted(found)]


def _to(place: Path, folder: Path, file: str = REPORT) -> str:
    return Path(os.path.relpath(place / file, folder)).as_posix()


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, Mapping) else {}
