"""Networks side by side: how flat their minima are, and how much answers follow the image."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from denature.core.errors import ConfigError
from denature.core.files import write_text
from denature.core.progress import SILENT, Progress
from denature.data import DataConfig, load
from denature.report import flatness as page
from denature.report.words import markdown
from denature.robust.evaluate import choose
from denature.robust.flatness import Flatness, surface
from denature.robust.flatness import flatness as look_around
from denature.robust.target import Target
from denature.train import Run
from denature.train.classes import Fitted

FEWER = 200
"""Samples for the surface, which is asked hundreds of times."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
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
    device: str = "auto",
    progress: Progress = SILENT,
) -> Found:
    """Look around the weights of runs, on the same test samples and in the same directions.

    Args:
        runs: whose networks.
        data: what they were trained on.
        out: folder for table, figures and page.
        samples: test samples, of each class its share.
        directions: random ones.
        seed: rules samples and directions.
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
    split = choose(dataset.test, samples, seed)
    images = split.images[split.rows].float().div(255)
    labels = split.labels[split.rows]
    shown, fitted = [], Fitted(dataset, progress)
    for run in runs:
        target = Target(fitted("run", run), images, device=device)
        around = look_around(
            target, images, labels, directions=directions, seed=seed, progress=progress
        )
        here, these = (it[:FEWER].to(target.device) for it in (images, labels))
        places, losses = surface(target, here, these, seed=seed)
        shown.append(page.Shown(around, places, losses))
    lines = page.table(shown)
    page.write(out, shown, [run.record for run in runs])
    found = Found(networks=tuple(it.flatness for it in shown), lines=lines, folder=out)
    write_text(out / "table.md", markdown(lines) + "\n")
    write_text(out / "flatness.json", found.to_json() + "\n")
    return found
