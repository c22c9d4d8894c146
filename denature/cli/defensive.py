"""denature reproduce defensive-distillation and both-worlds: experiments with hardened networks."""

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
    run_options: RunFlags = RunOptions(),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Attack networks distilled at temperatures from 1 to 100, also with the temperature put back.

    The same attacks on the same samples also run against an undefended network and an adversarially
    trained one.

    Args:
        scale: smoke, on digits; cpu, CIFAR-10 with the original's network and fewer images and
            epochs; paper, the whole experiment, for a GPU.
        seeds: Number of repetitions with other seeds, on the same samples; 1 for cpu, 3 for the
            other scales by default.
        data_root: The folder that holds cifar10/; fetched into the cache by default.
        estimate: Only print how long training would take on this machine.
        out: Folder for runs, table, figures and report.
        device: Device to compute on.
        precision: Precision of the training; attacks compute in fp32.
    """
    from denature.recipes.defensive import reproduce, setting, wanted
    from denature.recipes.paper.settings import data_at

    chosen = setting(scale).on(device, precision)
    chosen = replace(chosen, seeds=chosen.seeds if seeds is None else seeds)
    data = data_at(data_root, "cifar10") if chosen.data == "cifar10" else chosen.data
    _print_estimate(
        wanted(chosen, out).values(), data, out / chosen.scale, output_options, alone=estimate
    )
    if estimate:
        return
    with run_options.session(output_options, device) as session:
        result = reproduce(
            chosen,
            data,
            out,
            session=session,
        )
    _show(result, f"Attack success in percent at {result.budget:g} in linf.", output_options)


def both_worlds(
    *,
    scale: str = "cpu",
    seeds: int | None = None,
    data_root: Path | None = None,
    estimate: Annotated[bool, Parameter(negative="")] = False,
    out: Path = Path("runs/both-worlds"),
    device: Device = "auto",
    precision: Precision = "auto",
    run_options: RunFlags = RunOptions(),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Attack nasty and hardened networks, clone them, and show both results in one table.

    Args:
        scale: smoke, on digits; cpu, a small network on CIFAR-10; paper, ResNet-18, for a GPU.
        seeds: Number of repetitions with other seeds; 1 for cpu, 3 for the other scales by default.
        data_root: The folder that holds cifar10/; fetched into the cache by default.
        estimate: Only print how long training would take on this machine.
        out: Folder for runs, table, figures and report.
        device: Device to compute on.
        precision: Precision of the training; attacks compute in fp32.
    """
    from denature.recipes.paper.settings import data_at
    from denature.recipes.worlds import reproduce, setting, wanted

    chosen = setting(scale).on(device, precision)
    chosen = replace(chosen, seeds=chosen.seeds if seeds is None else seeds)
    data = data_at(data_root, "cifar10") if chosen.data == "cifar10" else chosen.data
    _print_estimate(
        wanted(chosen, out).values(), data, out / chosen.scale, output_options, alone=estimate
    )
    if estimate:
        return
    with run_options.session(output_options, device) as session:
        result = reproduce(
            chosen,
            data,
            out,
            session=session,
        )
    _show(result, "Robustness and clones of the same networks.", output_options)


def _print_estimate(
    orders: "Iterable[Order]", data: str, done: Path, output_options: OutputOptions, *, alone: bool
) -> None:
    """Print how long training will take; with `alone`, also as the JSON result."""
    from denature.core.progress import format_seconds
    from denature.data import load
    from denature.recipes.estimate import seconds_of

    display = output_options.display()
    dataset = load(data, progress=display)
    seconds = seconds_of(((order, dataset) for order in orders), done, progress=display)
    display.say(
        f"{format_seconds(seconds)} of training are left on this machine; the time of the attacks "
        "is estimated when they start."
    )
    if alone and output_options.json:
        print(f'{{"seconds": {seconds:.0f}}}')


def _show(
    result: "DefensiveDistillationResult | RobustnessAndExtractionResult",
    title: str,
    output_options: OutputOptions,
) -> None:
    from denature.cli.show import print_table

    if output_options.json:
        print(result.to_json())
        return
    print(f"{title} {result.differs}")
    print_table(result.lines)
    for sentence in result.verdict:
        print(sentence)
    print(f"Look at {result.folder / 'report.html'}")
