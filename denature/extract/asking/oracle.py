"""Queries to a victim: concurrent requests within a budget, each recorded before it leaves."""

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
from aiolimiter import AsyncLimiter
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from denature.answers.kinds import AnswerKind
from denature.answers.looks import LOOKS, kind_of
from denature.core.errors import ConfigError, Stopped, brief
from denature.core.progress import SILENT, Progress, Task
from denature.core.stopping import Stopper
from denature.extract.asking.ledger import BudgetSpent, Ledger, Query
from denature.extract.asking.limits import QueryLimits, in_dollars
from denature.extract.asking.pool import Pool
from denature.extract.asking.reading import MEND_NAN, check_first, fitting, shown_counts
from denature.extract.victims.base import Victim, VictimInfo, run_now
from denature.remote.config import RequestConfig
from denature.remote.errors import AskFailed

Wanted: TypeAlias = tuple[tuple[bytes, int], int]
"""An image's digest and the repeat, and its number in the pool."""

UNLIMITED = 10**12
"""Budget of a model whose answers cost nothing."""

SLICE_S = 0.1
"""Seconds between two checks for a stop during a wait."""


class Halted(Exception):
    """No more requests may be sent, because of a stop or a failure."""


@final
@dataclass(kw_only=True, eq=False)
class Oracle:
    """A victim with a budget of queries, all of which a ledger records.

    Args:
        victim: the model that answers.
        ledger: record of all requests and answers.
        about: description of the victim.
        budget: queries for this purpose, those of earlier calls included.
        purpose: use of the answers; each purpose has a budget of its own.
        total: queries for all purposes together.
        pace: rate, concurrency and retries of the requests.
        price: US dollars a query; None if unknown.
        max_cost: US dollars for all purposes together, which needs a price.
        beside: oracles of the same ledger, perhaps this one too, whose dollars count within
            `max_cost`; the list may grow.
        stopper: checked before each request and during waits.
        progress: receives the number of answers.
    """

    victim: Victim
    ledger: Ledger
    about: VictimInfo
    budget: int
    purpose: str = "train"
    total: int | None = None
    pace: RequestConfig
    price: float | None = None
    max_cost: float | None = None
    beside: Sequence["Oracle"] = ()
    stopper: Stopper
    progress: Progress = SILENT

    def __post_init__(self) -> None:
        self.target = self.ledger.target(self.about)
        stated, stored = self.about.kind, self.kind
        if stated is not None and stored is not None and stated != stored:
            self._change_kind(stated, stored)
        self._failure: BaseException | None = None
        self._divides = False
        self._shown: set[int] | None = None
        self.answered = 0
        """Answers that this process received."""
        self.seconds = 0.0
        """Seconds that they took."""

    @property
    def limits(self) -> QueryLimits:
        others = {o.target: o.paid for o in self.beside if o.target != self.target}
        return QueryLimits(
            queries=self.budget,
            total=self.total,
            max_cost=self.max_cost,
            elsewhere=math.fsum(others.values()),
        )

    @property
    def paid(self) -> float:
        """US dollars for all purposes, those of earlier calls included."""
        return self.ledger.spending.dollars(self.target, self.price)

    @property
    def per_request(self) -> int:
        """Images in one request at most."""
        return min(self.pace.per_request, self.about.most or self.pace.per_request)

    @property
    def left(self) -> int:
        """Queries that all limits still allow."""
        return self._allowed()[0]

    def _allowed(self) -> tuple[int, str]:
        return self.ledger.spending.left(self.target, self.purpose, self.limits, self.price)

    @property
    def kind(self) -> AnswerKind | None:
        """Kind of the target's answers; None until it is known."""
        return self.ledger.kind(self.target)

    @property
    def stored(self) -> list[np.ndarray]:
        """All answers in the ledger, as the victim gave them."""
        answers = self.ledger.answers(self.target).values()
        return [row for repeats in answers for row in repeats.values()]

    def _change_kind(self, stated: AnswerKind, stored: AnswerKind) -> None:
        """Change the kind of stored answers to the stated one, if their values allow it."""
        looks = {kind_of(row if stored == "label" else row[None]) for row in self.stored}
        if not looks <= set(LOOKS[stated]):
            raise ConfigError(
                f"{self.about.target} answered {stored} before, and {stated} is stated now. Leave "
                "--kind out, or name another --out."
            )
        self.ledger.set_kind(self.target, stated)

    def ask(self, pool: Pool, rows: Sequence[int], *, repeats: int = 1) -> None:
        """Query all of these images that have no stored answer.

        Args:
            pool: the query images.
            rows: numbers of the images in the pool.
            repeats: queries of each image.

        Raises:
            BudgetSpent: the budget does not cover all images; those within it were queried.
            AskFailed: a request got no answer, or none soon; received answers are stored.
            ConfigError: answers of another kind; they are not stored but count as queries.
            Stopped: the stopper asked for a stop; the same call resumes.
        """
        contents = pool.contents(rows)
        stored = self.ledger.answers(self.target, set(contents))
        wanted: dict[tuple[bytes, int], int] = {}
        for row, content in zip(rows, contents, strict=True):
            for repeat in range(repeats):
                if repeat not in stored.get(content, {}):
                    wanted.setdefault((content, repeat), row)
        if wanted:
            run_now(self._ask_all(pool, wanted))

    async def _ask_all(self, pool: Pool, wanted: dict[tuple[bytes, int], int]) -> None:
        size = self.per_request
        batches = _batches(wanted.items(), size)
        rate, limit = self.pace.rate, None
        if rate is not None:
            at_once = max(rate * SLICE_S, size)
            limit = AsyncLimiter(at_once, at_once / rate)
        self._failure, started, before = None, time.monotonic(), self.answered
        spent: BudgetSpent | None = None

        async def work(task: Task, batches: Iterable[list[Wanted]]) -> None:
            nonlocal spent
            for batch in batches:
                try:
                    await self._ask(pool, batch, limit, task)
                except Halted:
                    return
                except BudgetSpent as error:
                    spent = error  # others go on: what they sent is counted, and may be sent again
                    return
                except Exception as error:
                    # Other workers finish their requests in flight, which may be billed.
                    self._failure = self._failure or error
                    return

        title = f"querying {self.about.target}"
        with self.progress.task(title, len(wanted), "answers") as task:
            async with self.victim:
                if self.kind is None and self.about.kind is None:
                    # The first request goes alone: if its answers are unusable, only one is lost.
                    await work(task, itertools.islice(batches, 1))
                workers = min(self.pace.concurrency, -(-len(wanted) // size))
                await asyncio.gather(*(work(task, batches) for _ in range(workers)))
        self.seconds += time.monotonic() - started
        if self._failure is not None:
            raise self._failure
        if spent is not None:
            raise spent
        if self.stopper.reason:
            raise Stopped(
                self.stopper.reason,
                f"Stopped by {self.stopper.reason} after {self.answered - before:,} answers; they "
                "are kept. Run the same command again to go on.",
            )

    def _go_on(self) -> None:
        """Check that requests may still be sent.

        Raises:
            Halted: the stopper asked for a stop, or a failure ended the harvest.
        """
        if self._failure is not None or self.stopper.reason:
            raise Halted

    async def _sleep(self, seconds: float) -> None:
        """Wait, unless the harvest ends meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._go_on()
            await asyncio.sleep(min(left, SLICE_S))

    async def _ask(
        self, pool: Pool, batch: Sequence[Wanted], limit: AsyncLimiter | None, task: Task
    ) -> None:
        """Send one request, with retries where they can help."""
        rows = [row for _, row in batch]
        images, generated = pool.images(rows), pool.generated
        questions = [
            Query(
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
            why = self._allowed()[1]
            raise BudgetSpent(f"{why}; {len(batch) - count:,} or more were not sent.")

    def _note(self) -> str:
        money = ""
        if self.price is not None:
            money = f"{in_dollars(self.paid)} spent, "
        left = "" if (queries := self.left) >= UNLIMITED // 2 else f"{queries:,} queries left"
        return f"{money}{left}"

    async def _send(self, images: np.ndarray, questions: Sequence[Query], number: int) -> int:
        """Record a request, send it as far as the limits allow, record its outcome.

        Returns:
            The number of images sent.
        """
        request, count = await self.ledger.send(
            self.target,
            questions,
            purpose=self.purpose,
            limits=self.limits,
            attempt=number,
            price=self.price,
        )
        clock = time.perf_counter()
        try:
            reply = await self.victim.ask(images[:count], id=str(request))
            known = self.kind or self.about.kind
            kind, values = fitting(reply, count=count, kind=known, about=self.about)
            if kind != "landmarks":  # where NaN is a face that was not found
                self._look_for_nan(values)
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
        if values is not reply and not self._divides:
            self._divides = True
            self.progress.say(
                f"{self.about.target} answers in percent; they are divided by 100 and stored so."
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

    def _look_for_nan(self, values: np.ndarray) -> None:
        """Say once where scores are NaN in all of the first answers, or in some answers alone.

        Raises:
            ConfigError: see `check_first`.
        """
        if self._shown and self.about.hides:
            return  # answers of a service may differ in what they show: the first ones tell all
        if self._shown is None:
            self._shown = set() if self.about.hides else set(shown_counts(self.stored))
            if not self._shown:
                check_first(values, self.about)
        if not self._shown and (hidden := _never_shown(values)):
            self.progress.say(
                f"{self.about.target} gives NaN for class {brief(map(str, hidden))} in all of its "
                f"first {len(values)} answers: such scores count as hidden, and as the lowest."
            )
        uneven = self.about.hides or len(self._shown) > 1
        self._shown |= set(shown_counts(values))
        if not uneven and len(self._shown) > 1:
            self.progress.say(
                f"{self.about.target} gives NaN in some answers, which show from "
                f"{min(self._shown)} to {max(self._shown)} scores: NaN counts as a hidden score, "
                f"and as the lowest. If the model hides none, {MEND_NAN}."
            )

    def _is_worth_another(self, error: BaseException) -> bool:
        if not isinstance(error, AskFailed) or not error.again or self._failure is not None:
            return False
        return (error.wait_s or 0.0) <= self.pace.longest_wait_s

    def _pause(self) -> Callable[[RetryCallState], float]:
        backing_off = wait_random_exponential(multiplier=0.5, max=self.pace.longest_wait_s)

        def seconds(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            wait_s = error.wait_s if isinstance(error, AskFailed) else None
            # A random delay on top, so that clients with one Retry-After do not return together.
            return (wait_s or 0.0) + backing_off(state)

        return seconds


def _never_shown(values: np.ndarray) -> list[int]:
    """Classes whose score is NaN in each of several answers."""
    if values.ndim != 2 or len(values) < 2:
        return []
    found: list[int] = np.flatnonzero(np.isnan(values).all(axis=0)).tolist()
    return found


def _batches(items: Iterable[Wanted], size: int) -> Iterator[list[Wanted]]:
    waiting = iter(items)
    while batch := list(itertools.islice(waiting, size)):
        yield batch
