"""Trains in a process of its own, and says in a log what it is about to do, so it can be killed.

    python -m tests.kill_driver LOG OUT

Before a training step, an evaluation, a write of state and the rename that ends it, and in the
middle of storing answers, a line with the moment's name goes to the log and the process waits a
little, so that a kill finds it there. The last line is the digest of the weights.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import torch

from denature.answers import store
from denature.core import files
from denature.train import CheckpointConfig, Distilled, Normal, Training, job, loop, state, train
from denature.train.learner import Learner
from denature.train.session import Session


def marked(moment: str, function: Callable[..., Any], log: TextIO) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        print(moment, file=log)
        time.sleep(0.01)
        return function(*args, **kwargs)

    return call


def half_written(log: TextIO, file: int, data: bytes) -> None:
    """Half of an answer is on disk when the log says so, and the rest a little later."""
    middle = len(data) // 2 + 1
    os.write(file, data[:middle])
    print("store", file=log)
    time.sleep(0.001)
    os.write(file, data[middle:])


def trained(place: Path, out: Path) -> None:
    """Train into `out`, with a log at `place`."""
    torch.set_num_threads(1)
    brief = Training(epochs=1, batch_size=64, precision="fp32")
    teacher = train("mlp", "digits", Normal(), brief, out=out.with_name("teacher"))
    with open(place, "a", buffering=1) as log:
        Learner.step = marked("step", Learner.step, log)  # type: ignore[method-assign]
        loop.evaluate = marked("evaluate", loop.evaluate, log)
        job.write_state = marked("state", state.write_state, log)  # type: ignore[attr-defined]
        files.os.replace = marked("rename", os.replace, log)  # type: ignore[attr-defined]
        store._write_all = partial(half_written, log)
        run = train(
            "cnn",
            "digits",
            Distilled(),
            replace(brief, epochs=6, checkpoint="best-validation", augment="crop"),
            source=teacher,
            out=out,
            session=Session(
                checkpointing=CheckpointConfig(
                    save_every_s=0.02, store=str(out.with_name("answers"))
                )
            ),
        )
        print(run.record.net.digest, file=log)


if __name__ == "__main__":
    trained(Path(sys.argv[1]), Path(sys.argv[2]))
