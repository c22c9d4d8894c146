"""Threads of a process: as many as it may have cores, which yield while they wait.

Imports nothing heavy: what OpenMP reads is set before torch is imported.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

THREADS = "OMP_NUM_THREADS"

BY_QUOTA = "DENATURE_QUOTA_THREADS"
"""Number that `prepare` set, which processes that it starts do not take for the user's."""

LOOK_S = 0.2
"""How long the load of the machine is looked at; the system counts it in hundredths of a second."""

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


@contextmanager
def computing(
    threads: int | None = None, say: Callable[[str], None] | None = None
) -> Iterator[int]:
    """Compute inside with one thread for each core that other processes leave free.

    Threads wait for each other many times in a step. Where one of them has to share its core, all
    of them are slowed: beside a process that kept one of two cores busy, two threads made a third
    of the steps that one thread made. The number stays what it is until the end, since the last
    bits of results depend on it.

    Args:
        threads: number of threads that an interrupted computation began with, to go on with it.
            A number that the user named holds against it and against the load.
        say: receives a line where cores are busy, once for each number.

    Yields:
        The number of threads.
    """
    import torch

    before = number = torch.get_num_threads()
    if chosen_threads() is None and threads is not None:
        number = min(threads, usable_cores())
    elif chosen_threads() is None and before > 1:
        free = free_cores()
        number = max(1, min(before, int(free + 0.5)))
        if say is not None and number < before and number not in _announced:
            _announced.add(number)
            say(
                f"Other processes leave {free:.1f} of {usable_cores()} cores free, so this one "
                f"computes with {number} thread{'s' * (number > 1)} and not with {before}; "
                "--threads N sets another number."
            )
    torch.set_num_threads(number)
    try:
        yield number
    finally:
        torch.set_num_threads(before)


_announced: set[int] = set()
"""Numbers of threads of which this process has said why it takes them."""


def free_cores(root: Path = Path("/")) -> float:
    """Cores that other processes leave free, of those on which this process may run.

    Waits for `LOOK_S`. All of them where the system does not tell.

    Args:
        root: where /proc lies.
    """
    before, own, clock = _busy_seconds(root), time.process_time(), time.monotonic()
    time.sleep(LOOK_S)
    after, span = _busy_seconds(root), time.monotonic() - clock
    others = sum(after.values()) - sum(before.values()) - (time.process_time() - own)
    return _allowed() - min(max(others / span, 0.0), len(after))


def _busy_seconds(root: Path) -> dict[int, float]:
    """Processor time since the system's start, of each core on which this process may run."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else frozenset[int]()
    seconds = {}
    for line in _lines(root / "proc/stat"):
        # cpu1 5 0 3 2045 17 0 1 0 0 0: user, nice, system, idle, waiting for disks, interrupts,
        # stolen by other virtual machines, guests, which are part of user
        name, *words = line.split() or [""]
        number = name.removeprefix("cpu")
        if name != number and number.isdecimal() and int(number) in allowed:
            times = [int(word) for word in words[:8]]
            seconds[int(number)] = (sum(times) - sum(times[3:5])) / os.sysconf("SC_CLK_TCK")
    return seconds


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
