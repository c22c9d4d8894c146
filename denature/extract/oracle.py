"""Asking a victim: many requests at once, each noted before it leaves, none beyond the budget."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
from aiolimiter import AsyncLimiter
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from denature.answers.sources import Kind
from denature.core.errors import ConfigError, RunError, Stopped
from denature.core.progress import SILENT, Progress, Task
from denature.core.stopping import Stopper
from denature.extract.config import Pace
from denature.extract.ledger import BudgetSpent, Ledger, Question
from denature.extract.pool import Pool
from denature.extract.victims.base import About, AskFailed, Victim

Wanted: TypeAlias = tuple[tuple[bytes, int], int]
"""An image's digest and the repeat, and its number in the pool."""

SUM_TOLERANCE = 0.05
"""Probabilities may sum to 1 within this, since services round them."""


@final
@dataclass(kw_only=True, eq=False)
class Oracle:
    """A victim that may be asked `budget` queries, all of which a ledger keeps.

    Args:
        victim: who answers.
        ledger: where all is written down.
        budget: queries of this purpose, those of earlier calls counted.
        purpose: what is asked for; each purpose has a budget of its own.
        pace: how fast and how stubbornly.
        price: of one query in US dollars; None where nobody knows.
        stopper: asked before each request whether to stop.
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
        known, _ = self.ledger.nature(self.target)
        self.kind: Kind | None = self.about.kind or known
        if self.about.kind is not None and known is not None and known != self.about.kind:
            raise ConfigError(
                f"{self.about.target} answered {known} before, and is said to answer "
                f"{self.about.kind}. Leave --kind out, or name another --out."
            )
        self._settled = known is not None
        self._failure: BaseException | None = None

    @property
    def left(self) -> int:
        """Queries that the budget still allows."""
        return max(0, self.budget - self.ledger.spent(self.target, self.purpose))

    def ask(self, pool: Pool, rows: Sequence[int], *, repeats: int = 1) -> None:
        """Have all these images answered that were not answered before.

        Args:
            pool: of images.
            rows: which of them.
            repeats: how often each.

        Raises:
            BudgetSpent: there are more than the budget allows; those up to it were asked.
            AskFailed: a request that cannot be answered, or not soon; what was answered is kept.
            Stopped: the stopper wanted it; the same call goes on.
        """
        there = self.ledger.answers(self.target)
        wanted: dict[tuple[bytes, int], int] = {}
        for row, content in zip(rows, pool.contents(rows), strict=True):
            for repeat in range(repeats):
                if repeat not in there.get(content, {}):
                    wanted.setdefault((content, repeat), row)
        if wanted:
            asyncio.run(self._ask_all(pool, wanted))

    async def _ask_all(self, pool: Pool, wanted: dict[tuple[bytes, int], int]) -> None:
        size = min(self.pace.per_request, self.about.most or self.pace.per_request)
        batches = _batches(wanted.items(), size)
        rate = self.pace.rate
        limit = None if rate is None else AsyncLimiter(max(rate, size), max(rate, size) / rate)
        self._failure, started, answered = None, time.monotonic(), 0

        async def work(task: Task) -> None:
            nonlocal answered
            for batch in batches:
                if self._failure is not None or self.stopper.reason:
                    return
                try:
                    count = await self._ask(pool, batch, limit)
                except Exception as error:
                    # The others finish what is in flight: it may be paid for.
                    self._failure = self._failure or error
                    return
                answered += count
                task.advance(count, self._note(answered / (time.monotonic() - started)))

        title = f"asking {self.about.target}"
        with self.progress.task(title, len(wanted), "answers") as task:
            async with self.victim:
                workers = min(self.pace.concurrency, -(-len(wanted) // size))
                await asyncio.gather(*(work(task) for _ in range(workers)))
        if self._failure is not None:
            raise self._failure
        if self.stopper.reason:
            raise Stopped(
                self.stopper.reason,
                f"Stopped by {self.stopper.reason} after {answered:,} answers; they are kept. Run "
                "the same command again to go on.",
            )

    def _note(self, per_second: float) -> str:
        spent = self.ledger.spent(self.target, self.purpose)
        money = "" if self.price is None else f", ${spent * self.price:,.2f} spent"
        return f"{per_second:,.0f} answers/s{money}, {max(0, self.budget - spent):,} queries left"

    async def _ask(
        self,
        pool: Pool,
        batch: Sequence[Wanted],
        limit: AsyncLimiter | None,
    ) -> int:
        """One request, sent again where that can help; returns how many were answered."""
        rows = [row for _, row in batch]
        questions = [
            Question(
                content=content,
                repeat=repeat,
                reference=pool.reference(row),
                image=pool.keep(row),
            )
            for (content, repeat), row in batch
        ]
        left = self.left
        if 0 < left < len(questions):  # the last request is as small as the budget makes it
            questions, rows = questions[:left], rows[:left]
        images = pool.images(rows)
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(self._is_worth_another),
            stop=stop_after_attempt(self.pace.attempts),
            wait=self._pause(),
            reraise=True,
        ):
            with attempt:
                if limit is not None:
                    await limit.acquire(len(questions))
                await self._send(images, questions, attempt.retry_state.attempt_number)
        if len(questions) < len(batch):
            raise BudgetSpent(
                f"The budget of {self.budget:,} queries is spent; {len(batch) - len(questions):,} "
                "or more were not sent."
            )
        return len(questions)

    async def _send(self, images: np.ndarray, questions: Sequence[Question], number: int) -> None:
        """Note it, send it once, and note what came back."""
        request = await self.ledger.send(
            self.target,
            questions,
            purpose=self.purpose,
            budget=self.budget,
            attempt=number,
            price=self.price,
        )
        clock = time.perf_counter()
        try:
            values = await self.victim.ask(images, id=str(request))
            if len(values) != len(questions):
                raise ConfigError(
                    f"{self.about.target} gave {len(values)} answers to {len(questions)} images."
                )
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
        latency = time.perf_counter() - clock
        # Kept before they are looked at: they are paid for, whatever they are.
        await self.ledger.answered(self.target, request, questions, values, latency=latency)
        self._check(values)

    def _check(self, values: np.ndarray) -> None:
        """Whether answers are of the kind that was said, or find out of which they are."""
        classes = self.about.classes
        if classes is not None and values.ndim == 2 and values.shape[1] != classes:
            raise ConfigError(
                f"{self.about.target} answered {values.shape[1]} values an image; it said that it "
                f"knows {classes} classes."
            )
        found = kind_of(values)
        known, self.kind = self.kind, self.kind or found
        if known is None:
            if found is None:
                raise ConfigError(
                    f"The answers of {self.about.target} lie in [0, 1] and do not sum to 1; say "
                    "with --kind what they are: logits, probabilities, label or landmarks."
                )
            self.progress.say(f"{self.about.target} answers with {found}.")
        if self.kind == "landmarks":
            found = self.kind if values.ndim == 2 else found  # any numbers can be places
        looks_like = {
            "label": ("label",),
            "probabilities": ("probabilities", None),
            "landmarks": ("landmarks",),
        }
        # Rows of [0, 1] that sum to 1 are never logits by chance.
        assert self.kind is not None
        if found not in looks_like.get(self.kind, ("logits", None)):
            raise ConfigError(
                f"The answers of {self.about.target} are said to be {self.kind}, and look like "
                f"{found}. Say with --kind what they are."
            )
        if not self._settled:
            self.ledger.settle(self.target, self.kind)
            self._settled = True

    def _is_worth_another(self, error: BaseException) -> bool:
        if not isinstance(error, AskFailed) or not error.again or self._failure is not None:
            return False
        return (error.wait_s or 0.0) <= self.pace.longest_wait_s

    def _pause(self) -> Callable[[RetryCallState], float]:
        backing_off = wait_random_exponential(multiplier=0.5, max=self.pace.longest_wait_s)

        def seconds(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            wait_s = error.wait_s if isinstance(error, AskFailed) else None
            return backing_off(state) if wait_s is None else wait_s

        return seconds


def kind_of(values: np.ndarray) -> Kind | None:
    """Of which kind answers are, by their looks; None where they could be several."""
    if values.ndim == 1:
        return "label"
    shown = values[~np.isnan(values)]
    if not len(shown) or shown.min() < 0 or shown.max() > 1:
        return "logits"
    sums = np.nansum(values, axis=1)
    if np.isnan(values).any():  # of the largest alone no more is known than this
        return "probabilities" if sums.max() <= 1 + SUM_TOLERANCE else None
    return "probabilities" if np.abs(sums - 1).max() <= SUM_TOLERANCE else None


def _batches(items: Iterable[Wanted], size: int) -> Iterator[list[Wanted]]:
    waiting = iter(items)
    while batch := list(itertools.islice(waiting, size)):
        yield batch


def completed(kind: Kind, values: np.ndarray) -> np.ndarray:
    """Answers of which only the largest values were shown, with the others filled in.

    Probabilities share what is left to 1 evenly, and rows that were rounded are scaled to sum to 1;
    of logits the others are set to the least that was shown, which is the most that they can be.

    Raises:
        RunError: an image of which nothing is known.
    """
    hidden = np.isnan(values)
    if hidden.all(axis=1).any():
        raise RunError("An answer shows nothing at all.")
    values = values.copy()
    if kind == "probabilities":
        if hidden.any():
            rest = np.clip(1 - np.nansum(values, axis=1, keepdims=True), 0, None)
            share = rest / np.maximum(hidden.sum(axis=1, keepdims=True), 1)
            values = np.where(hidden, share, values)
        sums = values.sum(axis=1, keepdims=True)
        # Rounded to nothing, it could be any class.
        uniform = np.full_like(values, 1 / values.shape[1])
        return np.where(sums > 0, values / np.where(sums > 0, sums, 1), uniform).astype(np.float32)
    return np.where(hidden, np.nanmin(values, axis=1, keepdims=True), values).astype(np.float32)
