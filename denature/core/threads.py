"""Threads of a process: as many as it may have cores, which yield while they wait.

Imports nothing heavy: what OpenMP reads is set before torch is imported.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

THREADS = "OMP_NUM_THREADS"

BY_QUOTA = "DENATURE_QUOTA_THREADS"
"""Number that `prepare` set, which processes that it starts do not take for the user's."""

MOST_WORKERS = 4
"""Workers of a command by default, at most."""

WAITING = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}
"""How long a waiting thread spins before it sleeps, in GNU's and in LLVM's OpenMP.

GNU's spins 300,000 times, for milliseconds, and so takes the core from the thread that it waits
for; 1000 is what it takes itself where it has more threads than cores.
"""


def usable_cores(root: Path = Path("/")) -> int:
    """Cores that this process may keep busy, at least 1.

    By its affinity and by the CPU limits of its control groups, versions 1 and 2; a machine may
    have many more.

    Args:
        root: where /proc and /sys lie.
    """
    return max(1, min([_allowed(), *(max(1, round(limit)) for limit in _limits(root))]))


def _allowed() -> int:
    """Cores on which this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def chosen_threads() -> int | None:
    """Threads that the user named, by `--threads` or OMP_NUM_THREADS; None where neither did."""
    text = os.environ.get(THREADS, "").partition(",")[0].strip()
    if text == os.environ.get(BY_QUOTA):
        return None
    return int(text) if text.isdecimal() and int(text) > 0 else None


def choose_threads(count: int) -> None:
    """Have this process, and those that it starts, compute with `count` threads each."""
    os.environ[THREADS] = str(count)
    os.environ.pop(BY_QUOTA, None)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(count)


def worker_threads(workers: int) -> int:
    """Threads of each of several workers: what the user named, or their share of the cores."""
    return chosen_threads() or max(1, usable_cores() // workers)


def default_workers() -> int:
    """Workers of a command that names none: up to 4, and no more threads than cores in all.

    Networks are many and small, and a second thread hardly speeds one up. On two cores, two workers
    of two threads each trained an audit's clones of digits with 242 images a second, those of one
    thread each with 9,900.
    """
    return max(1, min(MOST_WORKERS, usable_cores() // (chosen_threads() or 1)))


def prepare() -> None:
    """Set up OpenMP for this process and those that it starts; before torch is imported.

    Waiting threads yield. Where control groups allow fewer cores than the process sees, it takes
    no more threads than these, since more would be halted in turns. What the user has set holds.
    """
    if not {"OMP_WAIT_POLICY", *WAITING} & os.environ.keys():
        os.environ |= WAITING
    if chosen_threads() is None and (cores := usable_cores()) < _allowed():
        os.environ |= dict.fromkeys((THREADS, BY_QUOTA), str(cores))


def _limits(root: Path) -> Iterator[float]:
    """CPU limits, in cores, of the control groups of this process and of those above them."""
    groups: dict[str, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        groups |= dict.fromkeys(controllers.split(","), path)
    for line in _lines(root / "proc/self/mountinfo"):
        # 42 41 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup rw
        before, _, after = line.partition(" - ")
        place, words = before.split(), after.split() or [""]
        if words[0] == "cgroup2":
            group, read = groups.get("", "/"), _limit_v2
        elif words[0] == "cgroup" and "cpu" in words[-1].split(","):
            group, read = groups.get("cpu", "/"), _limit_v1
        else:
            continue
        top, mount = place[3], root / place[4].lstrip("/")
        # Inside a container the group may be named as the host does; its mount is the group then.
        inside = PurePosixPath(group.removeprefix(top).lstrip("/"))
        for part in (inside, *inside.parents):
            limit = read(mount / part)
            if limit is not None and limit > 0:
                yield limit


def _limit_v2(group: Path) -> float | None:
    # "150000 100000": microseconds in each period; "max 100000" is no limit.
    words = " ".join(_lines(group / "cpu.max")).split()
    return _ratio(*words) if len(words) == 2 else None


def _limit_v1(group: Path) -> float | None:
    quota, period = (_lines(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return _ratio(quota[0], period[0]) if quota and period else None  # a quota of -1 is no limit


def _ratio(quota: str, period: str) -> float | None:
    try:
        return int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return []
