"""Experiment folders of the official repository: denature run, and its three scripts' names."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from denature.cli.options import OutputFlags, OutputOptions, RunFlags, RunOptions
from denature.core.errors import ConfigError
from denature.train.config import Device, Precision


def run(
    *folders: Path,
    data_root: Path | None = None,
    epochs: int | None = None,
    fraction: float | None = None,
    seed: int = 0,
    teacher_resume: str | None = None,
    resume: str | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    surviving: RunFlags = RunOptions(),
    showing: OutputFlags = OutputOptions(),
) -> None:
    """Run experiment folders of the official Nasty Teacher repository as they are.

    A folder's params.json says which training it is; several folders, or a tree of them, are run in
    the order that their checkpoints need. As in the official code the best epoch on the test set is
    kept, and the record says so.

    Args:
        folders: Folders with a params.json, or trees that hold some.
        data_root: Where cifar10/, cifar100/ and tiny-imagenet/ lie; fetched by default.
        epochs: Instead of num_epochs; the schedule is shortened with it.
        fraction: Instead of subset_percent.
        seed: Rules initial weights, order and views.
        teacher_resume: Instead of the teacher's checkpoint in params.json.
        resume: A checkpoint of the same network to start from.
        overwrite: Replace other runs that the folders hold.
        device: Where to compute.
        precision: In which precision.
    """
    from denature.recipes.upstream import BEST, Overrides, find, in_order, read, run_all
    from denature.report.words import percent

    if not folders:
        raise ConfigError("Name at least one folder with a params.json, or a tree that holds some.")
    if surviving.workers != 1 or surviving.ray is not None:
        raise ConfigError("Folders are run one after the other; leave out --workers and --ray.")
    overrides = Overrides(
        epochs=epochs,
        fraction=fraction,
        seed=seed,
        data_root=data_root,
        teacher_resume=teacher_resume,
        resume=resume,
        device=device,
        precision=precision,
    )
    display = showing.display()
    ordered = in_order([read(folder, overrides) for folder in find(folders)])
    for note in sorted({note for folder in ordered for note in folder.notes}):
        display.say(f"Not as in the official code: {note}.")
    stopper = surviving.stopper()
    with stopper.on_signals():
        for folder, made in run_all(
            ordered,
            overrides,
            overwrite=overwrite,
            keeping=surviving.keeping(),
            stopper=stopper,
            progress=display,
        ):
            if showing.json:
                print(json.dumps(made.record.config | {"folder": str(folder.path)}))
                continue
            print(
                f"{folder.path}: {made.record.kind} {folder.params.model_name}, best epoch "
                f"{made.record.chosen_epoch} on the test set, accuracy {percent(made.accuracy)} %. "
                f"See {BEST} and training.log there."
            )


def script(
    *,
    save_path: Path,
    teacher_resume: str | None = None,
    resume: str | None = None,
    gpu_id: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (),
    data_root: Path | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    showing: OutputFlags = OutputOptions(),
) -> None:
    """One of the official scripts, by its name: run the folder that `--save_path` names.

    Args:
        save_path: The folder with a params.json.
        teacher_resume: Instead of the teacher's checkpoint in params.json.
        resume: A checkpoint of the same network to start from.
        gpu_id: Means nothing here; see the launchers torchrun and accelerate.
        data_root: Where cifar10/, cifar100/ and tiny-imagenet/ lie; fetched by default.
        overwrite: Replace another run that the folder holds.
    """
    run(
        save_path,
        data_root=data_root,
        teacher_resume=teacher_resume,
        resume=resume,
        overwrite=overwrite,
        showing=showing,
    )
