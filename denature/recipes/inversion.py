"""Images from the weights of a run, in files, and the networks that recognise them."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch

from denature.core.compute import resolve
from denature.core.errors import ConfigError
from denature.core.files import atomic_path
from denature.core.progress import SILENT, Progress
from denature.core.stats import Estimate
from denature.core.types import Labels, Pixels
from denature.data.png import to_png
from denature.datafree.config import Inversion
from denature.datafree.deepinversion import agreement, invert
from denature.report import analysis_figures
from denature.report.figures import write_figure
from denature.train.classes import alike
from denature.train.run import Run


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class InversionResult:
    """Images that were reconstructed from a network's weights."""

    images: Path
    """.npz with `x_train`, uint8, n x channels x side x side, and `y_train`, int64."""
    figure: Path
    """.png with a grid of the first images; an .svg lies beside it."""
    count: int
    network: Estimate
    """Share of the images that the network itself assigns to the wanted class."""
    judge: Estimate | None
    """The same share for an independently trained network; None without one."""


def invert_run(
    run: Run,
    config: Inversion,
    *,
    images: int,
    out: Path,
    judge: Run | None = None,
    student: Run | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = SILENT,
) -> InversionResult:
    """Reconstruct images from a run's weights by DeepInversion, and write them.

    Args:
        run: its network needs 2-D batch norms.
        config: steps, learning rate and weights of the terms.
        images: number of images; their classes take turns.
        out: stem of the files.
        judge: an independently trained run that measures the images.
        student: a run whose answers should disagree, where `config.compete_weight` is above 0.
        seed: determines the initial noise.
        device: device of the computation.
        progress: receives the number of steps.

    Raises:
        ConfigError: the options contradict each other, or the runs do not fit each other.
    """
    if images < 1:
        raise ConfigError(f"images is {images}; it must be at least 1.")
    if student is not None and not config.compete_weight:
        raise ConfigError(
            "--student-run is only used where --compete-weight is above 0; give both."
        )
    judge = None if judge is None else alike("judge", judge, run, progress=progress)
    student = None if student is None else alike("student", student, run, progress=progress)
    net, compute = run.record.net, resolve(run.network, device=device, precision="fp32")
    targets = torch.arange(images) % net.classes
    pixels = invert(
        run.network,
        targets,
        config,
        channels=net.channels,
        image_size=net.image_size,
        compute=compute,
        seed=seed,
        student=None if student is None else student.network,
        progress=progress,
    )
    arrays, grid = _write(pixels, targets, run, out)
    return InversionResult(
        images=arrays,
        figure=grid,
        count=images,
        network=agreement(run.network, pixels, targets, compute),
        judge=None if judge is None else agreement(judge.network, pixels, targets, compute),
    )


def _write(pixels: Pixels, targets: Labels, run: Run, out: Path) -> tuple[Path, Path]:
    """Write the images, and a figure of the first two of each of ten classes."""
    arrays, grid = (out.with_name(f"{out.name}{suffix}") for suffix in (".npz", ".png"))
    with atomic_path(arrays) as path, open(path, "wb") as file:
        images = (pixels * 255).round().to(torch.uint8).numpy()
        np.savez_compressed(file, x_train=images, y_train=targets.numpy())
    shown = [to_png(image) for image in images[: 2 * min(10, run.record.net.classes)]]
    title = f"images from the weights of {run.folder or run.record.net.name}"
    write_figure(out, lambda: analysis_figures.images(shown, run.classes, title=title))
    return arrays, grid
