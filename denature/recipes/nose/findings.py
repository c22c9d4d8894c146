"""Results of cloning a nose detector: table, curve, pictures and one page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from denature.core.files import write_text
from denature.core.record import write_records
from denature.core.stats import Estimate, mean_over_images, pooled
from denature.data.dataset import Split
from denature.extract.asking.pricing import Prices
from denature.extract.speed import Timing
from denature.recipes.nose.clones import CloneFactory, Kind, Trial
from denature.recipes.nose.service_answers import ServiceAnswers
from denature.recipes.nose.settings import TARGETS, Setting
from denature.report import nose as page
from denature.report.words import markdown
from denature.train.run import Run, snapshots

ON_SHOW = 8
"""Number of test pictures with drawn marks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoseResult:
    """Verdict, table and trials of the experiment, and the folder that holds them."""

    scale: str
    differs: str
    verdict: tuple[str, ...]
    lines: list[list[str]]
    """The printed table: header and rows."""
    trials: tuple[Trial, ...]
    queries: int
    money: float | None
    folder: Path

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "folder": str(self.folder)})


class Speeds(NamedTuple):
    """Speed of the clone, in batches of 1 and more, and of the service over its wire."""

    clone: list[Timing]
    service: list[Timing]


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """All answers, runs and timings of the experiment."""

    setting: Setting
    answers: ServiceAnswers
    factory: CloneFactory
    service: Run | None
    """The network behind the service; None where the answers come from a file."""
    clones: Mapping[Kind, Sequence[Run]]
    trials: Sequence[Trial]
    shown: Run
    """The clone whose predictions are drawn."""
    rounded: Mapping[int, Run]
    """One clone for each precision, by the decimals of its training answers."""
    speeds: Speeds
    prices: Prices | None


def mean_place(split: Split, train: Split) -> Estimate:
    """Error of the constant baseline that predicts the mean training answer."""
    mean = train.labels[train.rows].mean(dim=0)
    errors = (split.labels[split.rows] - mean).abs().mean(dim=1)
    return mean_over_images(errors.tolist())


def _lines(made: Made) -> list[page.NoseRow]:
    answers, factory, service = made.answers, made.factory, made.service
    lines: list[page.NoseRow] = []
    for target, values in TARGETS.items():
        data, people = factory.data[target], answers.seen_by_people(values)
        if service is not None and people is not None:
            predicted = data.test.labels[data.test.rows]
            errors = (predicted - people.labels[people.rows]).abs().mean(dim=1)
            lines.append(
                page.NoseRow(
                    who="the service itself",
                    net=service.record.net.name,
                    target=target,
                    people=mean_over_images(errors.tolist()),
                    parameters=service.record.net.parameters,
                )
            )
        lines.append(
            page.NoseRow(
                who="always the mean place",
                target=target,
                service=mean_place(data.test, data.train),
                people=None if people is None else mean_place(people, data.train),
            )
        )
        for kind, runs in made.clones.items():
            if kind.target != target:
                continue
            service_errors = [run.record.error for run in runs if run.record.error is not None]
            estimates = [factory.people(run, target) for run in runs]
            people_errors = [estimate for estimate in estimates if estimate is not None]
            lines.append(
                page.NoseRow(
                    who=f"clone {kind.start.name}",
                    net=runs[0].record.net.name,
                    target=target,
                    service=pooled(service_errors),
                    people=pooled(people_errors) if people_errors else None,
                    parameters=runs[0].record.net.parameters,
                    clones=len(runs),
                )
            )
    return lines


def write(out: Path, made: Made) -> NoseResult:
    """Write table, figures, records and page into a folder."""
    answers, prices, data = made.answers, made.prices, made.factory.data["nose"]
    money = None if prices is None else prices.cost(answers.queries)
    theft = page.NoseTheft(
        who=answers.who,
        queries=answers.queries,
        answers=len(answers.train),
        tests=len(answers.test),
        unseen=answers.unseen,
        money=money,
        dated="" if prices is None or not prices.as_of else f"{prices.source}, {prices.as_of}",
        clone=made.speeds.clone,
        service=made.speeds.service,
    )
    lines, base = _lines(made), mean_place(data.test, data.train)
    points = [
        page.PrecisionPoint(trial.precision, trial.last, trial.best, trial.people)
        for trial in made.trials
    ]
    records = [run.record for runs in made.clones.values() for run in runs]
    if made.service is not None:
        records.insert(0, made.service.record)
    result = NoseResult(
        scale=made.setting.scale,
        differs=made.setting.differs,
        verdict=tuple(page.verdict(lines, points, base, theft)),
        lines=page.table(lines),
        trials=tuple(made.trials),
        queries=answers.queries,
        money=money,
        folder=out,
    )
    page.write(
        out,
        records,
        differs=result.differs,
        said=result.verdict,
        lines=result.lines,
        points=points,
        base=base,
        show=_show(made),
    )
    write_records(out / "records.jsonl", records)
    write_text(out / "table.md", markdown(result.lines) + "\n")
    write_text(out / "result.json", result.to_json() + "\n")
    return result


@torch.no_grad()
def _predictions(run: Run, pixels: torch.Tensor) -> np.ndarray:
    predictions: np.ndarray = run.network.cpu()(pixels).numpy()
    return predictions


def _show(made: Made) -> page.NosePictures:
    """Some test pictures with the nose by the service, its clones and people."""
    answers, data = made.answers, made.factory.data["nose"]
    test = answers.test
    chosen = np.linspace(0, len(test) - 1, ON_SHOW).round().astype(np.int64)
    rows = test.take(chosen).rows
    pixels = test.images[rows].float().div(255)
    noses: dict[str, np.ndarray] = {"the service": data.test.labels[rows].numpy()}
    noses["its clone"] = _predictions(made.shown, pixels)
    people = answers.seen_by_people(TARGETS["nose"])
    if people is not None:
        noses["people"] = people.labels[rows].numpy()
    if 1 in made.rounded:
        noses["a clone of answers with 1 decimal"] = _predictions(made.rounded[1], pixels)
    return page.NosePictures(
        pictures=test.images[rows].numpy(),
        seen=noses,
        epochs=[(epoch, _predictions(run, pixels)) for epoch, run in snapshots(made.shown)],
    )
