"""Trains in a process of its own, and says in a log what it is about to do, so it can be killed.

    python tests/kill_driver.py LOG OUT

Before a training step, an evaluation, a write of state and the rename that ends it, a line with the
moment's name goes to the log and the process waits a little, so that a kill finds it there.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from denature.core import files
from denature.train import Keeping, Normal, Training, loop, runs, state, train
from denature.train.learner import Learner

log = open(sys.argv[1], "a", buffering=1)  # noqa: SIM115


def marked(moment: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        print(moment, file=log)
        time.sleep(0.01)
        return function(*args, **kwargs)

    return call


if __name__ == "__main__":
    torch.set_num_threads(1)
    Learner.step = marked("step", Learner.step)  # type: ignore[method-assign]
    loop.evaluate = marked("evaluate", loop.evaluate)
    runs.write_state = marked("state", state.write_state)  # type: ignore[attr-defined]
    files.os.replace = marked("rename", os.replace)  # type: ignore[attr-defined]
    run = train(
        "cnn",
        "digits",
        Normal(),
        Training(epochs=6, batch_size=64, precision="fp32", checkpoint="best-validation"),
        out=Path(sys.argv[2]),
        keeping=Keeping(save_every_s=0.02),
    )
    print("finished", file=log)
    print(run.record.net.digest)
