"""How the process's allocator is used."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

KEPT = 2**30
"""Bytes that are free and are not given back; and larger pieces come from the system one by one."""

LARGEST = 32 * 2**20
"""The same for pieces where glibc is older than 2.35 and takes no higher limit."""


def keep_freed_memory() -> None:
    """Have glibc keep what is freed, for the next step wants the same again.

    Otherwise a training step on a CPU gives its activations back to the system and gets them again
    as new pages, each of which costs a fault. Steps of `cnn` and `mlp` got 5 to 15 % faster, views
    of a batch twice as fast: benchmarks/engine.py. Elsewhere than on Linux this does nothing.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(M_TRIM_THRESHOLD, KEPT)
    if not mallopt(M_MMAP_THRESHOLD, KEPT):
        mallopt(M_MMAP_THRESHOLD, LARGEST)
