"""From the JSON of a reply to answers."""

import math
from collections.abc import Sequence
from typing import Any, final

import jsonpath
import numpy as np

from denature.core.errors import ConfigError
from denature.core.text import line_of
from denature.extract.victims.rest.spec import ReplySpec
from denature.remote.protocol import MOST_CLASSES

PERCENT = "%"

LARGEST = float(np.finfo(np.float32).max)
"""Magnitude of a score at most."""


@final
class ReplyReader:
    """Finds answers in replies.

    Raises:
        ConfigError: a path is none.
    """

    def __init__(self, spec: ReplySpec) -> None:
        self._spec = spec
        self._classes = {name: place for place, name in enumerate(spec.classes)}
        self._each, self._scores, self._names, self._label = (
            _path(name, getattr(spec, name)) for name in ("each", "scores", "names", "label")
        )

    def read(self, reply: Any, *, count: int) -> np.ndarray:
        """The answers to `count` images.

        Returns:
            float32, batch x classes, NaN where a value is not told; or int64, batch, for labels.

        Raises:
            ValueError: the reply has other values than the description says.
        """
        parts = [reply] if self._each is None else self._each.findall(reply)
        if len(parts) != count:
            if self._each is None:
                raise ValueError(f"{count} images need reply.each, which matches a part for each")
            raise ValueError(f"reply.each matches {len(parts)} parts, for {count} images")
        if self._spec.scores is None:
            return np.array([self._class(part) for part in parts], np.int64)
        rows = [self._row(part) for part in parts]
        if len({len(row) for row in rows}) > 1:
            raise ValueError("different numbers of scores for the images of one request")
        return np.array(rows, np.float32)

    def _class(self, part: Any) -> int:
        path, name = (self._label, "label") if self._label is not None else (self._names, "names")
        found = _found(path, part)
        if not found:
            raise ValueError(f"reply.{name} matches nothing")
        return self._place(found[0])

    def _place(self, value: Any) -> int:
        if isinstance(value, str) and value in self._classes:
            return self._classes[value]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        most = len(self._classes) or MOST_CLASSES
        if number and 0 <= value < most and float(value).is_integer():
            return int(value)
        raise ValueError(f"the class {str(value)!r}, which is not in reply.classes")

    def _row(self, part: Any) -> Sequence[float]:
        scores = [_number(value) for value in _found(self._scores, part)]
        if self._names is None:
            wanted = len(self._classes) or len(scores)
            if not scores or len(scores) != wanted or wanted > MOST_CLASSES:
                raise ValueError(f"reply.scores matches {len(scores)} scores, of {wanted} classes")
            return scores
        names = _found(self._names, part)
        if not scores or len(names) != len(scores):
            raise ValueError(f"{len(names)} names for {len(scores)} scores")
        row = [math.nan] * len(self._classes)
        for name, score in zip(names, scores, strict=True):
            place = self._place(str(name))
            if not math.isnan(row[place]):
                raise ValueError(f"the class {str(name)!r} twice")
            row[place] = score
        return row


def _path(name: str, text: str | None) -> Any:
    if text is None:
        return None
    try:
        return jsonpath.compile(text)
    except jsonpath.JSONPathError as error:
        raise ConfigError(
            f"reply.{name} is {text!r}, which is no JSONPath: {line_of(error)}."
        ) from None


def _found(path: Any, part: Any) -> list[Any]:
    """The matches of a path; those of a list or an object are its values."""
    found = path.findall(part)
    if len(found) == 1 and isinstance(found[0], list):
        return list(found[0])
    if len(found) == 1 and isinstance(found[0], dict):
        return list(found[0].values())
    return list(found)


def _number(value: Any) -> float:
    """A score; texts may be percentages, such as 93.1 %."""
    text = value.strip() if isinstance(value, str) else None
    try:
        if text is not None and text.endswith(PERCENT):
            number = float(text.removesuffix(PERCENT)) / 100
        elif isinstance(value, bool):
            raise ValueError
        else:
            number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{str(value)!r}, which is no score") from None
    except OverflowError:  # a whole number of hundreds of digits
        raise ValueError("a score that is not finite") from None
    if not abs(number) <= LARGEST:  # NaN is not either
        raise ValueError(f"the score {value}, which is not finite")
    return number
