"""Shown answers of a service by predicted class, each a codeword for the answers near it."""

import logging
from collections.abc import Mapping
from typing import final

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from denature.core.errors import ConfigError, RunError

MOST = 1 << 24
"""Numbers in a codebook at most, 128 MiB: 1.7 million answers of 10 classes, 17,000 of 1,000."""

LOGGER = logging.getLogger("denature.defenses")


@final
class Codebook:
    """Memory of ModelGuard-S: for each predicted class, codewords in the order of their arrival.

    It grows by one answer in float64 with each answer that is shown exactly, up to `most` numbers.
    A full codebook shows the nearest codeword of the class, however far it is, so that a client
    can neither fill the memory of a server nor make it forget; the released code has no limit. A
    class without a codeword still gets its first one.

    Args:
        most: numbers of all codewords together.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._count = 0
        self._classes: dict[int, _Codewords] = {}
        self._width = 0
        self._full = False

    def __len__(self) -> int:
        """Number of codewords, which is the number of answers that were shown exactly."""
        return self._count

    def quantised(self, answers: Tensor, predicted: Tensor, epsilon: float) -> Tensor:
        """The codewords of answers, one after another; new answers become codewords.

        Args:
            answers: float64, batch x classes, on the CPU.
            predicted: int64, batch.
            epsilon: the largest L1 distance from an answer to its codeword.

        Raises:
            ConfigError: the codebook holds answers of another number of classes.
        """
        width = answers.shape[-1]
        if width != (self._width or width):
            raise ConfigError(
                f"The codebook holds answers of {self._width} classes, but got one of {width}; "
                "start a stream of its own for each model."
            )
        self._width = width
        shown = torch.empty_like(answers)
        target = shown.numpy()
        for place, (row, label) in enumerate(zip(answers.numpy(), predicted.tolist(), strict=True)):
            codewords, full = self._of(label), width * (self._count + 1) > self._most
            before = len(codewords.rows)
            target[place] = codewords.first_within(row, epsilon, full=full)
            self._count += len(codewords.rows) - before
            if full and not self._full:
                self._full = True
                LOGGER.warning(
                    "The codebook of modelguard-s is full with %d answers: from now on answers may "
                    "be further than epsilon from the true ones.",
                    self._count,
                )
        return shown

    def _of(self, label: int) -> "_Codewords":
        if label not in self._classes:
            self._classes[label] = _Codewords(self._width)
        return self._classes[label]

    def state(self) -> dict[str, Tensor]:
        """`codewords`, float64, count x classes, and `predicted`, int64, count."""
        rows = [codewords.rows for codewords in self._classes.values()]
        counts = [len(part) for part in rows]
        return {
            "codewords": torch.from_numpy(np.concatenate([np.empty((0, self._width)), *rows])),
            "predicted": torch.tensor(list(self._classes), dtype=torch.int64).repeat_interleave(
                torch.tensor(counts, dtype=torch.int64)
            ),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned.

        Raises:
            RunError: a tensor is missing or of another shape or type.
        """
        codewords, predicted = tensors.get("codewords"), tensors.get("predicted")
        if (
            codewords is None
            or predicted is None
            or (codewords.ndim, predicted.ndim) != (2, 1)
            or len(codewords) != len(predicted)
            or (codewords.dtype, predicted.dtype) != (torch.float64, torch.int64)
        ):
            raise RunError(
                "The state of a codebook is damaged; wanted are codewords, float64, count x "
                "classes, and their predicted classes, int64, count. Start with an empty one."
            )
        self._classes, self._width = {}, codewords.shape[1]
        for row, label in zip(codewords.cpu().numpy(), predicted.tolist(), strict=True):
            self._of(label).add(row)
        self._count = len(codewords)


class _Codewords:
    """Codewords of one class in an array with room for more."""

    def __init__(self, classes: int) -> None:
        self._array = np.empty((1, classes))
        self._count = 0

    @property
    def rows(self) -> np.ndarray:
        return self._array[: self._count]

    def first_within(self, answer: np.ndarray, epsilon: float, *, full: bool) -> np.ndarray:
        """The oldest codeword within an L1 distance; the answer itself, now one, without any.

        The nearest one in place of a new one where the codebook is `full`.
        """
        apart = cdist(answer[None], self.rows, "cityblock")[0]
        near = np.flatnonzero(apart <= epsilon)
        if len(near):
            codeword: np.ndarray = self._array[near[0]]
            return codeword
        if full and len(apart):
            nearest: np.ndarray = self._array[apart.argmin()]
            return nearest
        self.add(answer)
        return answer

    def add(self, answer: np.ndarray) -> None:
        if self._count == len(self._array):
            self._array = np.concatenate([self._array, np.empty_like(self._array)])
        self._array[self._count] = answer
        self._count += 1
