"""The oracle: what a budget allows, attempts that fail, rates, and stops."""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from denature.core.errors import RunError, Stopped
from denature.core.stopping import Stopper
from denature.extract.asking.ledger import BudgetSpent, Ledger, Query
from denature.extract.asking.limits import QueryLimits
from denature.extract.asking.pool import StoredPool
from denature.extract.theft import LEDGER
from denature.extract.victims.base import VictimInfo
from denature.remote.config import RequestConfig
from denature.remote.errors import AskFailed
from tests.oracles import SOFT, Counted, images_of, oracle_of, split_of


def test_nothing_is_asked_twice_and_repeats_count(ledger: Ledger) -> None:
    victim, pool = Counted(), images_of(20)
    oracle = oracle_of(ledger, victim)
    oracle.ask(pool, range(20))
    assert (sum(victim.calls), oracle.left, oracle.kind) == (20, 80, "probabilities")
    oracle.ask(pool, range(20))
    assert sum(victim.calls) == 20
    oracle.ask(pool, range(10), repeats=3)
    assert (sum(victim.calls), oracle.left) == (40, 60)
    again = StoredPool("a copy", split_of(20), "other", channels=1)
    oracle.ask(again, range(20))  # by content, whatever the images are called
    assert sum(victim.calls) == 40
    answers = ledger.answers(oracle.target)
    assert len(answers) == 20
    assert sorted(map(len, answers.values())) == [1] * 10 + [3] * 10
    np.testing.assert_array_equal(answers[pool.contents([0])[0]][2], SOFT)


@pytest.mark.parametrize("budget", [1, 8, 19])
def test_the_query_after_the_last_is_not_sent(ledger: Ledger, budget: int) -> None:
    victim = Counted()
    oracle = oracle_of(ledger, victim, budget=budget)
    with pytest.raises(BudgetSpent, match=f"The budget of {budget} queries"):
        oracle.ask(images_of(40), range(40))
    assert sum(victim.calls) == budget
    with pytest.raises(BudgetSpent, match=f"The budget of {budget} queries"):
        oracle.ask(images_of(40), range(40))
    assert (sum(victim.calls), oracle.left) == (budget, 0)
    # Another purpose has a budget of its own.
    measuring = oracle_of(ledger, victim, budget=5, purpose="measure")
    with pytest.raises(BudgetSpent, match="The budget of 5 queries"):
        measuring.ask(images_of(40, seed=1), range(40))
    assert sum(victim.calls) == budget + 5


def test_no_more_requests_are_in_flight_than_allowed(ledger: Ledger) -> None:
    victim = Counted()
    oracle = oracle_of(ledger, victim, pace=RequestConfig(per_request=1, concurrency=3))
    oracle.ask(images_of(30), range(30))
    assert victim.most_at_once == 3


def test_a_place_is_free_only_when_its_answer_is_on_the_disk(tmp_path: Path) -> None:
    with Ledger(tmp_path / LEDGER) as ledger:
        path = tmp_path / LEDGER

        def look(pixels: np.ndarray) -> np.ndarray:
            with closing(sqlite3.connect(path)) as db:
                [[flying]] = db.execute("SELECT count(*) FROM requests WHERE status = 'sent'")
                [[missing]] = db.execute("SELECT count(*) FROM queries WHERE answer IS NULL")
            seen.append((flying, missing))
            return np.tile(SOFT, (len(pixels), 1))

        seen: list[tuple[int, int]] = []
        oracle_of(ledger, look, pace=RequestConfig(per_request=2, concurrency=2)).ask(
            images_of(40), range(40)
        )
    assert len(seen) == 20
    assert all(1 <= flying <= 2 and missing <= 4 for flying, missing in seen)


def failing(times: int, error: Exception) -> Counted:
    """Fails so many times, then answers."""
    left = [times]

    def answer(pixels: np.ndarray) -> np.ndarray:
        if left[0] > 0:
            left[0] -= 1
            raise error
        return np.tile(SOFT, (len(pixels), 1))

    return Counted(answer)


@pytest.mark.parametrize("billed", [True, False])
def test_an_attempt_that_may_have_been_billed_counts(ledger: Ledger, billed: bool) -> None:
    victim = failing(2, AskFailed("busy", again=True, billed=billed, wait_s=0.01))
    oracle = oracle_of(ledger, victim, budget=100)
    oracle.ask(images_of(8), range(8))
    assert victim.calls == [8, 8, 8]
    assert oracle.left == 100 - (24 if billed else 8)
    tally = ledger.tallies(oracle.target)["train"]
    assert (tally.queries, tally.answered, tally.requests) == (24 if billed else 8, 8, 3)


def test_what_will_not_change_is_not_asked_again(ledger: Ledger) -> None:
    victim = failing(9, AskFailed("wrong key", again=False, billed=False))
    oracle = oracle_of(ledger, victim, pace=RequestConfig(per_request=8, concurrency=1))
    with pytest.raises(AskFailed, match="wrong key"):
        oracle.ask(images_of(80), range(80))
    assert (len(victim.calls), oracle.left) == (1, 100)


def test_a_wait_that_a_victim_states_is_kept_unless_it_is_too_long(ledger: Ledger) -> None:
    victim = failing(1, AskFailed("slow down", again=True, billed=False, wait_s=0.3))
    oracle = oracle_of(ledger, victim)
    clock = time.perf_counter()
    oracle.ask(images_of(4), range(4))
    assert time.perf_counter() - clock >= 0.3
    victim = failing(1, AskFailed("tomorrow", again=True, billed=False, wait_s=86_400))
    with pytest.raises(AskFailed, match="tomorrow"):
        oracle_of(ledger, victim).ask(images_of(4, seed=1), range(4))
    assert len(victim.calls) == 1


def test_attempts_end(ledger: Ledger) -> None:
    victim = failing(99, AskFailed("busy", again=True, billed=False, wait_s=0.0))
    oracle = oracle_of(ledger, victim, pace=RequestConfig(attempts=4, concurrency=1))
    with pytest.raises(AskFailed, match="busy"):
        oracle.ask(images_of(4), range(4))
    assert len(victim.calls) == 4


def test_a_failure_lets_what_is_in_flight_finish(ledger: Ledger) -> None:
    asked: list[int] = []

    def answer(pixels: np.ndarray) -> np.ndarray:
        asked.append(len(pixels))
        if len(asked) == 1:
            raise ValueError("boom")
        time.sleep(0.05)
        return np.tile(SOFT, (len(pixels), 1))

    pace = RequestConfig(per_request=1, concurrency=4)
    oracle = oracle_of(ledger, Counted(answer), pace=pace, kind="probabilities")
    with pytest.raises(AskFailed, match="ValueError: boom"):
        oracle.ask(images_of(40), range(40))
    assert ledger.tallies(oracle.target)["train"].answered == len(asked) - 1 == 3


@pytest.mark.parametrize("slow", ["a rate", "a wait"])
def test_a_wish_to_stop_ends_a_wait_at_once(ledger: Ledger, slow: str) -> None:
    victim = Counted()
    pace = (
        RequestConfig(per_request=2, concurrency=4, rate=1)
        if slow == "a rate"
        else RequestConfig(per_request=2)
    )
    if slow == "a wait":
        victim = failing(99, AskFailed("busy", again=True, billed=True, wait_s=30))
    oracle = oracle_of(ledger, victim, stopper=Stopper(seconds=1), pace=pace)
    clock = time.perf_counter()
    with pytest.raises(Stopped):
        oracle.ask(images_of(40), range(40))
    # Less than either wait, with room for a busy machine.
    assert time.perf_counter() - clock < 15
    assert len(victim.calls) <= 2


def test_a_cancelled_request_leaves_a_ledger_that_goes_on(ledger: Ledger, tmp_path: Path) -> None:
    async def cancelled() -> None:
        target = ledger.target(VictimInfo(target="x"))
        for number in range(50):
            question = Query(content=bytes([number]), repeat=0, reference="r")
            task = asyncio.ensure_future(
                ledger.send(
                    target,
                    [question],
                    purpose="train",
                    limits=QueryLimits(queries=99),
                    attempt=1,
                    price=None,
                )
            )
            # Before it left, while it is written down, after that.
            await asyncio.sleep((0, 0.0003, 0.01)[number % 3])
            task.cancel()

    asyncio.run(cancelled())
    ledger.tallies(1)  # written after all that was under way when its caller was cancelled
    with closing(sqlite3.connect(tmp_path / LEDGER)) as database:
        [[sent]] = database.execute("SELECT count(*) FROM queries")
    assert ledger.spent(1, "train") == sent
    assert 0 < sent < 50
    oracle_of(ledger, Counted()).ask(images_of(4), range(4))
    ledger.close()
    with pytest.raises(RunError, match="is closed"):
        ledger.answers(1)


def test_what_is_refused_after_the_budget_is_spent_is_sent_again(ledger: Ledger) -> None:
    """A lost query may have spent the last of the budget while others are in flight."""
    calls = 0

    def answer(pixels: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise AskFailed("lost", again=True, billed=True, wait_s=0.0)
        if calls <= 4:
            time.sleep(0.3)
            raise AskFailed("busy", again=True, billed=False, wait_s=0.05)
        return np.tile(SOFT, (len(pixels), 1))

    pace = RequestConfig(per_request=2, concurrency=4)
    oracle = oracle_of(ledger, Counted(answer), budget=8, pace=pace, kind="probabilities")
    with pytest.raises(BudgetSpent):
        oracle.ask(images_of(8), range(8))
    assert oracle.left == 0
    assert ledger.tallies(oracle.target)["train"].answered == 6


def test_a_wish_to_stop_keeps_what_was_answered(ledger: Ledger) -> None:
    victim = Counted()
    stopper = Stopper(wish=lambda: len(victim.calls) >= 3)
    oracle = oracle_of(
        ledger, victim, stopper=stopper, pace=RequestConfig(per_request=1, concurrency=1)
    )
    with pytest.raises(Stopped, match="after 3 answers; they are kept"):
        oracle.ask(images_of(40), range(40))
    assert len(ledger.answers(oracle.target)) == 3


def test_a_rate_is_kept(ledger: Ledger) -> None:
    victim = Counted()
    oracle = oracle_of(ledger, victim, pace=RequestConfig(per_request=5, concurrency=4, rate=50))
    clock = time.perf_counter()
    oracle.ask(images_of(90), range(90))
    # One request at once, then as it drips.
    assert time.perf_counter() - clock >= (90 - 5) / 50 - 0.1
