"""What a thief may ask: one small class for each way of asking."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from denature.answers.sources import Kind
from denature.core.errors import DenatureError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What is known of a victim before it is asked; None for what is not."""

    target: str
    """Who it is: answers of one target are never taken for another's."""
    options: dict[str, str] = field(default_factory=dict)
    """What was asked of it, where that changes its answers."""
    kind: Kind | None = None
    classes: int | None = None
    names: tuple[str, ...] = ()
    """Of the numbers of an answer, such as `nose.x`, or of classes, where it says them."""
    unread: str | None = None
    """What it says in the place of names, where that is in no form that is known."""
    order: tuple[int, ...] | None = None
    """For each class wanted its place among the victim's, where those are in another order."""
    channels: int | None = None
    image_size: int | None = None
    most: int | None = None
    """Images that one request may bring."""


class AskFailed(DenatureError):
    """A request that was not answered.

    Args:
        message: what happened.
        again: whether the same request may be answered later.
        billed: whether it may have been counted or charged.
        wait_s: how long the victim wants us to wait, if it said so.
    """

    def __init__(
        self, message: str, *, again: bool, billed: bool, wait_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.again = again
        self.billed = billed
        self.wait_s = wait_s


def printable(text: str) -> str:
    """What somebody else says, without what a terminal would take for an order."""
    return "".join(c if c.isprintable() else " " for c in text)


def run_now(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, also for a caller who is inside of a loop, as notebooks are."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as aside:
        return aside.submit(asyncio.run, work).result()


class Victim(Protocol):
    """Something that answers batches of images, entered before it is asked."""

    async def __aenter__(self) -> Self:
        """Connect."""

    async def __aexit__(self, *error: object) -> None:
        """Let go of what was opened."""

    async def about(self) -> About:
        """Find out what there is to know without asking."""

    async def ask(self, images: np.ndarray, *, id: str) -> np.ndarray:
        """Send one request, once.

        Args:
            images: uint8, batch x channels x height x width.
            id: of the request, for logs on both sides.

        Returns:
            float32, batch x classes, or int64, batch, for labels. What a victim does not show of
            an answer, such as all but the largest values, is NaN.

        Raises:
            AskFailed: there was no answer.
        """
