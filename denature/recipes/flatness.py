"""Compare networks by the flatness of their minima and by their sensitivity to the image."""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from denature.core.errors import ConfigError
from denature.core.files import write_text
from denature.core.progress import SILENT, Progress
from denature.core.types import Labels, Pixels
from denature.data import DataConfig, load
from denature.data.dataset import Split
from denature.recipes.training_loss import trained_on, training_loss
from denature.report import flatness as page
from denature.report.words import markdown
from denature.robust.evaluation import choose
from denature.robust.flatness import Flatness, surface
from denature.robust.flatness import flatness as look_around
from denature.robust.target import Target
from denature.train import Run
from denature.train.classes import ClassMatcher

FEWER = 200
"""Training samples for the loss surface, which takes hundreds of evaluations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlatnessResult:
    """Flatness of all networks, in the order of the arguments."""

    networks: tuple[Flatness, ...]
    lines: list[list[str]]
    """The printed table: header and rows."""
    folder: Path

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "folder": str(self.folder)}, allow_nan=False)


def flatness(
    runs: Sequence[Run],
    data: str | DataConfig,
    out: Path,
    *,
    samples: int = 500,
    directions: int = 10,
    seed: int = 0,
    trust: Collection[str] = (),
    device: str = "auto",
    progress: Progress = SILENT,
) -> FlatnessResult:
    """Measure flatness around the weights of runs, and sensitivity around the same test images.

    All runs share the random directions. The loss under changed weights is each run's own training
    loss, on images of its training set.

    Args:
        runs: the runs under comparison.
        data: the data set of their training.
        out: folder for table, figures and page.
        samples: training samples for the weights, and as many test samples for the images, of each
            class its share.
        directions: number of random directions.
        seed: seed of samples and directions.
        trust: modules that the record of a run's teacher may import.
        device: where to compute.
        progress: receives progress reports.

    Raises:
        ConfigError: no runs, runs of another data set, or too few samples or directions.
    """
    if not runs:
        raise ConfigError("No run was named; give at least one.")
    if samples < 10 or directions < 2:
        raise ConfigError(
            f"{samples} samples and {directions} directions; at least 10 and 2 are needed."
        )
    dataset = load(data, progress=progress)
    if dataset.landmarks:
        raise ConfigError(
            f"{dataset.config.source} has landmarks; flatness is measured for classes. Take data "
            "with classes."
        )
    tested, _ = _pixels(choose(dataset.test, samples, seed))
    entries, fitted = [], ClassMatcher(dataset, progress)
    for original in runs:
        run = fitted("run", original)
        images, labels = _pixels(choose(trained_on(run.record, dataset), samples, seed))
        target = Target(run, images, device=device)
        images, labels = images.to(target.device), labels.to(target.device)
        loss = training_loss(run, images, labels, fitted, trust=trust, device=device)
        measured = look_around(
            target, images, labels, loss, loss_is=loss.name, tested=tested,
            directions=directions, seed=seed, progress=progress,
        )  # fmt: skip
        coordinates, losses = surface(target, images[:FEWER], loss.first(FEWER), seed=seed)
        entries.append(page.FlatnessEntry(measured, coordinates, losses))
    lines = page.table(entries)
    page.write(out, entries, [run.record for run in runs])
    result = FlatnessResult(
        networks=tuple(entry.flatness for entry in entries), lines=lines, folder=out
    )
    write_text(out / "table.md", markdown(lines) + "\n")
    write_text(out / "flatness.json", result.to_json() + "\n")
    return result


def _pixels(split: Split) -> tuple[Pixels, Labels]:
    return split.images[split.rows].float().div(255), split.labels[split.rows]
