"""Commands as processes of their own, without importing torch for each."""

import atexit
import ctypes
import inspect
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36


class Command(subprocess.Popen[str]):
    """`python -m denature WORDS` as a process, forked from one that has imported torch.

    Only its start differs from that of `subprocess.Popen`: variables of the environment that
    Python or torch read while they are imported have no effect. Tests of those start Python.

    Args:
        words: the command line.
        module: the module that is run in place of denature.
        limits: limits of resources, by their number in `resource`.
        options: those of `subprocess.Popen`.
    """

    def __init__(
        self,
        *words: object,
        module: str = "denature",
        limits: Mapping[int, int] | None = None,
        **options: Any,
    ) -> None:
        command = [sys.executable, "-m", module, *map(str, words)]
        self._request: dict[str, Any] = {
            "module": module, "words": command[3:], "limits": dict(limits or ()),
        }  # fmt: skip
        super().__init__(command, text=True, **options)

    def _execute_child(self, *args: Any) -> None:
        # The one place where Popen makes a process. Names of its parameters have been the same
        # since Python 3.3; their order has not.
        start = super()._execute_child  # type: ignore[misc]
        given = inspect.signature(start).bind(*args).arguments
        ends = [given[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        request = {
            **self._request,
            "cwd": str(given["cwd"] or Path.cwd()),
            "env": dict(os.environ if given["env"] is None else given["env"]),
        }
        try:
            self.pid = _start(request, [own if end == -1 else end for own, end in enumerate(ends)])
            self._child_created = True
        finally:
            self._close_pipe_fds(*(given[name] for name in PIPES))  # type: ignore[attr-defined]


PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")


def run_command(*words: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    """`denature WORDS` until it ends, with what it printed; see `Command`."""
    pipe = subprocess.PIPE
    with Command(*words, stdout=pipe, stderr=pipe, **options) as process:
        out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@cache
def _launcher() -> socket.socket:
    """The connection to the launcher of this process, which ends with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("launcher.py")), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _start(request: dict[str, Any], streams: list[int]) -> int:
    """The number of a new process, a child of this one."""
    door = _launcher()
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        socket.send_fds(door, [json.dumps(request).encode()], streams)
        return int.from_bytes(door.recv(8), sys.byteorder)
    finally:
        # Orphans of commands go where they would go without tests.
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
