"""Links from a page to the runs, the thefts and the audits that belong to it."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from denature.core.record import RECORD
from denature.core.untrusted import read_json
from denature.report.page import REPORT, Link

RESULT, RECORDS = "result.json", "records.jsonl"

WORDS = {"audit": "audit", "theft": "theft", "robustness": "robustness"}
"""Types of results of one model, as words before their folders' names."""

MOST = 8
"""Runs that are named one by one; more are in the file of records."""


def links_of(plain: Mapping[str, Any], folder: Path) -> list[Link]:
    """Links of the page of a result: its runs, other results of the same model, its files.

    Args:
        plain: the result as JSON holds it.
        folder: folder of the page; what lies beside it is looked at.
    """
    links = list(_runs(plain, folder))
    own = models_of(plain)
    for path in sorted(folder.absolute().parent.glob(f"*/{RESULT}")) if own else ():
        beside = path.parent
        if beside == folder.absolute() or beside.is_symlink() or not (beside / REPORT).is_file():
            continue
        other = _read(path)
        if own & models_of(other):
            word = WORDS[str(other["result_type"])]
            links.append(Link(text=f"{word}: {beside.name}", target=_to(beside, folder)))
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
    """The model's own run, and runs below the folder, by their records."""
    model = plain.get("model")
    name = str(model.get("name")) if isinstance(model, Mapping) else ""
    if name and (Path(name) / RECORD).is_file() and not Path(name).is_absolute():
        yield Link(text="the model's run", target=_to(Path(name), folder, RECORD))
    runs = sorted(path.parent for path in folder.rglob(RECORD)) if folder.is_dir() else []
    for run in runs if len(runs) <= MOST else ():
        yield Link(text=f"run: {run.name}", target=_to(run, folder, RECORD))


def _to(place: Path, folder: Path, file: str = REPORT) -> str:
    return Path(os.path.relpath(place / file, folder)).as_posix()


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, Mapping) else {}
