"""Compare the class names of two sides: equal, equal in another order, or different.

Indices mean nothing without names: two data sets of the same classes may number them differently,
as folders sorted by name ("0", "1", "10", "2") and labels in an array (0, 1, 2, 10) do.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from denature.core.errors import ConfigError, brief

SHOWN = 3
"""Names of each side that a message shows."""


class Alignment(NamedTuple):
    """Permutation that brings answers of one side into the class order of the other."""

    order: tuple[int, ...] | None
    """Position of each wanted class among the present ones; None where no class moves."""
    note: str | None
    """Message for the user, such as that names could not be compared; None without one."""


def align(
    present: Sequence[str] | None, wanted: Sequence[str], *, model: str, data: str
) -> Alignment:
    """Compare the class names of a network with those of the data that it answers.

    Letter case, leading zeros, spaces, hyphens, underscores and the Unicode form of accents do not
    distinguish names. Where one side has no names, or only the default numbers of labels, no
    comparison is possible: classes are matched by number, and the note says so.

    Args:
        present: class names of the answers, in their order; None where they are unknown.
        wanted: as many class names, in the wanted order.
        model: name of the network, for messages.
        data: the other side, for messages.

    Raises:
        ConfigError: different names, or duplicate names in another order.
    """
    if present is None or _are_numbers(present) != _are_numbers(wanted):
        if present is None and _counted(wanted):
            return Alignment(None, None)
        if present is None or _counted(present) or _counted(wanted):
            return Alignment(None, _unnamed(present, wanted, model, data))
    if tuple(present) == tuple(wanted):
        return Alignment(None, None)
    wanted_keys, present_keys = _keys(wanted), _keys(present)
    if len({*wanted_keys}) < len(wanted_keys) or len({*present_keys}) < len(present_keys):
        # Spellings that distinguish classes, such as A and a in EMNIST.
        wanted_keys, present_keys = [*map(composed, wanted)], [*map(composed, present)]
    if wanted_keys == present_keys:
        return Alignment(None, None)
    if sorted(wanted_keys) != sorted(present_keys):
        raise ConfigError(
            f"{model} has other classes than {data}: {_listed(present, wanted)} there, "
            f"{_listed(wanted, present)} here. Use data of the network's classes, or rename the "
            "classes of one side."
        )
    if len(set(wanted_keys)) < len(wanted_keys):
        keyed = zip(wanted, wanted_keys, strict=True)
        duplicate = next(name for name, key in keyed if wanted_keys.count(key) > 1)
        raise ConfigError(
            f"{model} has the classes of {data} in another order, and several are called "
            f"{duplicate!r}. Give each class a name of its own."
        )
    order = tuple(present_keys.index(key) for key in wanted_keys)
    return Alignment(
        order,
        f"{model} has the classes of {data} in another order ({brief(present, SHOWN)} there, "
        f"{brief(wanted, SHOWN)} here); its answers are reordered to match the data.",
    )


def composed(name: str) -> str:
    """A name in composed Unicode (NFC), the form of all comparisons: letters with their accents."""
    return unicodedata.normalize("NFC", name)


def _keys(names: Sequence[str]) -> list[str]:
    """Keys that are equal for all spellings of a name."""
    words = [re.sub(r"[\s_-]+", " ", composed(name)).strip().casefold() for name in names]
    return [re.sub(r"^0+(?=[0-9])", "", word) if _is_number(word) else word for word in words]


def _is_number(name: str) -> bool:
    """Whether a name is a number, or a coordinate of a numbered point, such as `30.x`."""
    return re.fullmatch(r"[0-9]+(\.[xy])?", name) is not None


def _are_numbers(names: Sequence[str]) -> bool:
    return all(map(_is_number, names))


def _counted(names: Sequence[str]) -> bool:
    """Whether these are the default names of classes or points: their numbers."""
    plain = [str(number) for number in range(len(names))]
    points = [f"{number}.{axis}" for number in range(len(names) // 2) for axis in "xy"]
    return list(names) in (plain, points)


def _unnamed(present: Sequence[str] | None, wanted: Sequence[str], model: str, data: str) -> str:
    names = "no class names" if present is None else f"the class names {brief(present, SHOWN)}"
    return (
        f"{model} has {names}, {data} has {brief(wanted, SHOWN)}: names cannot be compared, so "
        "classes are matched by number. Check that both sides number their classes alike."
    )


def _listed(names: Sequence[str], others: Sequence[str]) -> str:
    """A few of the names, starting with those that the other side lacks."""
    known = {*_keys(others)}
    lacking = [name for name, key in zip(names, _keys(names), strict=True) if key not in known]
    return brief([*lacking, *(name for name in names if name not in lacking)], SHOWN)
