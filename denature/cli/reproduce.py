"""denature reproduce: published experiments, at a scale that fits the machine."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from denature.cli.commands import COMMANDS, SUBCOMMANDS, epilogue
from denature.cli.options import (
    FromFile,
    OutputFlags,
    OutputOptions,
    RunFlags,
    RunOptions,
    workers_of_small_networks,
)
from denature.cli.terminal import print
from denature.recipes.catalogue import EXPERIMENTS, experiment, names_of
from denature.recipes.experiment import Choices, Request
from denature.recipes.paper.config import PaperOptions

app = App(name="reproduce", help_epilogue=epilogue(COMMANDS["reproduce"].examples))

EstimateFlag = Annotated[bool, Parameter(negative="")]


@app.default
def reproduce(
    *names: str,
    choices: Annotated[Choices, Parameter(name="*"), FromFile] = Choices(),
    paper_options: Annotated[PaperOptions, Parameter(name="*"), FromFile] = PaperOptions(),
    out: Path | None = None,
    estimate: EstimateFlag = False,
    run_options: RunFlags = RunOptions(),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Reproduce published experiments: runs, tables, figures and a report for each.

    Without names the command lists all experiments. Experiments of one paper share runs, finished
    runs are not made again, and stopped runs resume.

    Args:
        names: Names of experiments, or all for those of the Nasty Teacher paper.
        out: Folder for runs, tables and figures; by default one under runs/.
        estimate: Only print how long training would take on this machine.
    """
    from denature.cli.show import print_table

    if not names:
        listed = [[name, entry.about] for name, entry in EXPERIMENTS.items()]
        print_table([["Experiment", "Description"], *listed])
        return
    changed = None if paper_options == PaperOptions() else paper_options
    chosen = [(name, changed) for name in names_of(names)]
    _run(chosen, choices, out, run_options, output_options, estimate=estimate)


def _run(
    chosen: Sequence[tuple[str, object | None]],
    choices: Choices,
    out: Path | None,
    run_options: RunOptions,
    output_options: OutputOptions,
    *,
    estimate: bool,
) -> None:
    """Run experiments with their options one after the other, or estimate the time of all."""
    from denature.cli.show import show
    from denature.core.progress import format_seconds
    from denature.recipes.runner import run, time_left

    experiments = [
        experiment(Request(name=name, **asdict(choices)), out, options) for name, options in chosen
    ]
    display = output_options.display()
    usual = workers_of_small_networks(choices.device) if choices.scale == "smoke" else 1
    left = time_left(experiments, workers=run_options.workers or usual, progress=display)
    names = ", ".join(name for name, _ in chosen)
    attacks = f" and {format_seconds(left.attacks)} of attacks at most" if left.attacks else ""
    display.say(
        f"{names} at scale {choices.scale}: {format_seconds(left.training)} of training{attacks} "
        "are left on this machine; queries and further measurements come on top."
    )
    if estimate:
        if output_options.json:
            print(json.dumps({"seconds": round(left.training), "attacks_s": round(left.attacks)}))
        return
    with run_options.session(output_options, choices.device, default_workers=usual) as session:
        for each in experiments:
            show(run(each, session), output_options)


def _command(name: str, options: type[Any]) -> Callable[..., None]:
    """The command of an experiment that has options of its own."""
    # Cyclopts reads the type of the options from this annotation.
    own: Any = Annotated[options, Parameter(name="*"), FromFile]

    def command(
        *,
        choices: Annotated[Choices, Parameter(name="*"), FromFile] = Choices(),
        own_options: own = options(),
        out: Path | None = None,
        estimate: EstimateFlag = False,
        run_options: RunFlags = RunOptions(),
        output_options: OutputFlags = OutputOptions(),
    ) -> None:
        _run([(name, own_options)], choices, out, run_options, output_options, estimate=estimate)

    command.__doc__ = f"""{EXPERIMENTS[name].about}

    {options.__doc__}

    Args:
        out: Folder for runs, tables and figures; by default runs/{name}.
        estimate: Only print how long training would take on this machine.
    """
    return command


for _name, _listed in EXPERIMENTS.items():
    if _listed.options not in (None, PaperOptions):
        app.command(
            _command(_name, _listed.options),
            name=_name,
            help_epilogue=epilogue(SUBCOMMANDS[f"reproduce {_name}"]),
        )
