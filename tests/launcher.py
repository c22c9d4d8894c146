"""Forks commands from a process that has imported torch once; see `processes`.

Importing torch takes two seconds, twice as long as most commands that tests run. What is forked is
a process like any other: it is killed, limited, read and waited for by the test.
"""

import gc
import json
import os
import resource
import runpy
import socket
import sys
from typing import Any

PRELOADED = ("denature.cli.training", "denature.serve.app", "denature.serve.opening",
             "denature.serve.keys.sqlite", "denature.extract.stealing", "denature.train.recording",
             "torch._dynamo", "tensorboardX", "uvloop", "httptools", "watchfiles")  # fmt: skip
"""What commands import late: torch and what trains, serves and queries."""


def run(asked: dict[str, Any], pipes: list[int]) -> None:
    """Become the command; does not come back."""
    for number, pipe in enumerate(pipes):
        os.dup2(pipe, number)
        os.close(pipe)
    # Those that Python opened belong to the launcher's.
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        buffering = 1 if name == "stderr" else -1
        setattr(sys, name, open(number, mode, buffering, closefd=False))  # noqa: SIM115
    os.chdir(asked["cwd"])
    sys.path[0] = asked["cwd"]
    os.environ.clear()
    os.environ.update(asked["env"])
    for limited, limit in asked["limits"].items():
        resource.setrlimit(int(limited), (limit, limit))
    if (threads := os.environ.get("OMP_NUM_THREADS")) is not None:
        import torch

        torch.set_num_threads(int(threads))
    sys.argv[1:] = asked["words"]
    runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
    sys.exit()


def main() -> None:
    """Answer each request with the number of a process, whose parent is the process of the tests.

    A process between the two ends at once, so that the command is adopted by the next process
    above that adopts any.
    """
    door = socket.socket(fileno=int(sys.argv[1]))
    gc.set_threshold(10_000)
    for name in PRELOADED:
        __import__(name)
    gc.freeze()
    while True:
        text, pipes, _, _ = socket.recv_fds(door, 1 << 20, 3)
        if not text:
            return
        reader, writer = os.pipe()
        between = os.fork()
        if between == 0:
            command = os.fork()
            if command == 0:
                door.close()
                os.close(reader)
                os.close(writer)
                run(json.loads(text), pipes)
            os.write(writer, command.to_bytes(8, sys.byteorder))
            os._exit(0)
        os.waitpid(between, 0)
        door.send(os.read(reader, 8))
        for number in (reader, writer, *pipes):
            os.close(number)


if __name__ == "__main__":
    main()
