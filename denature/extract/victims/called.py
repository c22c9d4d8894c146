"""A function of one's own as a victim: any API is a few lines."""

import asyncio
from collections.abc import Callable
from typing import Self, final

import numpy as np

from denature.answers.sources import Kind
from denature.core.errors import ConfigError
from denature.extract.victims.base import AskFailed, VictimInfo

Function = Callable[[np.ndarray], np.ndarray]
"""From float32 images in [0, 1], batch x channels x height x width, to answers: batch x classes, or
labels, batch. What ART's `BlackBoxClassifier` takes is one."""


@final
class FunctionVictim:
    """A plain function, called in threads, so several calls may run at once.

    Args:
        function: see `Function`; it may raise `AskFailed` to be called again. Anything else that it
            raises ends the harvest, and counts as asked.
        name: by which its answers are known; those of one name are never asked for again.
        kind: of its answers, if that is known.
        channels: that it takes; None for those of the pool.
        image_size: that it takes; None for that of the pool.
        most: images in one call.
        names: of the numbers of an answer, or of classes, where they have some.
    """

    def __init__(
        self,
        function: Function,
        *,
        name: str,
        kind: Kind | None = None,
        channels: int | None = None,
        image_size: int | None = None,
        most: int | None = None,
        names: tuple[str, ...] = (),
    ) -> None:
        self._function = function
        self._about = VictimInfo(
            target=name,
            kind=kind,
            channels=channels,
            image_size=image_size,
            most=most,
            names=names,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def about(self) -> VictimInfo:
        return self._about

    def _call(self, images: np.ndarray) -> np.ndarray:
        try:
            return self._function(images.astype(np.float32) / 255)
        except StopIteration as error:  # no future can hold one: its caller would hang
            raise RuntimeError("StopIteration") from error

    async def ask(self, images: np.ndarray, *, id: str) -> np.ndarray:
        try:
            values = np.asarray(await asyncio.to_thread(self._call, images))
        except AskFailed:
            raise
        except Exception as error:  # somebody else's function may raise anything
            raise AskFailed(
                f"{self._about.target} failed: {type(error).__name__}: {error}",
                again=False,
                billed=True,
            ) from error
        whole = np.issubdtype(values.dtype, np.integer)
        if values.ndim == 1 and whole:
            return values.astype(np.int64)
        if values.ndim == 2 and np.issubdtype(values.dtype, np.floating):
            return values.astype(np.float32)
        raise ConfigError(
            f"{self._about.target} answered {values.dtype} of the shape {values.shape}; wanted are "
            "floats, batch x classes, or whole numbers, batch."
        )
