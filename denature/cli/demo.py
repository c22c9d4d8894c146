"""denature demo: the main job."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from denature.cli.options import OutputFlags, OutputOptions, RunOptions
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
    showing: OutputFlags = OutputOptions(),
) -> None:
    """A normal teacher, a nasty one, and what students learn from each, on real digits.

    Args:
        out: Folder for all runs and report.html.
        seeds: How often everything is repeated.
        overwrite: Replace other runs that are there.
        device: Where to compute.
        precision: In which precision.
        workers: Processes that make the runs; one for each core up to 4, and 1 on an accelerator.
        time_limit: Put everything aside after this time, such as 9m, and exit with code 75.
    """
    from denature.cli.show import print_table
    from denature.recipes.demo import CAVEAT
    from denature.recipes.demo import demo as run_demo
    from denature.report import words
    from denature.report.divergence import not_nasty

    surviving = RunOptions(
        time_limit=time_limit, workers=_workers(device) if workers is None else workers
    )
    stopper = surviving.stopper()
    with surviving.crew(device) as crew, stopper.on_signals():
        found = run_demo(
            out,
            seeds=seeds,
            overwrite=overwrite,
            device=device,
            precision=precision,
            stopper=stopper,
            crew=crew,
            progress=showing.display(),
        )
    if showing.json:
        print(found.to_json())
        return
    print_table(words.teacher_table(found.summary))
    print()
    print_table(words.student_table(found.summary))
    print()
    for sentence in (*words.verdict(found.summary), *not_nasty(found.records), CAVEAT):
        print(sentence)
    print(f"\n{found.seconds:.0f} s. Look at {found.report}")


def _workers(device: Device) -> int:
    """The demo's networks are so small that two cores do more with one network each."""
    import torch

    accelerated = torch.cuda.is_available() or torch.backends.mps.is_available()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return 1  # a launcher's processes train together
    return 1 if accelerated and device != "cpu" else min(4, os.cpu_count() or 1)
