"""The result of the nose experiment, from its answers, runs and timings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from denature.core.stats import Estimate, mean_over_images, mean_over_seeds, pooled
from denature.data.dataset import Split
from denature.data.png import to_png
from denature.extract.asking.pricing import Prices
from denature.extract.speed import Timing
from denature.recipes.experiment import MeasuredResult
from denature.recipes.nose.clones import CloneFactory, CloneKind
from denature.recipes.nose.service_answers import ServiceAnswers
from denature.recipes.nose.settings import TARGETS, NoseSetting
from denature.report.nose import (
    NosePictures,
    NosePlaces,
    NoseResult,
    NoseRow,
    NoseTheft,
    NoseTransfer,
    PrecisionPoint,
)
from denature.train.run import Run, snapshots

ON_SHOW = 8
"""Number of test pictures with drawn marks."""


class Speeds(NamedTuple):
    """Speed of the clone, in batches of 1 and more, and of the service over its wire."""

    clone: list[Timing]
    service: list[Timing]


@dataclass(frozen=True, kw_only=True, eq=False)
class Clones:
    """All clones of the experiment."""

    factory: CloneFactory
    runs: Mapping[CloneKind, Sequence[Run]]
    trials: Sequence[PrecisionPoint]
    """Clones of rounded answers."""
    shown: Run
    """The clone whose predictions are drawn."""
    rounded: Mapping[int, Run]
    """One clone for each precision, by the decimals of its training answers."""


def result_of(
    setting: NoseSetting,
    answers: ServiceAnswers,
    clones: Clones,
    service: Run | None,
    speeds: Speeds,
    prices: Prices | None,
) -> MeasuredResult:
    """Result and records of the experiment.

    Args:
        setting: the experiment at one scale.
        answers: all answers of the service.
        clones: the clones of these answers.
        service: the network behind the service; None where the answers come from a file.
        speeds: timings of clone and service.
        prices: prices of the service's queries.
    """
    data = clones.factory.data["nose"]
    result = NoseResult(
        scale=setting.scale,
        differs=setting.differs,
        rows=tuple(_rows(answers, clones, service)),
        trials=tuple(clones.trials),
        mean_place=mean_place(data.test, data.train),
        theft=NoseTheft(
            victim=answers.victim,
            queries=answers.queries,
            answers=len(answers.train),
            tests=len(answers.test),
            unseen=answers.unseen,
            money=None if prices is None else prices.cost(answers.queries),
            dated="" if prices is None or not prices.as_of else f"{prices.source}, {prices.as_of}",
            clone=tuple(speeds.clone),
            service=tuple(speeds.service),
        ),
        pictures=_pictures(answers, clones),
        transfers=tuple(_transfers(clones.runs)),
    )
    records = [run.record for runs in clones.runs.values() for run in runs]
    if service is not None:
        records.insert(0, service.record)
    return MeasuredResult(result, records)


def mean_place(split: Split, train: Split) -> Estimate:
    """Error of the constant baseline that predicts the mean training answer."""
    mean = train.labels[train.rows].mean(dim=0)
    errors = (split.labels[split.rows] - mean).abs().mean(dim=1)
    return mean_over_images(errors.tolist())


def _rows(answers: ServiceAnswers, clones: Clones, service: Run | None) -> list[NoseRow]:
    """Errors of the service, of the mean answer and of the clones, by what they predict."""
    rows: list[NoseRow] = []
    for target, values in TARGETS.items():
        data, people = clones.factory.data[target], answers.seen_by_people(values)
        if service is not None and people is not None:
            predicted = data.test.labels[data.test.rows]
            errors = (predicted - people.labels[people.rows]).abs().mean(dim=1)
            rows.append(
                NoseRow(
                    name="the service itself",
                    net=service.record.net.name,
                    target=target,
                    people=mean_over_images(errors.tolist()),
                    parameters=service.record.net.parameters,
                )
            )
        rows.append(
            NoseRow(
                name="always the mean place",
                target=target,
                service=mean_place(data.test, data.train),
                people=None if people is None else mean_place(people, data.train),
            )
        )
        rows += [
            _clone_row(clones.factory, kind, runs)
            for kind, runs in clones.runs.items()
            if kind.target == target
        ]
    return rows


def _clone_row(factory: CloneFactory, kind: CloneKind, runs: Sequence[Run]) -> NoseRow:
    estimates = [factory.people(run, kind.target) for run in runs]
    people_errors = [estimate for estimate in estimates if estimate is not None]
    return NoseRow(
        name=f"clone {kind.start.name}",
        net=runs[0].record.net.name,
        target=kind.target,
        service=pooled([run.record.error for run in runs if run.record.error is not None]),
        people=pooled(people_errors) if people_errors else None,
        parameters=runs[0].record.net.parameters,
        clones=len(runs),
        lr=runs[0].record.config["training"]["lr"],
    )


def _transfers(runs: Mapping[CloneKind, Sequence[Run]]) -> Iterator[NoseTransfer]:
    """Error of each start from a backbone, less that of the same network from scratch."""
    scratch = {
        kind.start.net: kind
        for kind in runs
        if kind.start.backbone is None and kind.target == "nose" and kind.decimals is None
    }
    for kind, started in runs.items():
        if kind.start.backbone is None:
            continue
        apart = [
            run.record.error.value - control.record.error.value
            for run, control in zip(started, runs[scratch[kind.start.net]], strict=True)
            if run.record.error is not None and control.record.error is not None
        ]
        yield NoseTransfer(
            name=kind.start.name, difference=mean_over_seeds(apart, bounds=(-1.0, 1.0))
        )


def _pictures(answers: ServiceAnswers, clones: Clones) -> NosePictures:
    """Some test pictures with the nose by the service, its clones and people."""
    data, test = clones.factory.data["nose"], answers.test
    chosen = np.linspace(0, len(test) - 1, ON_SHOW).round().astype(np.int64)
    rows = test.take(chosen).rows
    pixels = test.images[rows].float().div(255)
    noses = {"the service": _places(data.test.labels[rows])}
    noses["its clone"] = _predictions(clones.shown, pixels)
    people = answers.seen_by_people(TARGETS["nose"])
    if people is not None:
        noses["people"] = _places(people.labels[rows])
    if 1 in clones.rounded:
        noses["a clone of answers with 1 decimal"] = _predictions(clones.rounded[1], pixels)
    return NosePictures(
        pngs=tuple(map(to_png, test.images[rows].numpy())),
        seen=noses,
        epochs=tuple((epoch, _predictions(run, pixels)) for epoch, run in snapshots(clones.shown)),
    )


@torch.no_grad()
def _predictions(run: Run, pixels: torch.Tensor) -> NosePlaces:
    return _places(run.network.cpu()(pixels))


def _places(values: torch.Tensor) -> NosePlaces:
    # Of a loaded network the last bits differ; the figures need no more than a pixel.
    return tuple((round(x, 4), round(y, 4)) for x, y in values.tolist())
