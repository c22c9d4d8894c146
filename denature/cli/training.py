"""Commands that train: denature train, nasty, distill, skeptical, dafl."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import Group, Parameter

from denature.answers.config import InferenceConfig
from denature.cli.options import (
    Data,
    FolderFlags,
    FolderOptions,
    FromFile,
    InferenceOptions,
    Net,
    OutputFlags,
    OutputOptions,
    ReadingOptions,
    RunFlags,
    RunFolder,
    RunOptions,
    TrainingOptions,
    Trust,
    data_config,
)
from denature.cli.terminal import print
from denature.data.config import ReaderConfig
from denature.datafree.config import Dafl
from denature.recipes.models import folder_of
from denature.train.config import Training
from denature.train.objectives import Distilled, Nasty, Normal, Objective, Skeptical

if TYPE_CHECKING:
    from denature.train import Run

OBJECTIVE = Group("Objective", sort_key=1)


@dataclass(frozen=True, kw_only=True)
class Common:
    """Options that all commands that train share."""

    init: Annotated[RunFolder | None, FromFile] = None
    """A run of the same network to start from, such as an imported model."""
    backbone: Annotated[str | None, FromFile] = None
    """A run of the same network, perhaps trained on other labels, from which all layers but the
    last are taken; or the network's own name, such as timm:resnet18, for its published weights."""
    trust: Trust = ()
    """A module of your own that a run's record may import; repeat the option for several."""
    reading: ReadingOptions = field(default_factory=ReaderConfig)
    training: TrainingOptions = field(default_factory=Training)
    folder_options: FolderFlags = field(default_factory=FolderOptions)
    run_options: RunFlags = field(default_factory=RunOptions)
    output_options: OutputFlags = field(default_factory=OutputOptions)


CommonOptions: TypeAlias = Annotated[Common, Parameter(name="*")]


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """One run that the command line requests; its lists request one run per combination."""

    net: str
    data: str
    objective: Objective
    source: Path | None = None
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    common: Common


def train(
    net: Net,
    *,
    data: Data,
    objective: Annotated[Normal, Parameter(name="*", group=OBJECTIVE), FromFile] = Normal(),
    common: CommonOptions = Common(),
) -> TrainingRequest:
    """Train a network on the true labels.

    Lists, as in `--seed 0,1,2`, make a run of each value.

    Args:
        net: A name from `denature nets`, or package.module:factory for a module of your own.
        data: digits; a folder of Parquet shards or images; an .npz; or hf:owner/name.
    """
    return TrainingRequest(net=net, data=data, objective=objective, common=common)


def nasty(
    net: Net,
    *,
    data: Data,
    adversary: Annotated[RunFolder, FromFile],
    objective: Annotated[Nasty, Parameter(name="*", group=OBJECTIVE), FromFile] = Nasty(),
    inference: InferenceOptions = InferenceConfig(),
    common: CommonOptions = Common(),
) -> TrainingRequest:
    """Train a nasty teacher: accurate itself, harmful to students that imitate it.

    Lists, as in `--omega 0.01,0.04`, make a run of each value. With `--init` the training starts
    from an existing model.

    Args:
        net: A name from `denature nets`, or package.module:factory for a module of your own.
        data: digits; a folder of Parquet shards or images; an .npz; or hf:owner/name.
        adversary: Folder of the normally trained run that the nasty teacher is pushed away from.
    """
    return TrainingRequest(
        net=net,
        data=data,
        objective=objective,
        source=adversary,
        inference=inference,
        common=common,
    )


def distill(
    net: Net,
    *,
    data: Data,
    teacher: Annotated[RunFolder, FromFile],
    objective: Annotated[Distilled, Parameter(name="*", group=OBJECTIVE), FromFile] = Distilled(),
    inference: InferenceOptions = InferenceConfig(),
    common: CommonOptions = Common(),
) -> TrainingRequest:
    """Train a student on a teacher's answers.

    Lists, as in `--alpha 0.1,0.5,0.9 --seed 0,1,2`, make a run of each combination; students that
    share `--view-seed` are trained in one pass, in which the teacher answers once.

    Args:
        net: A name from `denature nets`, or package.module:factory for a module of your own.
        data: digits; a folder of Parquet shards or images; an .npz; or hf:owner/name.
        teacher: Folder of the run whose answers the student learns.
    """
    return TrainingRequest(
        net=net, data=data, objective=objective, source=teacher, inference=inference, common=common
    )


def skeptical(
    net: Net,
    *,
    data: Data,
    teacher: Annotated[RunFolder, FromFile],
    objective: Annotated[Skeptical, Parameter(name="*", group=OBJECTIVE), FromFile] = Skeptical(),
    inference: InferenceOptions = InferenceConfig(),
    common: CommonOptions = Common(),
) -> TrainingRequest:
    """Train a student that distils through auxiliary heads: an attack on nasty teachers.

    Lists, as in `--alpha 0.1,0.9 --seed 0,1`, make a run of each combination.

    Args:
        net: A name from `denature nets`, or package.module:factory for a module of your own.
        data: digits; a folder of Parquet shards or images; an .npz; or hf:owner/name.
        teacher: Folder of the run whose answers the student's shallow head learns.
    """
    return TrainingRequest(
        net=net, data=data, objective=objective, source=teacher, inference=inference, common=common
    )


def dafl(
    net: Net,
    *,
    data: Data,
    teacher: Annotated[RunFolder, FromFile],
    objective: Annotated[Dafl, Parameter(name="*", group=OBJECTIVE), FromFile] = Dafl(),
    common: CommonOptions = Common(),
) -> TrainingRequest:
    """Train a student from a teacher's weights, without data: a generator makes images (DAFL).

    Args:
        net: A name from `denature nets`, or package.module:factory for a module of your own.
        data: The data set that the student is tested on; an epoch has as many generated images as
            its training split has images.
        teacher: Folder of the run whose weights the thief has.
    """
    return TrainingRequest(net=net, data=data, objective=objective, source=teacher, common=common)


def carry_out(requests: Sequence[TrainingRequest]) -> None:
    """Make the runs that one command line requests, and print their results."""
    from denature.train import Order, load_run, make
    from denature.train.team import join

    common, training = requests[0].common, requests[0].common.training
    folders = {
        folder
        for request in requests
        for folder in (request.source, request.common.init, folder_of(request.common.backbone))
        if folder is not None
    }
    inputs = {folder: load_run(folder, trust=common.trust) for folder in folders}

    def start(backbone: str | None) -> "Run | str | None":
        folder = folder_of(backbone)
        return backbone if folder is None else inputs[folder]

    out, under = common.folder_options.out, common.folder_options.under
    if len(requests) > 1 and out is not None:
        out, under = None, out
    orders = [
        Order(
            net=request.net,
            objective=request.objective,
            training=request.common.training,
            source=None if request.source is None else inputs[request.source],
            inference=request.inference,
            init=None if request.common.init is None else inputs[request.common.init],
            backbone=start(request.common.backbone),
            out=out,
            under=under,
        )
        for request in requests
    ]
    with common.run_options.session(common.output_options, training.device) as session:
        runs = make(
            orders,
            data_config(requests[0].data, common.reading),
            overwrite=common.folder_options.overwrite,
            session=session,
        )
    if not join(training.device).is_rank0:
        return
    if common.output_options.verbose:
        for run in runs:
            print(json.dumps(run.record.config, indent=1), file=sys.stderr)
    if common.output_options.json:
        for run in runs:
            print(run.record.to_json())
    elif len(runs) == 1:
        _print_run(runs[0])
    else:
        _print_runs(runs)


def _print_run(run: "Run") -> None:
    from denature.report.divergence import divergence, warning
    from denature.report.words import score

    record = run.record
    assert record.data is not None
    print(
        f"{record.kind} {record.net.name}: {score(record)} on "
        f"{record.data.test:,} test images{divergence(record)}, after {len(record.history)} epochs "
        f"in {record.seconds:.0f} s ({record.images_per_second:,.0f} images/s). Run: {run.folder}"
    )
    if (text := warning(record)) is not None:
        print(f"{run.folder} is {text}", file=sys.stderr)


def _print_runs(runs: Sequence["Run"]) -> None:
    """Print a table of the options that vary between runs, and of their scores."""
    from denature.cli.show import print_table
    from denature.report.divergence import warning
    from denature.report.words import score
    from denature.train.identity import plan_of, what_varies

    varied = what_varies([plan_of(run.record) for run in runs])
    lines = [["Kind", "Run", *varied[0], "Measured"]]
    for run, values in zip(runs, varied, strict=True):
        shown = [
            f"{value:g}" if isinstance(value, float) else str(value) for value in values.values()
        ]
        lines.append([run.record.kind, str(run.folder), *shown, score(run.record)])
    print_table(lines)
    for run in runs:
        if (text := warning(run.record)) is not None:
            print(f"{run.folder} is {text}", file=sys.stderr)
