"""Experiment folders of the official repository: denature run, and the names of its scripts."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from denature.cli.options import OutputFlags, OutputOptions, RunFlags, RunOptions
from denature.cli.terminal import print
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
    run_options: RunFlags = RunOptions(),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Run experiment folders of the official Nasty Teacher repository as they are.

    A folder's params.json selects the training; several folders, or a tree of folders, are run in
    the order that their checkpoints require. As in the official code, the epoch with the best test
    accuracy is kept; the record notes this.

    Args:
        folders: Folders with a params.json, or trees that hold such folders.
        data_root: The folder that holds cifar10/, cifar100/ and tiny-imagenet/; fetched into the
            cache by default.
        epochs: Overrides num_epochs; the schedule is shortened with it.
        fraction: Overrides subset_percent.
        seed: Seed of initial weights, order and views.
        teacher_resume: Overrides the teacher's checkpoint in params.json.
        resume: A checkpoint of the same network to start from.
        overwrite: Replace other runs that the folders hold.
        device: Device to compute on.
        precision: Precision of training and inference.
    """
    from denature.recipes.upstream.folders import BEST, Overrides, find, in_order, read
    from denature.recipes.upstream.running import run_all
    from denature.report.words import percent

    if not folders:
        raise ConfigError(
            "No folder was given; pass a folder with a params.json, or a tree that holds some."
        )
    if run_options.workers not in (None, 1) or run_options.ray is not None:
        raise ConfigError("Folders are run one after another; leave out --workers and --ray.")
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
    display = output_options.display()
    ordered = in_order([read(folder, overrides) for folder in find(folders)])
    for note in sorted({note for folder in ordered for note in folder.notes}):
        display.say(f"Difference from the official code: {note}.")
    with run_options.session(output_options, device) as session:
        for folder, made in run_all(
            ordered,
            overrides,
            overwrite=overwrite,
            session=session,
        ):
            if output_options.json:
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
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Run the folder that `--save_path` names, as the official script of this name does.

    Args:
        save_path: The folder with a params.json.
        teacher_resume: Overrides the teacher's checkpoint in params.json.
        resume: A checkpoint of the same network to start from.
        gpu_id: Ignored; use the launchers torchrun and accelerate instead.
        data_root: The folder that holds cifar10/, cifar100/ and tiny-imagenet/; fetched into the
            cache by default.
        overwrite: Replace another run that the folder holds.
    """
    run(
        save_path,
        data_root=data_root,
        teacher_resume=teacher_resume,
        resume=resume,
        overwrite=overwrite,
        output_options=output_options,
    )
