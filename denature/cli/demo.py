"""denature demo: the main job."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from denature.cli.options import Showing, ShowingOptions
from denature.core.stopping import Stopper, seconds_of
from denature.train.config import Device, Precision


def demo(
    *,
    out: Path = Path("runs/demo"),
    seeds: int = 3,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    time_limit: str | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
    showing: ShowingOptions = Showing(),
) -> None:
    """A normal teacher, a nasty one, and what students learn from each, on real digits.

    Args:
        out: Folder for all runs and report.html.
        seeds: How often everything is repeated.
        overwrite: Replace other runs that are there.
        device: Where to compute.
        precision: In which precision.
        time_limit: Put everything aside after this time, such as 9m, and exit with code 75.
    """
    from denature.cli.show import print_table
    from denature.recipes.demo import demo as run_demo
    from denature.report import words

    stopper = Stopper(seconds=None if time_limit is None else seconds_of(time_limit))
    with stopper.on_signals():
        found = run_demo(
            out,
            seeds=seeds,
            overwrite=overwrite,
            device=device,
            precision=precision,
            stopper=stopper,
            progress=showing.display(),
        )
    if showing.json:
        print(found.to_json())
        return
    print_table(words.teacher_table(found.summary))
    print()
    print_table(words.student_table(found.summary))
    print()
    for sentence in words.verdict(found.summary):
        print(sentence)
    print(f"\n{found.seconds:.0f} s. Look at {found.report}")
