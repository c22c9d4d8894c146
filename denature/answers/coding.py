"""Codings of stored answers: exact, in half precision, or the largest logits only.

A coding first rounds answers, on their device, to values that it can represent; these survive
writing and reading bit for bit. So a student learns the same with and without a store.
"""

from abc import ABC, abstractmethod
from typing import final

import numpy as np
import numpy.typing as npt
import torch

from denature.core.errors import ConfigError
from denature.core.types import Logits

Words = npt.NDArray[np.uint32]
"""Encoded answers, n x words."""

Values = npt.NDArray[np.float32]
"""Answers, n x classes."""


class Coding(ABC):
    """A format that stores the logits of `classes` classes in `words` 32-bit words."""

    words: int

    def __init__(self, classes: int) -> None:
        self.classes = classes

    @abstractmethod
    def round(self, logits: Logits) -> Logits:
        """The nearest logits that this coding can represent."""

    @abstractmethod
    def encode(self, values: Values) -> Words:
        """Encode rounded answers as words."""

    @abstractmethod
    def decode(self, words: Words) -> Values:
        """Decode words to answers."""


@final
class Float32(Coding):
    """float32, bit for bit."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.words = classes

    def round(self, logits: Logits) -> Logits:
        return logits

    def encode(self, values: Values) -> Words:
        return np.ascontiguousarray(values).view(np.uint32)

    def decode(self, words: Words) -> Values:
        return np.ascontiguousarray(words).view(np.float32)


@final
class BFloat16(Coding):
    """bfloat16, the upper half of a float32: bit for bit for logits computed in bfloat16."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.words = -(-classes // 2)

    def round(self, logits: Logits) -> Logits:
        return logits.bfloat16().float()

    def encode(self, values: Values) -> Words:
        halves = np.ascontiguousarray(values).view(np.uint32) >> 16
        return _pack(halves.astype(np.uint16), self.words)

    def decode(self, words: Words) -> Values:
        halves = _unpack(words, self.classes).astype(np.uint32)
        return (halves << 16).view(np.float32)


@final
class Float16(Coding):
    """float16: error at most 2^-11 of a logit, 2^-25 near 0; values are clamped to +-65,504."""

    LIMIT = 65504.0

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.words = -(-classes // 2)

    def round(self, logits: Logits) -> Logits:
        return logits.clamp(-self.LIMIT, self.LIMIT).half().float()

    def encode(self, values: Values) -> Words:
        return _pack(values.astype(np.float16).view(np.uint16), self.words)

    def decode(self, words: Words) -> Values:
        return _unpack(words, self.classes).view(np.float16).astype(np.float32)


@final
class TopKStorage(Coding):
    """The k largest logits exactly, and one common value for all others.

    The common value preserves the total probability of the others at temperature 1, so the k
    probabilities are exact there; at other temperatures the flattened rest shifts them.
    """

    def __init__(self, classes: int, k: int) -> None:
        if k >= classes - 1:
            raise ConfigError(
                f"The storage top-{k} keeps {k} of {classes} classes, which saves nothing. Take "
                f"at most top-{classes - 2}, or fp16."
            )
        if classes > 2**16:
            raise ConfigError(f"top-{k} can number up to 65,536 classes; got {classes:,}.")
        super().__init__(classes)
        self.k = k
        self.words = k + 1 + -(-k // 2)

    def round(self, logits: Logits) -> Logits:
        values, places = logits.topk(self.k, dim=-1)
        others = logits.scatter(-1, places, float("-inf"))
        rest = others.logsumexp(-1, keepdim=True) - float(np.log(self.classes - self.k))
        # The mean of the logits below the k largest lies below them too, except for rounding.
        rest = torch.minimum(rest, values[..., -1:])
        return rest.expand_as(logits).scatter(-1, places, values)

    def encode(self, values: Values) -> Words:
        # The order is free; where the rest equals one of the k, either place is correct.
        places = np.argpartition(values, -self.k, axis=-1)[:, -self.k :]
        largest = np.take_along_axis(values, places, axis=-1)
        rest = values.min(axis=-1, keepdims=True)
        numbers = np.concatenate([largest, rest], axis=-1).astype(np.float32).view(np.uint32)
        return np.concatenate(
            [numbers, _pack(places.astype(np.uint16), self.words - self.k - 1)], axis=-1
        )

    def decode(self, words: Words) -> Values:
        numbers = np.ascontiguousarray(words[:, : self.k + 1]).view(np.float32)
        places = _unpack(np.ascontiguousarray(words[:, self.k + 1 :]), self.k).astype(np.int64)
        values = np.repeat(numbers[:, -1:], self.classes, axis=-1)
        # A torn record may name any class; its checksum does not match, so it is discarded.
        np.put_along_axis(values, places % self.classes, numbers[:, :-1], axis=-1)
        return values


def _pack(halves: npt.NDArray[np.uint16], words: int) -> Words:
    padded = np.zeros((len(halves), 2 * words), np.uint16)
    padded[:, : halves.shape[1]] = halves
    return padded.view(np.uint32)


def _unpack(words: Words, count: int) -> npt.NDArray[np.uint16]:
    return np.ascontiguousarray(words.view(np.uint16)[:, :count])


def coding(storage: str, *, classes: int, dtype: torch.dtype) -> Coding:
    """The coding called `storage`: `exact`, `fp16` or `top-K`.

    Args:
        storage: see `denature.answers.config.InferenceConfig`.
        classes: number of classes in an answer.
        dtype: of the network's logits; `exact` takes 2 bytes a class for bfloat16, else 4.

    Raises:
        ConfigError: K is too large to save space, or classes do not fit in 16 bits.
    """
    if storage == "fp16":
        return Float16(classes)
    if storage.startswith("top-"):
        return TopKStorage(classes, int(storage.removeprefix("top-")))
    return BFloat16(classes) if dtype == torch.bfloat16 else Float32(classes)
