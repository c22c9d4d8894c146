"""denature reproduce: published experiments, at a size that fits the machine."""

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
    surviving: RunFlags = RunOptions(),
    showing: OutputFlags = OutputOptions(),
) -> None:
    """Make published experiments: runs, tables, figures, one page each.

    Those of the Nasty Teacher paper have the options below; `nose`, the copy of a face service's
    nose detector, has its own, see `denature reproduce nose --help`. Without names, list them. Runs
    that are there already are not made again, and experiments share them; what was stopped goes on.

    Args:
        names: Experiments, or all; nose, defensive-distillation and both-worlds have options of
            their own.
        scale: smoke, to see in seconds that it runs; cpu, small networks on the real images; fast,
            the paper's networks for 30 epochs; paper, its setting.
        seeds: How often everything is repeated; 1 for smoke and paper, 3 for the others by default.
        out: Folder for all runs, tables and figures.
        data_root: Where cifar10/, cifar100/ and tiny-imagenet/ lie; fetched by default.
        tame: Let omega rise over the first tenth of the steps and cap the push: for networks whose
            nasty training diverges. The record says so.
        checkpoint: Which epoch's weights to keep; best-test is what the released code does.
        estimate: Only say how long it would take here.
        device: Where to compute.
        precision: In which precision.
    """
    from denature.cli.show import print_table
    from denature.core.progress import format_seconds
    from denature.recipes.estimate import seconds_of
    from denature.recipes.paper.catalogue import EXPERIMENTS
    from denature.recipes.paper.reproduce import names_of, orders_of
    from denature.recipes.paper.reproduce import reproduce as run_experiment
    from denature.recipes.paper.settings import setting

    if not names:
        listed = [[name, it.about] for name, it in EXPERIMENTS.items()]
        listed.append(["nose", "A face service's nose detector, copied through its answers."])
        about = "Does distillation at a temperature protect, and when is that an illusion?"
        listed.append(["defensive-distillation", about])
        about = "Are nasty teachers robust, and hardened networks hard to clone?"
        listed.append(["both-worlds", about])
        print_table([["Experiment", "What it is"], *listed])
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
    display = showing.display()
    orders = orders_of(wanted, chosen, out, seeds=seeds, progress=display)
    left = seconds_of(orders, out / chosen.scale / "runs", progress=display)
    display.say(
        f"{', '.join(wanted)} at scale {scale}: {format_seconds(left)} of training are left here."
    )
    if estimate:
        if showing.json:
            print(f'{{"seconds": {left:.0f}}}')
        return
    stopper = surviving.stopper()
    with surviving.crew(device) as crew, stopper.on_signals():
        for name in wanted:
            found = run_experiment(
                name,
                chosen,
                out,
                seeds=seeds,
                keeping=surviving.keeping(),
                stopper=stopper,
                crew=crew,
                progress=display,
            )
            if showing.json:
                print(found.to_json())
                continue
            print(f"{name}: {found.about} {found.differs}")
            print_table(found.lines)
            for sentence in found.verdict:
                print(sentence)
            print(f"Look at {found.folder / 'report.html'}\n")
