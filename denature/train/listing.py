"""Runs on disk as lists of them show them, finished or not."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from denature.core.errors import ConfigError, RunError
from denature.core.record import RECORD, STARTS, read_record
from denature.core.stats import Estimate
from denature.train.identity import Plan, plan_id, plan_of
from denature.train.run import EVENTS, LOCK, PLAN, SNAPSHOTS, STATE_FOLDER, read_plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A run in a folder."""

    folder: Path
    state: str
    """`finished`, `unfinished`, `running`, or `damaged`."""
    kind: str = ""
    net: str = ""
    seed: int | None = None
    asked: str | None = None
    """Whose answers it learned from."""
    accuracy: Estimate | None = None
    chosen_on_test: bool = False
    """Whether its epoch was the best on the test images."""
    plan: Plan

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        found = {name: getattr(self, name) for name in self.__slots__ if name != "plan"}
        accuracy = None if self.accuracy is None else asdict(self.accuracy)
        identity = plan_id(self.plan) if self.plan else None
        return {**found, "folder": str(self.folder), "accuracy": accuracy, "id": identity}


def find(places: Sequence[Path]) -> list[Listed]:
    """All runs in and below places.

    Raises:
        RunError: a place does not exist, or there are no runs.
    """
    folders: dict[Path, None] = {}
    for place in places:
        if not place.is_dir():
            raise RunError(f"There is no folder {place}; name one that holds runs.")
        marks = [*place.rglob(RECORD), *(p.parent for p in place.rglob(f"{STATE_FOLDER}/{PLAN}"))]
        folders |= dict.fromkeys(sorted(mark.parent for mark in marks))
    if not folders:
        raise RunError(f"{' and '.join(map(str, places))} holds no runs.")
    return [_listed(folder) for folder in folders]


def _listed(folder: Path) -> Listed:
    try:
        if (folder / RECORD).exists():
            record = read_record(folder)
            asked = next((i for role, i in record.inputs.items() if role not in STARTS), None)
            return Listed(
                folder=folder,
                state="running" if _is_locked(folder) else "finished",
                kind=record.kind,
                net=record.net.name,
                seed=record.seed,
                asked=None if asked is None else asked.folder or f"{asked.kind} {asked.net}",
                accuracy=record.accuracy,
                chosen_on_test=record.chosen_on == "test",
                plan=plan_of(record),
            )
        plan = read_plan(folder / STATE_FOLDER / PLAN)
        return Listed(
            folder=folder,
            state="running" if _is_locked(folder) else "unfinished",
            kind=plan["objective"]["kind"],
            net=plan["net"]["name"],
            seed=plan["training"]["seed"],
            plan=plan,
        )
    except (RunError, KeyError, TypeError):
        return Listed(folder=folder, state="damaged", plan={})


def _is_locked(folder: Path) -> bool:
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def prunable(found: Sequence[Listed], what: str) -> Iterator[tuple[Listed, Path]]:
    """Folders to remove of runs, none of which is running.

    Args:
        found: the runs.
        what: `unfinished` or `damaged` runs, `snapshots`, `events`, or `runs` as a whole.

    Raises:
        ConfigError: there is no such thing to remove.
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
