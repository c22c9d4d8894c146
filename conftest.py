"""What all processes of the tests share."""

import gc
import os
import sys

# Before torch is imported. Threads that spin while they wait take the core from what they wait
# for wherever another process computes too: one test took 154 s beside two others, 3 s without.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Where Python is told to keep nothing, all processes that tests start would compile the package.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers of pytest-xdist share the cores, and so do the processes that their tests start.
    os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_finish() -> None:
    """What was imported stays, so that the collector need not look through it again."""
    gc.collect()
    gc.freeze()
