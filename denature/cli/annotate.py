"""denature mark: pictures with the landmarks that models find in them."""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from denature.cli.options import OutputFlags, OutputOptions, Trust, key_of
from denature.core.errors import ConfigError
from denature.core.files import atomic_path

if TYPE_CHECKING:
    from PIL.Image import Image

    from denature.core.progress import Progress
    from denature.extract.locating import Places

FRAME_MS = 400
"""Milliseconds for which an animation shows one snapshot."""


def mark(
    *images: Path,
    model: tuple[str, ...],
    out: Path,
    animate: Annotated[bool, Parameter(negative="")] = False,
    key_file: Path | None = None,
    endpoint_url: str | None = None,
    trust: Trust = (),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Draw the landmarks that models find into pictures: a cross on the nose, points elsewhere.

    Args:
        images: Image files of any size, or folders of image files.
        model: A model to query; repeat the option for several, each drawn in a colour of its own:
            the folder of a run trained on landmarks; the URL of a server, or of one of its models,
            as in http://localhost:8000/v2/models/NAME; or rekognition. Each picture is a query.
        out: Folder for the marked pictures.
        animate: Also make an animation of each picture from the snapshots of the runs, see
            `--keep-every` of `denature train`.
        key_file: A file with the key for servers; the environment variable DENATURE_KEY by default.
        endpoint_url: For rekognition: the address of a server to query instead of AWS.
        trust: A module of your own that a run's record may import; repeat the option for several.
    """
    from denature.extract.locating import locate, open_picture
    from denature.extract.victims.find import REKOGNITION, find
    from denature.report.marks import COLOURS, Mark, marked

    files = _files(images)
    if not 1 <= len(model) <= len(COLOURS):
        raise ConfigError(f"{len(model)} models were given; wanted are 1 to {len(COLOURS)}.")
    pictures, display = [open_picture(file) for file in files], output_options.display()
    places_by_model: dict[str, list[Places]] = {}
    for target in model:
        victim = find(
            target,
            key=key_of(key_file) if re.match("https?:", target) else None,
            endpoint_url=endpoint_url if target == REKOGNITION else None,
            trust=trust,
        )
        places_by_model[target] = locate(victim, pictures, progress=display)
    colours = dict(zip(places_by_model, COLOURS, strict=False))
    names = _names(files)
    out.mkdir(parents=True, exist_ok=True)
    for number, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        marks = [
            Mark(target, colours[target], places[number])
            for target, places in places_by_model.items()
        ]
        with atomic_path(out / f"{name}.png") as path:
            marked(picture, marks).save(path, "png")
    if animate:
        _animate(pictures, names, list(places_by_model), colours, out, trust, display)
    if output_options.json:
        places_by_file = {
            str(file): {target: places[number] for target, places in places_by_model.items()}
            for number, file in enumerate(files)
        }
        print(json.dumps(places_by_file))
        return
    for name in names:
        print(out / f"{name}.{'gif' if animate else 'png'}")


def _files(images: Sequence[Path]) -> list[Path]:
    """The given files, and the image files in the given folders."""
    from denature.data.listing import IMAGE_SUFFIXES, list_folder

    files: list[Path] = []
    for path in images:
        files += list_folder(path, IMAGE_SUFFIXES)[0].files if path.is_dir() else [path]
    if not files:
        raise ConfigError("No image was given; pass image files, or folders that hold some.")
    return files


def _names(files: Sequence[Path]) -> list[str]:
    """Names of the marked pictures: those of their files, with a number where two are equal."""
    names: list[str] = []
    for file in files:
        count = sum(name == file.stem or name.startswith(f"{file.stem}-") for name in names)
        names.append(f"{file.stem}-{count + 1}" if file.stem in names else file.stem)
    return names


def _animate(
    pictures: "Sequence[Image]",
    names: Sequence[str],
    targets: Sequence[str],
    colours: Mapping[str, str],
    out: Path,
    trust: Sequence[str],
    progress: "Progress",
) -> None:
    """Write a GIF of each picture: the landmarks of each run at each epoch with a snapshot."""
    from denature.extract.locating import locate
    from denature.extract.victims.local import local
    from denature.report.marks import Mark, marked
    from denature.train.run import load_run, snapshots

    runs = {target: load_run(target, trust=trust) for target in targets if Path(target).is_dir()}
    located = {
        target: [(epoch, locate(local(snapshot), pictures)) for epoch, snapshot in snapshots(run)]
        for target, run in runs.items()
    }
    located = {target: steps for target, steps in located.items() if steps}
    if not located:
        raise ConfigError(
            "None of these models has snapshots; train a run with --keep-every 1 to animate it."
        )
    with progress.task("drawing animations", len(pictures), "pictures") as task:
        for number, (picture, name) in enumerate(zip(pictures, names, strict=True)):
            frames = []
            for row in zip_longest(*located.values()):
                # A run with fewer snapshots stays at its last one.
                shown = [
                    step or steps[-1] for step, steps in zip(row, located.values(), strict=True)
                ]
                marks = [
                    Mark(f"{target}, epoch {epoch}", colours[target], places[number])
                    for target, (epoch, places) in zip(located, shown, strict=True)
                ]
                frames.append(marked(picture, marks))
            with atomic_path(out / f"{name}.gif") as path:
                frames[0].save(path, "gif", save_all=True, append_images=frames[1:],
                               duration=FRAME_MS, loop=0)  # fmt: skip
            task.advance(1)
