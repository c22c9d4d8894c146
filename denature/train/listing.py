"""Listings of runs on disk, finished and unfinished, and the parts that pruning removes."""

import errno
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from denature.core.errors import ConfigError, RunError
from denature.core.record import RECORD, STARTS, UnreadableRecord, read_record
from denature.core.stats import Estimate
from denature.train.identity import Plan, plan_id, plan_of
from denature.train.run import EVENTS, LOCK, PLAN, SNAPSHOTS, STATE_FOLDER, read_plan


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRun:
    """A run in a folder, with the fields that listings show."""

    folder: Path
    state: str
    """`finished`, `unfinished`, `running`, `damaged`, or `unreadable` by this denature."""
    kind: str = ""
    net: str = ""
    seed: int | None = None
    source: str | None = None
    """Source of the answers that the run learned from: a folder, or a kind and a network."""
    accuracy: Estimate | None = None
    chosen_on_test: bool = False
    """Whether its epoch was the best on the test images."""
    plan: Plan

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        values = {name: getattr(self, name) for name in self.__slots__ if name != "plan"}
        accuracy = None if self.accuracy is None else asdict(self.accuracy)
        identity = plan_id(self.plan) if self.plan else None
        return {**values, "folder": str(self.folder), "accuracy": accuracy, "id": identity}


def find(places: Sequence[Path]) -> list[ListedRun]:
    """All runs in and below these folders.

    Raises:
        RunError: a folder does not exist, or there are no runs.
    """
    folders: dict[Path, None] = {}
    for place in places:
        if not place.is_dir():
            raise RunError(f"There is no folder {place}; name one that holds runs.")
        marks = [*place.rglob(RECORD), *(p.parent for p in place.rglob(f"{STATE_FOLDER}/{PLAN}"))]
        folders |= dict.fromkeys(sorted(mark.parent for mark in marks))
    if not folders:
        raise RunError(
            f"No runs in {', '.join(map(str, places))}; name a folder with a record.json in or "
            "below it."
        )
    return [_listed(folder) for folder in folders]


def _listed(folder: Path) -> ListedRun:
    try:
        if (folder / RECORD).exists():
            record = read_record(folder)
            source = next((i for role, i in record.inputs.items() if role not in STARTS), None)
            return ListedRun(
                folder=folder,
                state="running" if _is_locked(folder) else "finished",
                kind=record.kind,
                net=record.net.name,
                seed=record.seed,
                source=None if source is None else source.folder or f"{source.kind} {source.net}",
                accuracy=record.accuracy,
                chosen_on_test=record.chosen_on == "test",
                plan=plan_of(record),
            )
        plan = read_plan(folder / STATE_FOLDER / PLAN)
        return ListedRun(
            folder=folder,
            state="running" if _is_locked(folder) else "unfinished",
            kind=plan["objective"]["kind"],
            net=plan["net"]["name"],
            seed=plan["training"]["seed"],
            plan=plan,
        )
    except UnreadableRecord:
        return ListedRun(folder=folder, state="unreadable", plan={})
    except (RunError, KeyError, TypeError):
        return ListedRun(folder=folder, state="damaged", plan={})


def _is_locked(folder: Path) -> bool:
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except OSError as error:
        return error.errno != errno.EROFS  # nothing runs on a read-only disk


def prunable(found: Sequence[ListedRun], what: str) -> Iterator[tuple[ListedRun, Path]]:
    """Folders that pruning removes, for all runs that are not running.

    Args:
        found: the runs.
        what: `unfinished` or `damaged` runs, `snapshots`, `events`, or `runs` as a whole.

    Raises:
        ConfigError: `what` is none of these.
    """
    parts = {"snapshots": SNAPSHOTS, "events": EVENTS}
    wholes = ("unfinished", "damaged", "runs")
    if what not in parts and what not in wholes:
        raise ConfigError(
            f"Runs have no {what!r} to prune; they have {', '.join((*wholes, *parts))}."
        )
    for run in found:
        if run.state == "running":
            continue
        if what in parts and run.state == "finished" and (run.folder / parts[what]).is_dir():
            yield run, run.folder / parts[what]
        elif what == "runs" or what == run.state:
            yield run, run.folder
