"""Settings of the process's memory allocator."""

import ctypes
import sys
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

KEPT = 2**30
"""Free bytes that glibc keeps; larger pieces are mapped from the system one by one."""

LARGEST = 32 * 2**20
"""Largest piece for glibc before 2.35, which accepts no higher limit."""


def keep_freed_memory() -> None:
    """Have glibc keep freed memory, because the next step allocates the same sizes again.

    Otherwise a training step on a CPU returns its activations to the system and gets them back as
    new pages, each of which costs a page fault. Keeping them made steps of `cnn` and `mlp` 5 to
    15 % faster and views of a batch twice as fast: benchmarks/engine.py. On systems other than
    Linux the function does nothing.
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


def give_back_freed_memory() -> None:
    """Have glibc return to the system what is free, in all threads.

    It keeps freed pieces of up to 32 MiB in an arena for each thread; after some large pictures in
    several threads those are gigabytes. On systems other than Linux the function does nothing.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)
