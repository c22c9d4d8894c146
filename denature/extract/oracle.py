"""Asking a victim: many requests at once, each noted before it leaves, none beyond the budget."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np

from denature.answers.sources import Kind
from denature.core.errors import ConfigError, Stopped, needs
from denature.core.progress import SILENT, Progress, Task
from denature.core.stopping import Stopper
from denature.extract.config import Pace
from denature.extract.ledger import BudgetSpent, Ledger, Question
from denature.extract.pool import Pool
from denature.extract.reading import LOOKS, fitting, kind_of
from denature.extract.victims.base import About, AskFailed, Victim, run_now

with needs("steal", "Asking a model within a budget"):
    from aiolimiter import AsyncLimiter
    from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
    from tenacity.wait import wait_random_exponential

Wanted: TypeAlias = tuple[tuple[bytes, int], int]
"""An image's digest and the repeat, and its number in the pool."""

SLICE_S = 0.1
"""Who waits looks up as often, to see whether to stop."""


class Halted(Exception):
    """No more requests are to be sent: there is a wish to stop, or a failure."""


@final
@dataclass(kw_only=True, eq=False)
class Oracle:
    """A victim that may be asked `budget` queries, all of which a ledger keeps.

    Args:
        victim: who answers.
        ledger: where all is written down.
        about: what is known of the victim.
        budget: queries of this purpose, those of earlier calls counted.
        purpose: what is asked for; each purpose has a budget of its own.
        pace: how fast and how stubbornly.
        price: of one query in US dollars; None where nobody knows.
        stopper: asked before each request, and while waiting, whether to stop.
        progress: told how far it is.
    """

    victim: Victim
    ledger: Ledger
    about: About
    budget: int
    purpose: str = "train"
    pace: Pace
    price: float | None = None
    stopper: Stopper
    progress: Progress = SILENT

    def __post_init__(self) -> None:
        self.target = self.ledger.target(self.about)
        said, known = self.about.kind, self.kind
        if said is not None and known is not None and said != known:
            self._say_otherwise(said, known)
        self._failure: BaseException | None = None
        self._divides = False
        self.answered = 0
        """Answers that this process got."""
        self.seconds = 0.0
        """That it took for them."""

    @property
    def left(self) -> int:
        """Queries that the budget still allows."""
        return max(0, self.budget - self.ledger.spent(self.target, self.purpose))

    @property
    def kind(self) -> Kind | None:
        """Of the target's answers; None until that is known."""
        return self.ledger.kind(self.target)

    def _say_otherwise(self, said: Kind, known: Kind) -> None:
        """Take answers that were kept as another kind for what they are said to be, if they may."""
        kept = [row for its in self.ledger.answers(self.target).values() for row in its.values()]
        looks = {kind_of(row if known == "label" else row[None]) for row in kept}
        if not looks <= set(LOOKS[said]):
            raise ConfigError(
                f"{self.about.target} answered {known} before, and is said to answer {said}. Leave "
                "--kind out, or name another --out."
            )
        self.ledger.settle(self.target, said)

    def ask(self, pool: Pool, rows: Sequence[int], *, repeats: int = 1) -> None:
        """Have all these images answered that were not answered before.

        Args:
            pool: of images.
            rows: which of them.
            repeats: how often each.

        Raises:
            BudgetSpent: there are more than the budget allows; those up to it were asked.
            AskFailed: a request that cannot be answered, or not soon; what was answered is kept.
            ConfigError: answers that are not of their kind; they are not kept, though they count.
            Stopped: the stopper wanted it; the same call goes on.
        """
        contents = pool.contents(rows)
        there = self.ledger.answers(self.target, set(contents))
        wanted: dict[tuple[bytes, int], int] = {}
        for row, content in zip(rows, contents, strict=True):
            for repeat in range(repeats):
                if repeat not in there.get(content, {}):
                    wanted.setdefault((content, repeat), row)
        if wanted:
            run_now(self._ask_all(pool, wanted))

    async def _ask_all(self, pool: Pool, wanted: dict[tuple[bytes, int], int]) -> None:
        size = min(self.pace.per_request, self.about.most or self.pace.per_request)
        batches = _batches(wanted.items(), size)
        rate = self.pace.rate
        limit = None if rate is None else AsyncLimiter(max(rate, size), max(rate, size) / rate)
        self._failure, started, before = None, time.monotonic(), self.answered

        async def work(task: Task, batches: Iterable[list[Wanted]]) -> None:
            for batch in batches:
                try:
                    await self._ask(pool, batch, limit, task)
                except Halted:
                    return
                except Exception as error:
                    # The others finish what is in flight: it may be paid for. What says more than
                    # that the budget is spent comes first.
                    if self._failure is None or isinstance(self._failure, BudgetSpent):
                        self._failure = error
                    return

        title = f"asking {self.about.target}"
        with self.progress.task(title, len(wanted), "answers") as task:
            async with self.victim:
                if self.kind is None and self.about.kind is None:
                    # Should its answers be of no use, one request is lost and not all in flight.
                    await work(task, itertools.islice(batches, 1))
                workers = min(self.pace.concurrency, -(-len(wanted) // size))
                await asyncio.gather(*(work(task, batches) for _ in range(workers)))
        self.seconds += time.monotonic() - started
        if self._failure is not None:
            raise self._failure
        if self.stopper.reason:
            raise Stopped(
                self.stopper.reason,
                f"Stopped by {self.stopper.reason} after {self.answered - before:,} answers; they "
                "are kept. Run the same command again to go on.",
            )

    def _go_on(self) -> None:
        """Nothing leaves after a wish to stop, or after a failure that ends the harvest.

        Raises:
            Halted: it does not go on.
        """
        if self._failure is not None or self.stopper.reason:
            raise Halted

    async def _sleep(self, seconds: float) -> None:
        """Wait, unless there is no reason to any more."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._go_on()
            await asyncio.sleep(min(left, SLICE_S))

    async def _ask(
        self, pool: Pool, batch: Sequence[Wanted], limit: AsyncLimiter | None, task: Task
    ) -> None:
        """One request, sent again where that can help."""
        rows = [row for _, row in batch]
        images, generated = pool.images(rows), pool.generated
        questions = [
            Question(
                content=content,
                repeat=repeat,
                reference=reference,
                image=image.tobytes() if generated else None,
            )
            for ((content, repeat), _), reference, image in zip(
                batch, pool.references(rows), images, strict=True
            )
        ]
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(self._is_worth_another),
            stop=stop_after_attempt(self.pace.attempts),
            wait=self._pause(),
            sleep=self._sleep,
            reraise=True,
        ):
            with attempt:
                while limit is not None and not limit.has_capacity(len(questions)):
                    await self._sleep(SLICE_S / 10)
                self._go_on()
                if limit is not None:
                    await limit.acquire(len(questions))
                number = attempt.retry_state.attempt_number
                count = await self._send(images, questions, number)
        self.answered += count
        task.advance(count, self._note())
        if count < len(batch):
            raise BudgetSpent(
                f"The budget of {self.budget:,} queries is spent; {len(batch) - count:,} or more "
                "were not sent."
            )

    def _note(self) -> str:
        money = ""
        if self.price is not None:
            money = f"US $ {(self.budget - self.left) * self.price:,.2f} spent, "
        return f"{money}{self.left:,} queries left"

    async def _send(self, images: np.ndarray, questions: Sequence[Question], number: int) -> int:
        """Note it, send what the budget allows of it, note what came back; returns how many."""
        request, count = await self.ledger.send(
            self.target,
            questions,
            purpose=self.purpose,
            budget=self.budget,
            attempt=number,
            price=self.price,
        )
        clock = time.perf_counter()
        try:
            said = await self.victim.ask(images[:count], id=str(request))
            known = self.kind or self.about.kind
            kind, values = fitting(said, count=count, kind=known, about=self.about)
        except Exception as error:
            await self.ledger.failed(
                self.target,
                request,
                purpose=self.purpose,
                billed=not isinstance(error, AskFailed) or error.billed,
                latency=time.perf_counter() - clock,
                error=str(error),
            )
            raise
        if known is None:
            self.progress.say(f"{self.about.target} answers with {kind}.")
        if values is not said and not self._divides:
            self._divides = True
            self.progress.say(
                f"{self.about.target} answers in percent; they are divided by 100, and kept so."
            )
        await self.ledger.answered(
            self.target,
            request,
            questions[:count],
            values,
            kind=kind,
            latency=time.perf_counter() - clock,
        )
        return count

    def _is_worth_another(self, error: BaseException) -> bool:
        if not isinstance(error, AskFailed) or not error.again or self._failure is not None:
            return False
        return (error.wait_s or 0.0) <= self.pace.longest_wait_s

    def _pause(self) -> Callable[[RetryCallState], float]:
        backing_off = wait_random_exponential(multiplier=0.5, max=self.pace.longest_wait_s)

        def seconds(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            wait_s = error.wait_s if isinstance(error, AskFailed) else None
            # Who was told to wait comes a little later than all others that were told the same.
            return (wait_s or 0.0) + backing_off(state)

        return seconds


def _batches(items: Iterable[Wanted], size: int) -> Iterator[list[Wanted]]:
    waiting = iter(items)
    while batch := list(itertools.islice(waiting, size)):
        yield batch
