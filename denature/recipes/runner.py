"""The one way to run an experiment: estimate, make, measure, write."""

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from denature.core.progress import SILENT, Progress
from denature.data import Dataset
from denature.recipes.estimate import training_seconds
from denature.recipes.experiment import Experiment, WithAttacks
from denature.report.results import Outcome, write_outcome
from denature.train import Order, make
from denature.train.session import Session


def run(
    experiment: Experiment, session: Session | None = None, *, overwrite: bool = False
) -> Outcome:
    """Make the runs of an experiment, measure them, and write result and page.

    What is finished is reused; after a stop the same call goes on. With `overwrite`, other runs in
    the folders of these are replaced.

    Raises:
        DenatureError: see `denature.core.errors`.
        Stopped: a stop was requested.
    """
    session, started = session or Session(), time.perf_counter()
    data = experiment.data(session.progress)
    orders = list(dict.fromkeys(experiment.orders()))
    runs = dict(zip(orders, make(orders, data, overwrite=overwrite, session=session), strict=True))
    measured = experiment.measure(runs, data, session)
    with session.progress.task("writing the report", 0, "files"):
        outcome = write_outcome(measured.result, measured.records, experiment.folder)
    return replace(outcome, seconds=time.perf_counter() - started)


class TimeLeft(NamedTuple):
    """What experiments still take here, in seconds."""

    training: float
    attacks: float
    """At most: images that are fooled early are not attacked again."""


def time_left(
    experiments: Iterable[Experiment], *, workers: int = 1, progress: Progress = SILENT
) -> TimeLeft:
    """Time of the trainings and attacks that are left; queries and other measures are not counted.

    Experiments with one folder of runs share these, and each run is counted once.
    """
    wanted: dict[Path, list[tuple[Order, Dataset]]] = {}
    attacks = 0.0
    for experiment in experiments:
        data = experiment.data(progress)
        orders = wanted.setdefault(experiment.runs_folder, [])
        orders += [(order, data) for order in experiment.orders()]
        if isinstance(experiment, WithAttacks):
            attacks += experiment.attack_seconds(data)
    training = sum(
        training_seconds(orders, done, workers=workers, progress=progress)
        for done, orders in wanted.items()
    )
    return TimeLeft(training, attacks)
