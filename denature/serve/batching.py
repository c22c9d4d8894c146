"""Requests of all clients, computed in batches off the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias, TypeVar, final

import numpy as np

from denature.serve.config import Limits
from denature.serve.refusal import Refused

T = TypeVar("T")

AnswerBatch: TypeAlias = Callable[[list[np.ndarray]], np.ndarray]
"""From the images of several requests to the answers to all images, in order."""


@final
class Batcher:
    """A queue in front of one network; the next batch gathers while the network computes.

    A request whose client disconnects is not computed, if its batch has not begun. Batches are
    answered by one thread, in the order in which their requests arrived, so `answer` may have a
    state.
    """

    def __init__(self, answer: AnswerBatch, limits: Limits) -> None:
        self._answer = answer
        self._limits = limits
        self._line: deque[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = deque()
        self._waiting = 0
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="answers")

    def admit(self, images: int) -> None:
        """Check that this many more images may wait, before a key is charged for them.

        Raises:
            Refused: with 503, when too many images wait already.
        """
        if self._waiting + images > self._limits.max_waiting:
            raise Refused(503, "Too many requests wait already; retry later.", retry_after=1)

    async def ask(self, images: np.ndarray) -> np.ndarray:
        """The answers to one request's images.

        Raises:
            Refused: with 503, when too many images wait already.
        """
        self.admit(len(images))
        answer: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._line.append((images, answer))
        self._waiting += len(images)
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        try:
            return await answer
        finally:
            self._waiting -= len(images)

    async def _work(self) -> None:
        """Answer until no request waits; the next request starts this task again."""
        loop = asyncio.get_running_loop()
        try:
            while self._line:
                if self._limits.window_ms:
                    await asyncio.sleep(self._limits.window_ms / 1000)
                batch = self._next()
                if not batch:
                    continue
                images = [images for images, _ in batch]
                try:
                    values = await loop.run_in_executor(self._thread, self._answer, images)
                except Exception as error:
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                    continue
                start = 0
                for part, future in batch:
                    if not future.done():
                        future.set_result(values[start : start + len(part)])
                    start += len(part)
        finally:
            self._task = None

    async def between(self, work: Callable[[], T]) -> T:
        """Do work in the thread that answers, between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _next(self) -> list[tuple[np.ndarray, asyncio.Future[np.ndarray]]]:
        batch: list[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = []
        count = 0
        while self._line:
            images, future = self._line[0]
            if batch and count + len(images) > self._limits.max_batch:
                break
            self._line.popleft()
            if not future.done():  # its client disconnected
                batch.append((images, future))
                count += len(images)
        return batch

    def close(self) -> None:
        self._thread.shutdown()
