"""Networks side by side: how flat their minima are, and how much answers follow the image."""

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
from denature.robust.evaluate import choose
from denature.robust.flatness import Flatness, surface
from denature.robust.flatness import flatness as look_around
from denature.robust.target import Target
from denature.train import Run
from denature.train.classes import ClassMatcher

FEWER = 200
"""Training samples for the surface, which is asked hundreds of times."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlatnessResult:
    """All networks, in the order in which they were named."""

    networks: tuple[Flatness, ...]
    lines: list[list[str]]
    """The table for people: header and lines."""
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
    """Look around the weights of runs, in the same directions, and around the same test images.

    Weights are changed under each run's own training loss, on images that it was trained on.

    Args:
        runs: whose networks.
        data: what they were trained on.
        out: folder for table, figures and page.
        samples: training samples for the weights, and as many test samples for the images, of each
            class its share.
        directions: random ones.
        seed: rules samples and directions.
        trust: modules that the record of a run's teacher may import.
        device: where to compute.
        progress: told how far it is.

    Raises:
        ConfigError: no run, runs of other data, too few samples or directions.
    """
    if not runs:
        raise ConfigError("No run was named; give at least one.")
    if samples < 10 or directions < 2:
        raise ConfigError(
            f"{samples} samples and {directions} directions; wanted are at least 10 and 2."
        )
    dataset = load(data, progress=progress)
    if dataset.landmarks:
        raise ConfigError(
            f"{dataset.config.source} has landmarks; flatness is measured for classes. Take data "
            "with classes."
        )
    tested, _ = _taken(choose(dataset.test, samples, seed))
    shown, fitted = [], ClassMatcher(dataset, progress)
    for named in runs:
        run = fitted("run", named)
        images, labels = _taken(choose(trained_on(run.record, dataset), samples, seed))
        target = Target(run, images, device=device)
        images, labels = images.to(target.device), labels.to(target.device)
        loss = training_loss(run, images, labels, fitted, trust=trust, device=device)
        around = look_around(
            target, images, labels, loss, loss_is=loss.name, tested=tested,
            directions=directions, seed=seed, progress=progress,
        )  # fmt: skip
        places, losses = surface(target, images[:FEWER], loss.first(FEWER), seed=seed)
        shown.append(page.FlatnessEntry(around, places, losses))
    lines = page.table(shown)
    page.write(out, shown, [run.record for run in runs])
    found = FlatnessResult(networks=tuple(it.flatness for it in shown), lines=lines, folder=out)
    write_text(out / "table.md", markdown(lines) + "\n")
    write_text(out / "flatness.json", found.to_json() + "\n")
    return found


def _taken(split: Split) -> tuple[Pixels, Labels]:
    return split.images[split.rows].float().div(255), split.labels[split.rows]
