"""What came out of copying a nose detector: table, curve, pictures, one page."""

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
from denature.extract.pricing import Prices
from denature.extract.speed import Timing
from denature.recipes.nose.clones import CloneFactory, Kind, Trial
from denature.recipes.nose.service_answers import ServiceAnswers
from denature.recipes.nose.settings import TARGETS, Setting
from denature.report import nose as page
from denature.report.words import markdown
from denature.train.run import Run, snapshots

ON_SHOW = 8
"""Test pictures in which marks are drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoseResult:
    """What came out, and where it lies."""

    scale: str
    differs: str
    verdict: tuple[str, ...]
    lines: list[list[str]]
    """The table for people: header and lines."""
    trials: tuple[Trial, ...]
    queries: int
    money: float | None
    folder: Path

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "folder": str(self.folder)})


class Speeds(NamedTuple):
    """Of the clone, in batches of 1 and many, and of the service over its wire."""

    clone: list[Timing]
    service: list[Timing]


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """All that was asked, trained and timed."""

    setting: Setting
    told: ServiceAnswers
    workshop: CloneFactory
    service: Run | None
    """None where the answers are of before."""
    clones: Mapping[Kind, Sequence[Run]]
    trials: Sequence[Trial]
    shown: Run
    """The clone of which pictures are shown."""
    rounded: Mapping[int, Run]
    """By the decimals of its answers a clone of each."""
    speeds: Speeds
    prices: Prices | None


def mean_place(split: Split, train: Split) -> Estimate:
    """The error of who always answers the mean of what he was told."""
    mean = train.labels[train.rows].mean(dim=0)
    errors = (split.labels[split.rows] - mean).abs().mean(dim=1)
    return mean_over_images(errors.tolist())


def _lines(made: Made) -> list[page.NoseRow]:
    told, workshop, service = made.told, made.workshop, made.service
    lines: list[page.NoseRow] = []
    for target, values in TARGETS.items():
        data, people = workshop.data[target], told.seen_by_people(values)
        if service is not None and people is not None:
            own = data.test.labels[data.test.rows]
            errors = (own - people.labels[people.rows]).abs().mean(dim=1)
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
            own_errors = [run.record.error for run in runs if run.record.error is not None]
            seen = [it for run in runs if (it := workshop.people(run, target)) is not None]
            lines.append(
                page.NoseRow(
                    who=f"clone {kind.start.name}",
                    net=runs[0].record.net.name,
                    target=target,
                    service=pooled(own_errors),
                    people=pooled(seen) if seen else None,
                    parameters=runs[0].record.net.parameters,
                    clones=len(runs),
                )
            )
    return lines


def write(out: Path, made: Made) -> NoseResult:
    """Everything that came out, into a folder."""
    told, prices, data = made.told, made.prices, made.workshop.data["nose"]
    money = None if prices is None else prices.cost(told.queries)
    theft = page.NoseTheft(
        who=told.who,
        queries=told.queries,
        answers=len(told.train),
        tests=len(told.test),
        unseen=told.unseen,
        money=money,
        dated="" if prices is None or not prices.as_of else f"{prices.source}, {prices.as_of}",
        clone=made.speeds.clone,
        service=made.speeds.service,
    )
    lines, base = _lines(made), mean_place(data.test, data.train)
    points = [page.PrecisionPoint(it.precision, it.last, it.best, it.people) for it in made.trials]
    records = [run.record for runs in made.clones.values() for run in runs]
    if made.service is not None:
        records.insert(0, made.service.record)
    found = NoseResult(
        scale=made.setting.scale,
        differs=made.setting.differs,
        verdict=tuple(page.verdict(lines, points, base, theft)),
        lines=page.table(lines),
        trials=tuple(made.trials),
        queries=told.queries,
        money=money,
        folder=out,
    )
    page.write(
        out,
        records,
        differs=found.differs,
        said=found.verdict,
        lines=found.lines,
        points=points,
        base=base,
        show=_show(made),
    )
    write_records(out / "records.jsonl", records)
    write_text(out / "table.md", markdown(found.lines) + "\n")
    write_text(out / "result.json", found.to_json() + "\n")
    return found


@torch.no_grad()
def _answers(run: Run, pixels: torch.Tensor) -> np.ndarray:
    found: np.ndarray = run.network.cpu()(pixels).numpy()
    return found


def _show(made: Made) -> page.NosePictures:
    """Some test pictures, and where everybody sees the nose in them."""
    told, data = made.told, made.workshop.data["nose"]
    test = told.test
    chosen = np.linspace(0, len(test) - 1, ON_SHOW).round().astype(np.int64)
    rows = test.take(chosen).rows
    pixels = test.images[rows].float().div(255)
    seen: dict[str, np.ndarray] = {"the service": data.test.labels[rows].numpy()}
    seen["its clone"] = _answers(made.shown, pixels)
    people = told.seen_by_people(TARGETS["nose"])
    if people is not None:
        seen["people"] = people.labels[rows].numpy()
    if 1 in made.rounded:
        seen["a clone of answers with 1 decimal"] = _answers(made.rounded[1], pixels)
    return page.NosePictures(
        pictures=test.images[rows].numpy(),
        seen=seen,
        epochs=[(epoch, _answers(run, pixels)) for epoch, run in snapshots(made.shown)],
    )
