"""denature mark: pictures with what models found in them."""

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
"""Milliseconds that an animation shows a snapshot."""


def mark(
    *images: Path,
    model: tuple[str, ...],
    out: Path,
    animate: Annotated[bool, Parameter(negative="")] = False,
    key_file: Path | None = None,
    endpoint_url: str | None = None,
    trust: Trust = (),
    showing: OutputFlags = OutputOptions(),
) -> None:
    """Draw into pictures what models found there: a cross on the nose, points elsewhere.

    Args:
        images: Image files of any size, or folders of them.
        model: Who is asked, once for each, in a colour of its own: the folder of a run that knows
            places; the URL of a server, or of one of its models, as in
            http://localhost:8000/v2/models/NAME; or rekognition. Each picture is a query.
        out: Folder for the marked pictures.
        animate: Make an animation of each picture too, over the snapshots that runs kept, see
            `--keep-every` of `denature train`.
        key_file: A file with the key for servers; by default the environment's DENATURE_KEY.
        endpoint_url: Of rekognition, who answers in its place.
        trust: A module of your own that a run's record may import.
    """
    from denature.extract.locating import locate, open_picture
    from denature.extract.victims.find import REKOGNITION, find
    from denature.report.marks import COLOURS, Mark, marked

    files = _files(images)
    if not 1 <= len(model) <= len(COLOURS):
        raise ConfigError(f"{len(model)} models were named; wanted are 1 to {len(COLOURS)}.")
    pictures, display = [open_picture(file) for file in files], showing.display()
    found: dict[str, list[Places]] = {}
    for target in model:
        victim = find(
            target,
            key=key_of(key_file) if re.match("https?:", target) else None,
            endpoint_url=endpoint_url if target == REKOGNITION else None,
            trust=trust,
        )
        found[target] = locate(victim, pictures, progress=display)
    colours = dict(zip(found, COLOURS, strict=False))
    names = _names(files)
    out.mkdir(parents=True, exist_ok=True)
    for number, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        marks = [Mark(who, colours[who], places[number]) for who, places in found.items()]
        with atomic_path(out / f"{name}.png") as path:
            marked(picture, marks).save(path, "png")
    if animate:
        _animate(pictures, names, list(found), colours, out, trust, display)
    if showing.json:
        told = {
            str(file): {who: places[number] for who, places in found.items()}
            for number, file in enumerate(files)
        }
        print(json.dumps(told))
        return
    for name in names:
        print(out / f"{name}.{'gif' if animate else 'png'}")


def _files(images: Sequence[Path]) -> list[Path]:
    """The files that are named, and those in folders that are."""
    from denature.data.listing import IMAGE_SUFFIXES, list_folder

    files: list[Path] = []
    for place in images:
        files += list_folder(place, IMAGE_SUFFIXES)[0].files if place.is_dir() else [place]
    if not files:
        raise ConfigError("No image was named; give files, or folders that hold some.")
    return files


def _names(files: Sequence[Path]) -> list[str]:
    """What to call the marked pictures: as their files, with a number where two are alike."""
    names: list[str] = []
    for file in files:
        count = sum(name == file.stem or name.startswith(f"{file.stem}-") for name in names)
        names.append(f"{file.stem}-{count + 1}" if file.stem in names else file.stem)
    return names


def _animate(
    pictures: "Sequence[Image]",
    names: Sequence[str],
    folders: Sequence[str],
    colours: Mapping[str, str],
    out: Path,
    trust: Sequence[str],
    progress: "Progress",
) -> None:
    """A GIF of each picture: what each run would have found after each epoch that was kept."""
    from denature.extract.locating import locate
    from denature.extract.victims.local import local
    from denature.report.marks import Mark, marked
    from denature.train.run import load_run, snapshots

    runs = {it: load_run(it, trust=trust) for it in folders if Path(it).is_dir()}
    told = {
        who: [(epoch, locate(local(kept), pictures)) for epoch, kept in snapshots(run)]
        for who, run in runs.items()
    }
    told = {who: kept for who, kept in told.items() if kept}
    if not told:
        raise ConfigError(
            "None of these models kept snapshots; train a run with --keep-every 1 to animate it."
        )
    with progress.task("drawing animations", len(pictures), "pictures") as task:
        for number, (picture, name) in enumerate(zip(pictures, names, strict=True)):
            frames = []
            for steps in zip_longest(*told.values()):
                # Who has fewer snapshots stays at its last one.
                last = [it or kept[-1] for it, kept in zip(steps, told.values(), strict=True)]
                marks = [
                    Mark(f"{who}, epoch {epoch}", colours[who], places[number])
                    for who, (epoch, places) in zip(told, last, strict=True)
                ]
                frames.append(marked(picture, marks))
            with atomic_path(out / f"{name}.gif") as path:
                frames[0].save(path, "gif", save_all=True, append_images=frames[1:],
                               duration=FRAME_MS, loop=0)  # fmt: skip
            task.advance(1)
