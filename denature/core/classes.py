"""Class names of two sides: the same, the same in another order, or others.

Indices mean nothing without names: two data sets of the same classes may number them differently,
as folders sorted by name ("0", "1", "10", "2") and labels in an array (0, 1, 2, 10) do.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from denature.core.errors import ConfigError

SHOWN = 3
"""Names of each side in a message."""


class Alignment(NamedTuple):
    """How answers of one side become answers in the order of the other."""

    order: tuple[int, ...] | None
    """For each class wanted, its place among those that are there; None where nothing moves."""
    note: str | None
    """What is worth telling, such as that names could not be compared."""


def align(there: Sequence[str] | None, wanted: Sequence[str], *, who: str, data: str) -> Alignment:
    """Compare the class names of a network with those that its answers are wanted for.

    Letter case, leading zeros, spaces, hyphens and underscores do not tell names apart. Where one
    side has no names, or only the numbers that labels have by default, there is nothing to compare:
    classes are taken as they are numbered, and the note says so.

    Args:
        there: names of the answers, in their order; None where they are not known.
        wanted: names in the order that is wanted, as many.
        who: the network, for messages.
        data: the other side, for messages.

    Raises:
        ConfigError: other names, or names that stand for several classes in another order.
    """
    if there is None or _are_numbers(there) != _are_numbers(wanted):
        if there is None and _counted(wanted):
            return Alignment(None, None)
        if there is None or _counted(there) or _counted(wanted):
            return Alignment(None, _unnamed(there, wanted, who, data))
    if tuple(there) == tuple(wanted):
        return Alignment(None, None)
    ours, theirs = _keys(wanted), _keys(there)
    if len({*ours}) < len(ours) or len({*theirs}) < len(theirs):
        ours, theirs = (
            [*map(composed, wanted)],
            [*map(composed, there)],
        )  # such as A and a, two classes of EMNIST
    if ours == theirs:
        return Alignment(None, None)
    if sorted(ours) != sorted(theirs):
        raise ConfigError(
            f"{who} knows other classes than {data}: {_listed(there, wanted)} there, "
            f"{_listed(wanted, there)} here. Take data of its classes, or give the classes of one "
            "side the names of the other."
        )
    if len(set(ours)) < len(ours):
        twice = next(name for name, key in zip(wanted, ours, strict=True) if ours.count(key) > 1)
        raise ConfigError(
            f"{who} knows the classes of {data} in another order, and several are called {twice!r}."
            " Give them names that differ."
        )
    order = tuple(theirs.index(key) for key in ours)
    return Alignment(
        order,
        f"{who} knows the classes of {data} in another order ({_few(there)} there, {_few(wanted)} "
        "here); its answers are put into the order of the data.",
    )


def composed(name: str) -> str:
    """A name in the one form of Unicode that names are compared in: accents in their letters."""
    return unicodedata.normalize("NFC", name)


def _keys(names: Sequence[str]) -> list[str]:
    """What spellings of one name have in common."""
    words = [re.sub(r"[\s_-]+", " ", composed(name)).strip().casefold() for name in names]
    return [re.sub(r"^0+(?=[0-9])", "", word) if _is_number(word) else word for word in words]


def _is_number(name: str) -> bool:
    """Whether a name is a number, or a coordinate of a numbered point, such as `30.x`."""
    return re.fullmatch(r"[0-9]+(\.[xy])?", name) is not None


def _are_numbers(names: Sequence[str]) -> bool:
    return all(map(_is_number, names))


def _counted(names: Sequence[str]) -> bool:
    """Whether these are the names that classes or points have by default: their numbers."""
    plain = [str(number) for number in range(len(names))]
    points = [f"{number}.{axis}" for number in range(len(names) // 2) for axis in "xy"]
    return list(names) in (plain, points)


def _unnamed(there: Sequence[str] | None, wanted: Sequence[str], who: str, data: str) -> str:
    what = "no class names" if there is None else f"the class names {_few(there)}"
    return (
        f"{who} has {what}, {data} has {_few(wanted)}: names cannot be compared, and class 0 of "
        "one is taken for class 0 of the other, and so on. Check that both count alike."
    )


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _listed(names: Sequence[str], others: Sequence[str]) -> str:
    """A few of the names, those first that the other side lacks."""
    known = {*_keys(others)}
    lacking = [name for name, key in zip(names, _keys(names), strict=True) if key not in known]
    return _few([*lacking, *(name for name in names if name not in lacking)])
