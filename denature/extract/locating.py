"""Landmark queries about pictures of any size."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from denature.core.errors import ConfigError, DataError
from denature.core.progress import SILENT, Progress
from denature.data.decode import to_array
from denature.data.listing import IMAGE_SUFFIXES, list_folder
from denature.data.pictures import BadImage, open_image
from denature.extract.compatibility import check_side
from denature.extract.victims.base import Victim, run_now

if TYPE_CHECKING:
    from PIL.Image import Image

Places: TypeAlias = Mapping[str, tuple[float, float]]
"""x and y of each point as fractions of width and height; empty where no point was found."""


def picture_files(paths: Sequence[Path]) -> list[Path]:
    """The given files, and the image files in the given folders.

    Raises:
        ConfigError: there is no file.
    """
    files: list[Path] = []
    for path in paths:
        files += list_folder(path, IMAGE_SUFFIXES)[0].files if path.is_dir() else [path]
    if not files:
        raise ConfigError("No image was given; pass image files, or folders that hold some.")
    return files


def open_picture(file: Path) -> "Image":
    """A picture in memory, upright, in colour.

    Raises:
        DataError: the file is no readable picture.
    """
    try:
        return open_image(file).convert("RGB")
    except BadImage as error:
        raise DataError(f"{file} cannot be read as an image: {error}.") from None


def locate(
    victim: Victim, pictures: Sequence["Image"], *, progress: Progress = SILENT
) -> list[Places]:
    """Landmarks that a victim finds in each picture, one query each.

    A network gets each picture stretched to its square input; a service of any size gets it whole.

    Raises:
        ConfigError: the victim does not answer with landmarks.
        AskFailed: the victim does not answer.
    """
    return run_now(_locate(victim, pictures, progress))


async def _locate(victim: Victim, pictures: Sequence["Image"], progress: Progress) -> list[Places]:
    found = []
    async with victim:
        about = await victim.about()
        check_side(about)
        if about.kind != "landmarks":
            raise ConfigError(
                f"{about.target} answers with {about.kind or 'an unknown kind'}; only landmarks "
                "can be marked."
            )
        with progress.task(f"querying {about.target}", len(pictures), "pictures") as task:
            for number, picture in enumerate(pictures):
                if about.image_size is None:
                    image = np.asarray(picture).transpose(2, 0, 1)
                else:
                    array = to_array(
                        picture,
                        channels=about.channels or 3,
                        size=about.image_size,
                        fit=True,
                        stretch=True,
                    )
                    assert array is not None
                    image = array
                [values] = await victim.ask(image[None], id=f"mark-{number}")
                found.append(places_of(about.names, values))
                task.advance(1)
    return found


def places_of(names: Sequence[str], values: np.ndarray) -> Places:
    """The points among an answer's numbers; without names all numbers are coordinates.

    Args:
        names: names of the numbers, such as `nose.x`, `nose.y`, `brightness`.
        values: numbers of one answer.
    """
    if not names:
        names = [f"{number}.{axis}" for number in range(len(values) // 2) for axis in "xy"]
    numbers = dict(zip(names, values.tolist(), strict=True))
    points = dict.fromkeys(name[:-2] for name in names if name.endswith((".x", ".y")))
    places = {point: (numbers[f"{point}.x"], numbers[f"{point}.y"]) for point in points}
    return {point: place for point, place in places.items() if np.isfinite(place).all()}
