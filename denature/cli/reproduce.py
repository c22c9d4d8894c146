"""denature reproduce: published experiments, at a scale that fits the machine."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from denature.cli.options import OutputFlags, OutputOptions, RunFlags, RunOptions
from denature.train.config import Checkpoint, Device, Precision

app = App(name="reproduce")
app.command("denature.cli.nose:nose", name="nose")
app.command("denature.cli.defensive:defensive_distillation", name="defensive-distillation")
app.command("denature.cli.defensive:both_worlds", name="both-worlds")


@app.default
def reproduce(
    *names: str,
    scale: str = "cpu",
    seeds: int | None = None,
    out: Path = Path("runs/paper"),
    data_root: Path | None = None,
    tame: Annotated[bool, Parameter(negative="")] = False,
    checkpoint: Checkpoint = "last",
    estimate: Annotated[bool, Parameter(negative="")] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    run_options: RunFlags = RunOptions(),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Reproduce published experiments: runs, tables, figures and a report for each.

    The experiments of the Nasty Teacher paper have the options below; `nose`, the clone of a face
    service's nose detector, has its own, see `denature reproduce nose --help`. Without names the
    command lists all experiments. Experiments share runs, finished runs are not made again, and
    stopped runs resume.

    Args:
        names: Names of experiments, or all; nose, defensive-distillation and both-worlds have
            options of their own.
        scale: smoke, a check that takes seconds; cpu, small networks on the real images; fast, the
            paper's networks for 30 epochs; paper, the paper's setting.
        seeds: Number of repetitions with other seeds; 1 for smoke and paper, 3 for the other scales
            by default.
        out: Folder for all runs, tables and figures.
        data_root: The folder that holds cifar10/, cifar100/ and tiny-imagenet/; fetched into the
            cache by default.
        tame: Raise omega over the first tenth of the steps and cap the push, for networks whose
            nasty training diverges. The record notes this.
        checkpoint: Epoch whose weights are kept; best-test is the choice of the released code.
        estimate: Only print how long training would take on this machine.
        device: Device to compute on.
        precision: Precision of training and inference.
    """
    from denature.cli.show import print_table
    from denature.core.progress import format_seconds
    from denature.recipes.estimate import seconds_of
    from denature.recipes.paper.catalogue import EXPERIMENTS
    from denature.recipes.paper.reproduce import names_of, orders_of
    from denature.recipes.paper.reproduce import reproduce as run_experiment
    from denature.recipes.paper.settings import setting

    if not names:
        listed = [[name, experiment.about] for name, experiment in EXPERIMENTS.items()]
        listed.append(["nose", "A face service's nose detector, cloned from its answers."])
        about = "Robustness of distilled networks at temperatures from 1 to 100."
        listed.append(["defensive-distillation", about])
        about = "Robustness and clones of nasty and hardened networks."
        listed.append(["both-worlds", about])
        print_table([["Experiment", "Description"], *listed])
        return
    chosen = replace(
        setting(scale),
        data_root=data_root,
        device=device,
        precision=precision,
        checkpoint=checkpoint,
        tame=tame,
    )
    wanted = names_of(names)
    display = output_options.display()
    orders = orders_of(wanted, chosen, out, seeds=seeds, progress=display)
    seconds = seconds_of(orders, out / chosen.scale / "runs", progress=display)
    display.say(
        f"{', '.join(wanted)} at scale {scale}: {format_seconds(seconds)} of training are left on "
        "this machine."
    )
    if estimate:
        if output_options.json:
            print(f'{{"seconds": {seconds:.0f}}}')
        return
    with run_options.session(output_options, device) as session:
        for name in wanted:
            result = run_experiment(
                name,
                chosen,
                out,
                seeds=seeds,
                session=session,
            )
            if output_options.json:
                print(result.to_json())
                continue
            print(f"{name}: {result.about} {result.differs}")
            print_table(result.lines)
            for sentence in result.verdict:
                print(sentence)
            print(f"Look at {result.folder / 'report.html'}\n")
