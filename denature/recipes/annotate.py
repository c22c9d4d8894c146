"""Pictures with the landmarks that models find in them, and their animation over a training."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, final

from denature.core.errors import ConfigError
from denature.core.files import atomic_path
from denature.core.progress import SILENT, Progress
from denature.extract.locating import Places, locate, open_picture
from denature.extract.victims.base import Victim
from denature.extract.victims.local import local
from denature.report.marks import COLOURS, Mark, marked
from denature.train.run import Run, snapshots

if TYPE_CHECKING:
    from PIL.Image import Image

FRAME_MS = 400
"""Milliseconds for which an animation shows one snapshot."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class LocatedPictures:
    """Pictures, and the landmarks that each model found in them."""

    files: list[Path]
    names: list[str]
    """Stems of the marked files, all different."""
    pictures: "list[Image]"
    places: dict[str, list[Places]]
    """By model, in the order of the pictures."""

    def colour(self, model: str) -> str:
        """The colour of a model's marks."""
        return COLOURS[list(self.places).index(model)]

    def places_by_file(self) -> dict[str, dict[str, Places]]:
        """The landmarks by picture and model."""
        return {
            str(file): {model: places[number] for model, places in self.places.items()}
            for number, file in enumerate(self.files)
        }


def locate_all(
    files: Sequence[Path], models: Mapping[str, Victim], *, progress: Progress = SILENT
) -> LocatedPictures:
    """Query each model with each picture once.

    Args:
        files: image files.
        models: victims that answer with landmarks, by the name that legends show.
        progress: receives the number of pictures.

    Raises:
        ConfigError: there are more models than colours, or a model knows no landmarks.
        DataError: a file is no readable picture.
        AskFailed: a model does not answer.
    """
    if not 1 <= len(models) <= len(COLOURS):
        raise ConfigError(f"{len(models)} models were given; wanted are 1 to {len(COLOURS)}.")
    pictures = [open_picture(file) for file in files]
    return LocatedPictures(
        files=list(files),
        names=distinct_names(files),
        pictures=pictures,
        places={
            name: locate(victim, pictures, progress=progress) for name, victim in models.items()
        },
    )


def distinct_names(files: Sequence[Path]) -> list[str]:
    """The stems of files, with a number where two are equal."""
    names: list[str] = []
    for file in files:
        numbered = (f"{file.stem}-{number}" for number in itertools.count(2))
        names.append(next(n for n in itertools.chain([file.stem], numbered) if n not in names))
    return names


def write_marked(located: LocatedPictures, out: Path) -> None:
    """Write each picture with the marks of all models to `out`/NAME.png."""
    out.mkdir(parents=True, exist_ok=True)
    for number, (picture, name) in enumerate(zip(located.pictures, located.names, strict=True)):
        marks = [
            Mark(model, located.colour(model), places[number])
            for model, places in located.places.items()
        ]
        with atomic_path(out / f"{name}.png") as path:
            marked(picture, marks).save(path, "png")


def write_animations(
    located: LocatedPictures, runs: Mapping[str, Run], out: Path, *, progress: Progress = SILENT
) -> None:
    """Write each picture to `out`/NAME.gif, with a frame for each epoch that has a snapshot.

    Args:
        located: the pictures.
        runs: those of the models that are runs, by the models' names.
        out: folder of the animations.
        progress: receives the number of pictures.

    Raises:
        ConfigError: no run has snapshots.
    """
    frames = _frames(located, runs)
    with progress.task("drawing animations", len(located.names), "pictures") as task:
        for number, (picture, name) in enumerate(zip(located.pictures, located.names, strict=True)):
            drawn = []
            for frame in frames:
                marks = [
                    Mark(f"{model}, epoch {epoch}", located.colour(model), places[number])
                    for model, (epoch, places) in frame.items()
                ]
                drawn.append(marked(picture, marks))
            with atomic_path(out / f"{name}.gif") as path:
                drawn[0].save(path, "gif", save_all=True, append_images=drawn[1:],
                              duration=FRAME_MS, loop=0)  # fmt: skip
            task.advance(1)


def _frames(
    located: LocatedPictures, runs: Mapping[str, Run]
) -> list[dict[str, tuple[int, list[Places]]]]:
    """Epoch and landmarks of each run's snapshot, for each frame."""
    steps = {
        model: [
            (epoch, locate(local(snapshot), located.pictures)) for epoch, snapshot in snapshots(run)
        ]
        for model, run in runs.items()
    }
    steps = {model: found for model, found in steps.items() if found}
    if not steps:
        raise ConfigError(
            "None of these models has snapshots; train a run with --keep-every 1 to animate it."
        )
    # A run with fewer snapshots stays at its last one.
    return [
        {model: step or found[-1] for (model, found), step in zip(steps.items(), row, strict=True)}
        for row in zip_longest(*steps.values())
    ]
