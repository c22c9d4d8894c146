"""Processes that end when their parent does, however it ended."""

import multiprocessing
import os
import threading
from collections.abc import Callable


def end_with_parent() -> None:
    """End this process as soon as the one that started it has ended, even by SIGKILL.

    For processes that multiprocessing spawned; a process of any other origin is left alone. They
    share a pipe with their parent, or hold its handle on Windows, which the operating system closes
    with the parent. A thread waits for that: this works on all systems, where Linux alone can send
    a signal (PR_SET_PDEATHSIG), and it does so already at the end of the parent's *thread*.

    The process ends at once, as by SIGKILL: its files are complete or absent, and saved states are
    at most `--save-every` old.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.join,), name="parent", daemon=True).start()


def _end_after(parent_ended: Callable[[], None]) -> None:
    parent_ended()
    os._exit(1)
