"""Landmarks as labels: points of a picture as fractions of its width and height.

A label is x, y of the first point, then of the next, float32. Annotators' 68 points of a face are
in the usual order (Sagonas et al. 2013, 300 Faces in-the-Wild); face services name five places,
which are points of those or means of them.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from denature.core.errors import DataError, unknown

OF_68: Mapping[str, tuple[int, ...]] = {
    "eyeLeft": tuple(range(36, 42)),
    "eyeRight": tuple(range(42, 48)),
    "mouthLeft": (48,),
    "mouthRight": (54,),
    "nose": (30,),
}
"""What services name, as the mean of annotated points; left is the picture's left."""

PLACES = tuple(OF_68)
"""The five places, in the order in which a face service tells them."""

WIDEST = 2.0
"""A point may lie outside of the picture, but by less than a picture; else it is no fraction."""


def coordinates(label: object, where: str) -> np.ndarray:
    """A cell of numbers as a label.

    Raises:
        DataError: not pairs of finite fractions.
    """
    try:
        values = np.asarray(label, np.float32)
    except (TypeError, ValueError):
        values = np.empty(0, np.float32)
    good = values.ndim == 1 and len(values) > 0 and len(values) % 2 == 0
    if not good or not (np.abs(values - 0.5) <= WIDEST - 0.5).all():  # NaN is not
        raise DataError(
            f"{where}: the landmarks are {str(label)[:60]}; wanted are x0, y0, x1, y1, ... as "
            "fractions of the picture's width and height."
        )
    return values


def names_of(values: int, points: Sequence[str]) -> tuple[str, ...]:
    """The names of a label's numbers, once `points` are chosen of `values` numbers."""
    names = points or [str(number) for number in range(values // 2)]
    return tuple(f"{name}.{axis}" for name in names for axis in "xy")


def choose(labels: np.ndarray, points: Sequence[str]) -> np.ndarray:
    """The labels of some points; of all where none is named.

    Args:
        labels: n x 2 points.
        points: names of places, or numbers of points from 0.

    Raises:
        ConfigError: there is no such point, or a name where there are not 68 points.
    """
    if not points:
        return labels
    count = labels.shape[1] // 2
    known: dict[str, tuple[int, ...]] = {str(number): (number,) for number in range(count)}
    if count == 68:
        known.update(OF_68)
    for point in points:
        if point not in known:
            raise unknown("landmark", point, known)
    places = labels.reshape(len(labels), count, 2)
    chosen = [places[:, list(known[point])].mean(axis=1) for point in points]
    return np.concatenate(chosen, axis=1).astype(np.float32)
