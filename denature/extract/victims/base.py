"""The interface of a victim: one small class implements it for each kind of service."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from denature.answers.kinds import AnswerKind

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class VictimInfo:
    """Description of a victim before any query; unknown fields are None."""

    target: str
    """Identity of the victim; answers of one target are never used for another."""
    options: dict[str, str] = field(default_factory=dict)
    """Settings of the queries that change the answers."""
    kind: AnswerKind | None = None
    classes: int | None = None
    names: tuple[str, ...] = ()
    """Names of an answer's numbers, such as `nose.x`, or of classes, where the victim has them."""
    unread: str | None = None
    """The victim's names as an excerpt, where their form is not known."""
    order: tuple[int, ...] | None = None
    """For each wanted class its index among the victim's, where the victim's order differs."""
    channels: int | None = None
    image_size: int | None = None
    most: int | None = None
    """Images in one request at most."""
    hides: bool = True
    """Whether answers may show different numbers of scores. A function or a file shows all scores,
    or hides as many in each answer: otherwise NaN is a fault of the model."""


def run_now(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, also for a caller inside a running event loop, as in notebooks."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


class Victim(Protocol):
    """A model that answers batches of images; a context that is entered before any query."""

    async def __aenter__(self) -> Self:
        """Connect."""

    async def __aexit__(self, *error: object) -> None:
        """Close the connections."""

    async def about(self) -> VictimInfo:
        """Obtain the description without a query."""

    async def ask(self, images: np.ndarray, *, id: str) -> np.ndarray:
        """Send one request, without retries.

        Args:
            images: uint8, batch x channels x height x width.
            id: identifier of the request, for logs on both sides.

        Returns:
            float32, batch x classes, or int64, batch, for labels. Values that the victim hides,
            such as all but the largest, are NaN.

        Raises:
            AskFailed: the request got no answer.
        """
