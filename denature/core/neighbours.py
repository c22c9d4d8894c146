"""Other processes that compute on this machine; imports nothing heavy."""

import os
import time
from pathlib import Path

LOADAVG = Path("/proc/loadavg")

LOOKS, PAUSE = 5, 0.002
"""A process that wakes for a moment is no neighbour: all looks must see it."""


def others_compute(loadavg: Path = LOADAVG) -> bool:
    """Whether another process wants a core all the time; False where the system does not say."""
    running = []
    for _ in range(LOOKS):
        try:
            # "0.52 0.58 0.59 2/1030 12345": of 1030 threads 2 run or could run, this one too.
            running.append(int(loadavg.read_text("ascii").split()[3].partition("/")[0]))
        except (OSError, ValueError, IndexError):
            return False
        time.sleep(PAUSE)
    return min(running) > 1


def wait_asleep_beside_others() -> None:
    """Let torch's threads sleep while they wait for each other, where other processes compute.

    By default they spin for some milliseconds, which takes the core from the thread that they wait
    for. Beside two other processes on two cores a step of a small network got 45 times as fast by
    this; on a quiet machine it takes up to twice as long, so it is left alone there. Only before
    torch is imported; what the user set in OMP_WAIT_POLICY or GOMP_SPINCOUNT holds.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys() and others_compute():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
