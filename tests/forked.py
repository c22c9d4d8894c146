"""Processes that begin in a moment, and can be killed: forks of one that has imported torch."""

import multiprocessing
from collections.abc import Sequence

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    ["torch._dynamo", "denature.cli.training", "denature.train.loop", "denature.report.page"]
)


def command_line(words: Sequence[str]) -> None:
    """The command line in a process; its exit code is that of the command."""
    from denature.cli.app import main

    raise SystemExit(main(words))


def brief_command(words: Sequence[str]) -> None:
    """The same with few steps for each clone, and pages without figures."""
    from denature.extract import config
    from denature.report import page

    config.LEAST_STEPS = 20
    for name in ("svg", "write_figure"):
        setattr(page, name, lambda *_: "")
    command_line(words)
