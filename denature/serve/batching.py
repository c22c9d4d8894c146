"""Requests of all clients, computed in batches off the event loop, or by another server."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias, TypeVar, final

import numpy as np

from denature.serve.config import ServerLimits
from denature.serve.fair import FairQueue
from denature.serve.refusal import Refused

T = TypeVar("T")

AnswerBatch: TypeAlias = Callable[[list[np.ndarray]], np.ndarray]
"""From the images of several requests to the answers to all images, in order."""

AskBatch: TypeAlias = Callable[[list[np.ndarray]], Awaitable[np.ndarray]]
"""The same in the event loop, where another server computes."""

SLICE = 64
"""Images of a request that are computed without a turn of another caller, at most."""


class _Slice(NamedTuple):
    """Images of a request, its answers so far, and where all of them go in the end."""

    images: np.ndarray
    last: bool
    parts: list[np.ndarray]
    answer: "asyncio.Future[np.ndarray]"
    check: Callable[[], None]
    """Raises `Refused` where the request's client has gone."""


@final
class Batcher:
    """A queue in front of one model; the next batch gathers while the model computes.

    Callers take turns, in slices of their requests. A request whose client has gone is not
    computed, if its batch has not begun. By default batches are answered by one thread, and those
    of one caller in the order in which its requests arrived, so `answer` may have a state.

    Args:
        answer: answers a batch, in a thread.
        limits: of batches and of waiting images.
        ask: answers in the place of `answer`, in the event loop, `at_once` requests at one time,
            each as a batch of its own, as another server should get them.
        at_once: see `ask`; by default batches are gathered, and answered one after another.
    """

    def __init__(
        self,
        answer: AnswerBatch,
        limits: ServerLimits,
        *,
        ask: AskBatch | None = None,
        at_once: int | None = None,
    ) -> None:
        self._answer, self._ask = answer, ask
        self._limits = limits
        self._most = 1 if at_once else limits.max_batch
        self._slice = limits.max_images if at_once else min(SLICE, limits.max_batch)
        self._line: FairQueue[_Slice] = FairQueue(credit=limits.max_images)
        self._waiting: Counter[str] = Counter()
        self._at_once = at_once or 1
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="answers")

    def check_room(self, caller: str, images: int = 1) -> None:
        """Check that images of a caller may wait, which is known before its body is read.

        Raises:
            Refused: with 503, when too many images of this caller wait already.
        """
        if self._waiting[caller] + images > self._limits.max_waiting:
            raise Refused(503, "Too many requests wait already; retry later.", retry_after=1)

    @contextmanager
    def room(self, images: int, caller: str) -> Iterator[None]:
        """Room for this many more images of a caller, before its key is charged for them.

        Raises:
            Refused: with 503, when too many images of this caller wait already.
        """
        self.check_room(caller, images)
        self._waiting[caller] += images
        try:
            yield
        finally:
            self._waiting[caller] -= images
            if not self._waiting[caller]:
                del self._waiting[caller]

    async def ask(
        self, images: np.ndarray, caller: str = "", check: Callable[[], None] = lambda: None
    ) -> np.ndarray:
        """The answers to one request's images, for which there must be room.

        Args:
            images: batch x channels x height x width.
            caller: whose turn it takes.
            check: raises `Refused`, before a batch begins, where the client has gone.
        """
        answer: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        parts: list[np.ndarray] = []
        for start in range(0, len(images), self._slice):
            end = start + self._slice
            part = _Slice(images[start:end], end >= len(images), parts, answer, check)
            self._line.push(caller, len(part.images), part)
        if len(self._tasks) < self._at_once:
            self._tasks.add(asyncio.create_task(self._work()))
        return await answer

    async def _work(self) -> None:
        """Answer until no request waits; the next request starts such a task again."""
        try:
            while self._line:
                if self._limits.window_ms:
                    await asyncio.sleep(self._limits.window_ms / 1000)
                if batch := self._next():
                    await self._answer_all(batch)
        finally:
            # At once, and not when the loop learns that the task is done: a request that comes
            # between would wait for ever.
            task = asyncio.current_task()
            assert task is not None
            self._tasks.discard(task)

    async def _answer_all(self, batch: list[_Slice]) -> None:
        """Answer a batch; if it fails, each of its requests alone, so that others are answered."""
        images = [part.images for part in batch]
        try:
            values = await self._values(images)
        except Exception as error:
            if len({id(part.answer) for part in batch}) > 1:
                for part in batch:
                    if not part.answer.done():
                        await self._answer_all([part])
                return
            for part in batch:
                if not part.answer.done():
                    part.answer.set_exception(error)
        else:
            _hand_out(batch, values)

    async def _values(self, images: list[np.ndarray]) -> np.ndarray:
        if self._ask is not None:
            return await self._ask(images)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._answer, images)

    async def between(self, work: Callable[[], T]) -> T:
        """Do work in a thread that answers, where there is one between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _next(self) -> list[_Slice]:
        batch: list[_Slice] = []
        count = 0
        while self._line:
            if batch and count + len(self._line.peek().images) > self._most:
                break
            part = self._line.pop()
            if part.answer.done():  # an earlier part failed
                continue
            try:
                part.check()
            except Refused as gone:
                part.answer.set_exception(gone)
                continue
            batch.append(part)
            count += len(part.images)
        return batch

    def close(self) -> None:
        self._threads.shutdown()


def _hand_out(batch: list[_Slice], values: np.ndarray) -> None:
    """Give the answers of a batch to its requests."""
    start = 0
    for part in batch:
        end = start + len(part.images)
        part.parts.append(values[start:end])
        if part.last and not part.answer.done():
            part.answer.set_result(
                part.parts[0] if len(part.parts) == 1 else np.concatenate(part.parts)
            )
        start = end
