"""denature demo: the main experiment on digits."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from denature.cli.options import (
    OutputFlags,
    OutputOptions,
    RunOptions,
    workers_of_small_networks,
)
from denature.train.config import Device, Precision


def demo(
    *,
    out: Path = Path("runs/demo"),
    seeds: int = 3,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    time_limit: str | None = None,
    workers: int | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Compare the students of a normal and of a nasty teacher, on real digits.

    Args:
        out: Folder for all runs and report.html.
        seeds: Number of repetitions with other seeds.
        overwrite: Replace other runs in the folder.
        device: Device to compute on.
        precision: Precision of training and inference.
        workers: Processes that make the runs; by default one per core up to 4, and 1 on an
            accelerator.
        time_limit: Save the state and exit with code 75 after this time, such as 9m.
    """
    from denature.cli.show import show
    from denature.recipes.demo import Demo
    from denature.recipes.runner import run

    experiment = Demo(folder=out, seeds=seeds, device=device, precision=precision)
    run_options = RunOptions(time_limit=time_limit, workers=workers)
    usual = workers_of_small_networks(device)
    with run_options.session(output_options, device, default_workers=usual) as session:
        show(run(experiment, session, overwrite=overwrite), output_options)
