"""Commands that train: denature train, nasty, distill."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import Group, Parameter

from denature.answers.config import InferenceConfig
from denature.cli.options import (
    AskingOptions,
    ConfigFile,
    Data,
    FolderFlags,
    FolderOptions,
    OutputFlags,
    OutputOptions,
    ReadingOptions,
    RunFlags,
    RunFolder,
    RunOptions,
    TrainingOptions,
    Trust,
    data_config,
    folder_of,
)
from denature.data.config import ReaderConfig
from denature.datafree.config import Dafl
from denature.train.config import Training
from denature.train.objectives import Distilled, Nasty, Normal, Objective

if TYPE_CHECKING:
    from denature.train import Run

OBJECTIVE = Group("Objective", sort_key=1)


@dataclass(frozen=True, kw_only=True)
class Common:
    """Options of all commands that train."""

    init: RunFolder | None = None
    """A run of the same network to start from, such as an imported model."""
    backbone: str | None = None
    """A run of the same network to start from in all but its last layer, which may have learned
    something else; or the network's own name, such as timm:resnet18, for its published weights."""
    trust: Trust = ()
    """A module of your own that a run's record may import; once for each."""
    config: ConfigFile = None
    """A TOML file with options, or the record.json of a run to make again."""
    reading: ReadingOptions = field(default_factory=ReaderConfig)
    training: TrainingOptions = field(default_factory=Training)
    writing: FolderFlags = field(default_factory=FolderOptions)
    surviving: RunFlags = field(default_factory=RunOptions)
    showing: OutputFlags = field(default_factory=OutputOptions)


CommonOptions: TypeAlias = Annotated[Common, Parameter(name="*")]


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """One run that the command line asks for; lists on it ask for several."""

    net: str
    data: str
    objective: Objective
    asked: Path | None = None
    asking: InferenceConfig = field(default_factory=InferenceConfig)
    common: Common


def train(
    net: str,
    *,
    data: Data,
    objective: Annotated[Normal, Parameter(name="*", group=OBJECTIVE)] = Normal(),
    common: CommonOptions = Common(),
) -> TrainingRequest:
    """Train a network on the true labels.

    Lists, as in `--seed 0,1,2`, ask for a run of each.

    Args:
        net: A name from `denature nets`, or package.module:factory for a module of your own.
        data: digits; a folder of Parquet shards or images; an .npz; or hf:owner/name.
    """
    return TrainingRequest(net=net, data=data, objective=objective, common=common)


def nasty(
    net: str,
    *,
    data: Data,
    adversary: RunFolder,
    objective: Annotated[Nasty, Parameter(name="*", group=OBJECTIVE)] = Nasty(),
    asking: AskingOptions = InferenceConfig(),
    common: CommonOptions = Common(),
) -> TrainingRequest:
    """Train a nasty teacher: as accurate as it can be, and a bad example.

    Lists, as in `--omega 0.01,0.04`, ask for a run of each. With `--init` an existing model is
    hardened.

    Args:
        net: A name from `denature nets`, or package.module:factory for a module of your own.
        data: digits; a folder of Parquet shards or images; an .npz; or hf:owner/name.
        adversary: The run of a normally trained network that it is pushed away from.
    """
    return TrainingRequest(
        net=net, data=data, objective=objective, asked=adversary, asking=asking, common=common
    )


def distill(
    net: str,
    *,
    data: Data,
    teacher: RunFolder,
    objective: Annotated[Distilled, Parameter(name="*", group=OBJECTIVE)] = Distilled(),
    asking: AskingOptions = InferenceConfig(),
    common: CommonOptions = Common(),
) -> TrainingRequest:
    """Train a student on a teacher's answers.

    Lists, as in `--alpha 0.1,0.5,0.9 --seed 0,1,2`, ask for every combination; students that share
    `--view-seed` are trained in one pass, in which the teacher is asked once.

    Args:
        net: A name from `denature nets`, or package.module:factory for a module of your own.
        data: digits; a folder of Parquet shards or images; an .npz; or hf:owner/name.
        teacher: The run that answers.
    """
    return TrainingRequest(
        net=net, data=data, objective=objective, asked=teacher, asking=asking, common=common
    )


def dafl(
    net: str,
    *,
    data: Data,
    teacher: RunFolder,
    objective: Annotated[Dafl, Parameter(name="*", group=OBJECTIVE)] = Dafl(),
    common: CommonOptions = Common(),
) -> TrainingRequest:
    """Train a student from a teacher's weights without data: a generator makes its images (DAFL).

    Args:
        net: A name from `denature nets`, or package.module:factory for a module of your own.
        data: What the student is tested on; an epoch has as many made-up images as it has to train.
        teacher: The run whose weights the thief has.
    """
    return TrainingRequest(net=net, data=data, objective=objective, asked=teacher, common=common)


def carry_out(wanted: Sequence[TrainingRequest]) -> None:
    """Make the runs that one command line asks for, and say how they came out."""
    from denature.train import Order, load_run, make
    from denature.train.team import join

    common, training = wanted[0].common, wanted[0].common.training
    named = {
        folder
        for it in wanted
        for folder in (it.asked, it.common.init, folder_of(it.common.backbone))
        if folder is not None
    }
    inputs = {folder: load_run(folder, trust=common.trust) for folder in named}

    def start(backbone: str | None) -> "Run | str | None":
        folder = folder_of(backbone)
        return backbone if folder is None else inputs[folder]

    out, under = common.writing.out, common.writing.under
    if len(wanted) > 1 and out is not None:
        out, under = None, out
    orders = [
        Order(
            net=it.net,
            objective=it.objective,
            training=it.common.training,
            asked=None if it.asked is None else inputs[it.asked],
            asking=it.asking,
            init=None if it.common.init is None else inputs[it.common.init],
            backbone=start(it.common.backbone),
            out=out,
            under=under,
        )
        for it in wanted
    ]
    stopper = common.surviving.stopper()
    with common.surviving.crew(training.device) as crew, stopper.on_signals():
        runs = make(
            orders,
            data_config(wanted[0].data, common.reading),
            overwrite=common.writing.overwrite,
            keeping=common.surviving.keeping(),
            stopper=stopper,
            crew=crew,
            progress=common.showing.display(),
        )
    if not join(training.device).is_rank0:
        return
    if common.showing.verbose:
        for run in runs:
            print(json.dumps(run.record.config, indent=1), file=sys.stderr)
    if common.showing.json:
        for run in runs:
            print(run.record.to_json())
    elif len(runs) == 1:
        _say_one(runs[0])
    else:
        _say_all(runs)


def _say_one(run: "Run") -> None:
    from denature.report.divergence import divergence, warning
    from denature.report.words import score

    record = run.record
    assert record.data is not None
    print(
        f"{record.kind} {record.net.name}: {score(record)} on "
        f"{record.data.test:,} test images{divergence(record)}, after {len(record.history)} epochs "
        f"in {record.seconds:.0f} s ({record.images_per_second:,.0f} images/s). Run: {run.folder}"
    )
    if (said := warning(record)) is not None:
        print(f"{run.folder} is {said}", file=sys.stderr)


def _say_all(runs: Sequence["Run"]) -> None:
    """A table of what varied and what came out."""
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
        if (said := warning(run.record)) is not None:
            print(f"{run.folder} is {said}", file=sys.stderr)
