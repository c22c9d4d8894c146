"""Landmarks as labels: points of a picture as fractions of its width and height.

A label is x, y of the first point, then of the next, float32. Annotators' 68 points of a face are
in the usual order (Sagonas et al. 2013, 300 Faces in-the-Wild); face services name five places,
which are points of those or means of them.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from denature.core.errors import DataError, unknown

OF_68: Mapping[str, tuple[int, ...]] = {
    "eyeLeft": tuple(range(36, 42)),
    "eyeRight": tuple(range(42, 48)),
    "mouthLeft": (48,),
    "mouthRight": (54,),
    "nose": (30,),
}
"""Places that services name, as means of annotated points; left is the picture's left."""

PLACES = tuple(OF_68)
"""The five places, in the order of a face service's answers."""

WIDEST = 2.0
"""Largest coordinate: a point may lie outside of the picture by one side; more is no fraction."""


def coordinates(label: object, where: str) -> np.ndarray:
    """Convert a cell of numbers to a label.

    Raises:
        DataError: not pairs of finite fractions.
    """
    try:
        values = np.asarray(label, np.float32)
    except (TypeError, ValueError):
        values = np.empty(0, np.float32)
    good = values.ndim == 1 and len(values) > 0 and len(values) % 2 == 0
    if not good or not (np.abs(values - 0.5) <= WIDEST - 0.5).all():  # NaN fails
        raise DataError(
            f"{where}: the landmarks are {str(label)[:60]}; wanted are x0, y0, x1, y1, ... as "
            "fractions of the picture's width and height."
        )
    return values


def names_of(points: Iterable[str]) -> tuple[str, ...]:
    """Names of the coordinates of these points, such as `nose.x`."""
    return tuple(f"{name}.{axis}" for name in points for axis in "xy")


def axes_of(names: Sequence[str]) -> np.ndarray:
    """Indicators of the coordinates along x and along y; float32, 2 x coordinates."""
    rows = [[name.endswith(f".{axis}") for name in names] for axis in "xy"]
    return np.array(rows, np.float32)


def places_of(count: int, names: Sequence[str] = ()) -> Mapping[str, tuple[int, ...]]:
    """The points that can be selected from `count` annotated ones, as means of those.

    Args:
        count: number of annotated points.
        names: names of the points, where the source has them; else the points are numbered. For 68
            points the five places are known too.
    """
    names = names or [str(number) for number in range(count)]
    places = {name: (number,) for number, name in enumerate(names)}
    return {**places, **OF_68} if count == 68 else places


def select_points(
    labels: np.ndarray, points: Sequence[str], known: Mapping[str, tuple[int, ...]]
) -> np.ndarray:
    """Labels of the named points; all labels where no point is named.

    Args:
        labels: n x 2 points.
        points: names of the points to keep.
        known: see `places_of`.

    Raises:
        ConfigError: a point is unknown.
    """
    if not points:
        return labels
    for point in points:
        if point not in known:
            raise unknown("landmark", point, known)
    places = labels.reshape(len(labels), -1, 2)
    chosen = [places[:, list(known[point])].mean(axis=1) for point in points]
    return np.concatenate(chosen, axis=1).astype(np.float32)
