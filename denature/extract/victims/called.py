"""A user's function as a victim, which adapts any API in a few lines."""

import asyncio
from typing import Self, final

import numpy as np

from denature.answers.function import Function, checked
from denature.answers.kinds import AnswerKind
from denature.answers.scaling import PixelScale
from denature.extract.victims.base import VictimInfo
from denature.remote.errors import AskFailed


@final
class FunctionVictim:
    """A plain function, called in threads, so several calls may run at once.

    Args:
        function: see `denature.answers.function.Function`; an `AskFailed` that it raises can
            request a retry. Any other exception ends the harvest, and counts as a query.
        name: identity of the victim; stored answers of one name are never queried again.
        kind: kind of the answers, if known.
        channels: channels of its input; None for those of the pool.
        image_size: pixels a side of its input; None for those of the pool.
        most: images in one call at most.
        names: names of an answer's numbers, or of classes, if there are any.
        pixels: numbers that the function takes in place of pixels in [0, 1].
        hides: see `VictimInfo.hides`.
    """

    def __init__(
        self,
        function: Function,
        *,
        name: str,
        kind: AnswerKind | None = None,
        channels: int | None = None,
        image_size: int | None = None,
        most: int | None = None,
        names: tuple[str, ...] = (),
        pixels: PixelScale | None = None,
        hides: bool = False,
    ) -> None:
        self._function, self._pixels = function, pixels or PixelScale()
        self._about = VictimInfo(
            target=name,
            options=self._pixels.options,
            kind=kind,
            channels=channels,
            image_size=image_size,
            most=most,
            names=names,
            hides=hides,
        )

    @property
    def target(self) -> str:
        """Identity of the victim."""
        return self._about.target

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def about(self) -> VictimInfo:
        return self._about

    def _call(self, images: np.ndarray) -> np.ndarray:
        try:
            return self._function(self._pixels(images))
        except StopIteration as error:  # a future cannot hold one: its caller would hang
            raise RuntimeError("StopIteration") from error

    async def ask(self, images: np.ndarray, *, id: str) -> np.ndarray:
        try:
            values = np.asarray(await asyncio.to_thread(self._call, images))
        except AskFailed:
            raise
        except Exception as error:  # a user's function may raise any exception
            raise AskFailed(
                f"{self._about.target} failed: {type(error).__name__}: {error}",
                again=False,
                billed=True,
            ) from error
        return checked(values, name=self._about.target)
