"""denature reproduce defensive-distillation and both-worlds: does hardening protect, and whom?"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from denature.cli.options import OutputFlags, OutputOptions, RunFlags, RunOptions
from denature.train.config import Device, Precision

if TYPE_CHECKING:
    from denature.recipes.defensive import DefensiveDistillationResult
    from denature.recipes.worlds import RobustnessAndExtractionResult
    from denature.train import Order


def defensive_distillation(
    *,
    scale: str = "cpu",
    seeds: int | None = None,
    data_root: Path | None = None,
    estimate: Annotated[bool, Parameter(negative="")] = False,
    out: Path = Path("runs/defensive-distillation"),
    device: Device = "auto",
    precision: Precision = "auto",
    surviving: RunFlags = RunOptions(),
    showing: OutputFlags = OutputOptions(),
) -> None:
    """Distil at temperatures from 1 to 100 and attack, with the temperature left and put back.

    Beside it an undefended network and an adversarially trained one, on the same samples.

    Args:
        scale: smoke, on digits; cpu, CIFAR-10 with the original's network and fewer images and
            epochs; paper, all of it, for a GPU.
        seeds: How often everything is repeated, on the same samples; 1 for cpu, 3 for the others by
            default.
        data_root: Where cifar10/ lies; fetched by default.
        estimate: Only say how long it would take here.
        out: Folder for everything.
        device: Where to compute.
        precision: In which precision networks are trained; attacks are in fp32.
    """
    from denature.recipes.defensive import reproduce, setting, wanted
    from denature.recipes.paper.settings import data_at

    chosen = setting(scale).on(device, precision)
    chosen = replace(chosen, seeds=chosen.seeds if seeds is None else seeds)
    data = data_at(data_root, "cifar10") if chosen.data == "cifar10" else chosen.data
    _foresee(wanted(chosen, out).values(), data, out / chosen.scale, showing, alone=estimate)
    if estimate:
        return
    stopper = surviving.stopper()
    with stopper.on_signals():
        found = reproduce(
            chosen,
            data,
            out,
            keeping=surviving.keeping(),
            stopper=stopper,
            progress=showing.display(),
        )
    _show(found, f"Attack success in percent at {found.budget:g} in linf.", showing)


def both_worlds(
    *,
    scale: str = "cpu",
    seeds: int | None = None,
    data_root: Path | None = None,
    estimate: Annotated[bool, Parameter(negative="")] = False,
    out: Path = Path("runs/both-worlds"),
    device: Device = "auto",
    precision: Precision = "auto",
    surviving: RunFlags = RunOptions(),
    showing: OutputFlags = OutputOptions(),
) -> None:
    """Attack nasty and hardened networks, clone them, and set both in one table.

    Args:
        scale: smoke, on digits; cpu, a small network on CIFAR-10; paper, ResNet-18, for a GPU.
        seeds: How often everything is repeated; 1 for cpu, 3 for the others by default.
        data_root: Where cifar10/ lies; fetched by default.
        estimate: Only say how long it would take here.
        out: Folder for everything.
        device: Where to compute.
        precision: In which precision networks are trained; attacks are in fp32.
    """
    from denature.recipes.paper.settings import data_at
    from denature.recipes.worlds import reproduce, setting, wanted

    chosen = setting(scale).on(device, precision)
    chosen = replace(chosen, seeds=chosen.seeds if seeds is None else seeds)
    data = data_at(data_root, "cifar10") if chosen.data == "cifar10" else chosen.data
    _foresee(wanted(chosen, out).values(), data, out / chosen.scale, showing, alone=estimate)
    if estimate:
        return
    stopper = surviving.stopper()
    with stopper.on_signals():
        found = reproduce(
            chosen,
            data,
            out,
            keeping=surviving.keeping(),
            stopper=stopper,
            progress=showing.display(),
        )
    _show(found, "Robustness and clones of the same networks.", showing)


def _foresee(
    orders: "Iterable[Order]", data: str, done: Path, showing: OutputOptions, *, alone: bool
) -> None:
    """Say how long training will take; as the result where it is asked for alone."""
    from denature.core.progress import format_seconds
    from denature.data import load
    from denature.recipes.estimate import seconds_of

    display = showing.display()
    dataset = load(data, progress=display)
    left = seconds_of(((order, dataset) for order in orders), done, progress=display)
    display.say(f"{format_seconds(left)} of training are left here; attacks say theirs later.")
    if alone and showing.json:
        print(f'{{"seconds": {left:.0f}}}')


def _show(
    found: "DefensiveDistillationResult | RobustnessAndExtractionResult",
    title: str,
    showing: OutputOptions,
) -> None:
    from denature.cli.show import print_table

    if showing.json:
        print(found.to_json())
        return
    print(f"{title} {found.differs}")
    print_table(found.lines)
    for sentence in found.verdict:
        print(sentence)
    print(f"Look at {found.folder / 'report.html'}")
