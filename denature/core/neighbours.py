"""Other processes that compute on this machine; imports nothing heavy."""

import os
import time
from pathlib import Path

LOADAVG = Path("/proc/loadavg")

LOOKS, PAUSE = 5, 0.002
"""Samples, and seconds between them. A process that only wakes briefly does not count: every
sample must show it."""


def others_compute(loadavg: Path = LOADAVG) -> bool:
    """Whether another process keeps a core busy; False where the system does not report that."""
    running = []
    for _ in range(LOOKS):
        try:
            # "0.52 0.58 0.59 2/1030 12345": of 1030 threads 2 are runnable, this one included.
            running.append(int(loadavg.read_text("ascii").split()[3].partition("/")[0]))
        except (OSError, ValueError, IndexError):
            return False
        time.sleep(PAUSE)
    return min(running) > 1


def wait_asleep_beside_others() -> None:
    """Let waiting torch threads sleep instead of spin, where other processes compute.

    By default a waiting thread spins for some milliseconds and so takes the core from the thread
    that it waits for. Beside two other processes on two cores sleeping made a step of a small
    network 45 times as fast; on a quiet machine it takes up to twice as long, so the default stays
    there. The setting works only before torch is imported; OMP_WAIT_POLICY and GOMP_SPINCOUNT of
    the user take precedence.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys() and others_compute():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
