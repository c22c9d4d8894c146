"""Commands that train: denature train, nasty, distill."""

import json
import sys
from typing import Annotated, Any

from cyclopts import Group, Parameter

from denature.cli.options import (
    ConfigFile,
    Data,
    ReadingOptions,
    RunFolder,
    Showing,
    ShowingOptions,
    Surviving,
    SurvivingOptions,
    TrainingOptions,
    Trust,
    Writing,
    WritingOptions,
    data_config,
    load_runs,
)
from denature.data.config import Reading
from denature.train.config import Training
from denature.train.objectives import AnyObjective, Distilled, Nasty, Normal

OBJECTIVE = Group("Objective", sort_key=1)


def train(
    net: str,
    *,
    data: Data,
    init: RunFolder | None = None,
    trust: Trust = (),
    config: ConfigFile = None,
    reading: ReadingOptions = Reading(),
    training: TrainingOptions = Training(),
    writing: WritingOptions = Writing(),
    surviving: SurvivingOptions = Surviving(),
    showing: ShowingOptions = Showing(),
) -> None:
    """Train a network on the true labels.

    Args:
        net: A name from `denature nets`, or package.module:factory for a module of your own.
        data: digits; a folder of Parquet shards or images; an .npz; or hf:owner/name.
        init: A run of the same network to start from.
        trust: A module of your own that a run's record may import; once for each.
        config: A TOML file with options, or the record.json of a run to make again.
    """
    inputs = load_runs({"init": init}, trust)
    _run(net, data, Normal(), reading, training, writing, surviving, showing, inputs)


def nasty(
    net: str,
    *,
    data: Data,
    adversary: RunFolder,
    objective: Annotated[Nasty, Parameter(name="*", group=OBJECTIVE)] = Nasty(),
    init: RunFolder | None = None,
    trust: Trust = (),
    config: ConfigFile = None,
    reading: ReadingOptions = Reading(),
    training: TrainingOptions = Training(),
    writing: WritingOptions = Writing(),
    surviving: SurvivingOptions = Surviving(),
    showing: ShowingOptions = Showing(),
) -> None:
    """Train a nasty teacher: as accurate as it can be, and a bad example.

    Args:
        net: A name from `denature nets`, or package.module:factory for a module of your own.
        data: digits; a folder of Parquet shards or images; an .npz; or hf:owner/name.
        adversary: The run of a normally trained network that it is pushed away from.
        init: A run of the same network to start from; hardens an existing model.
        trust: A module of your own that a run's record may import; once for each.
        config: A TOML file with options, or the record.json of a run to make again.
    """
    inputs = load_runs({"adversary": adversary, "init": init}, trust)
    _run(net, data, objective, reading, training, writing, surviving, showing, inputs)


def distill(
    net: str,
    *,
    data: Data,
    teacher: RunFolder,
    objective: Annotated[Distilled, Parameter(name="*", group=OBJECTIVE)] = Distilled(),
    init: RunFolder | None = None,
    trust: Trust = (),
    config: ConfigFile = None,
    reading: ReadingOptions = Reading(),
    training: TrainingOptions = Training(),
    writing: WritingOptions = Writing(),
    surviving: SurvivingOptions = Surviving(),
    showing: ShowingOptions = Showing(),
) -> None:
    """Train a student on a teacher's answers.

    Args:
        net: A name from `denature nets`, or package.module:factory for a module of your own.
        data: digits; a folder of Parquet shards or images; an .npz; or hf:owner/name.
        teacher: The run that answers.
        init: A run of the same network to start from.
        trust: A module of your own that a run's record may import; once for each.
        config: A TOML file with options, or the record.json of a run to make again.
    """
    inputs = load_runs({"teacher": teacher, "init": init}, trust)
    _run(net, data, objective, reading, training, writing, surviving, showing, inputs)


def _run(
    net: str,
    data: str,
    objective: AnyObjective,
    reading: Reading,
    training: Training,
    writing: Writing,
    surviving: Surviving,
    showing: Showing,
    inputs: dict[str, Any],
) -> None:
    from denature.report.words import percent
    from denature.train import train as make

    stopper = surviving.stopper()
    with stopper.on_signals():
        run = make(
            net,
            data_config(data, reading),
            objective,
            training,
            out=writing.out,
            under=writing.under,
            overwrite=writing.overwrite,
            keeping=surviving.keeping(),
            stopper=stopper,
            progress=showing.display(),
            **inputs,
        )
    record = run.record
    if showing.verbose:
        print(json.dumps(record.config, indent=1), file=sys.stderr)
    if showing.json:
        print(record.to_json())
        return
    assert record.data is not None
    print(
        f"{record.kind} {net}: accuracy {percent(run.accuracy)} % on {record.data.test:,} test "
        f"images, after {training.epochs} epochs in {record.seconds:.0f} s "
        f"({record.images_per_second:,.0f} images/s). Run: {run.folder}"
    )
