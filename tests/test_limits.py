"""Limits of queries and of dollars, and prices."""

import asyncio
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from denature.core.errors import ConfigError
from denature.core.stopping import Stopper
from denature.extract.asking.ledger import BudgetSpent, Ledger, Query
from denature.extract.asking.limits import QueryLimits, Spending, affordable, in_dollars
from denature.extract.asking.oracle import Oracle
from denature.extract.asking.pool import NoisePool
from denature.extract.asking.pricing import one_price, prices_of
from denature.extract.theft import LEDGER
from denature.extract.victims.base import VictimInfo
from denature.remote.config import RequestConfig
from denature.remote.errors import AskFailed
from tests.billed import answers, victim

NO_WAIT = RequestConfig(per_request=3, concurrency=4, attempts=3, longest_wait_s=0.0)


def test_the_first_limit_that_is_reached_ends_the_queries() -> None:
    spending = Spending([(1, "train", 0.01, 30), (1, "measure", None, 10), (2, "train", 5.0, 9)])
    assert (spending.queries(1, "train"), spending.queries(1)) == (30, 40)
    assert spending.dollars(1, 0.02) == pytest.approx(0.5)
    assert spending.dollars(1, None) == pytest.approx(0.3)

    def left(price: float | None = 0.02, **limits: Any) -> tuple[int, str]:
        return spending.left(1, "train", QueryLimits(**{"queries": 100, **limits}), price)

    assert left() == (70, "The budget of 100 queries is spent")
    assert left(total=50)[0] == 10
    assert "50 queries, those for fidelity included" in left(total=50)[1]
    assert left(total=50, max_cost=0.6)[0] == 5
    assert "The limit of US $ 0.60 (--max-cost) is reached" in left(total=50, max_cost=0.6)[1]
    assert left(total=50, max_cost=0.1)[0] == 0
    assert left(price=0.0, max_cost=0.1)[0] == left(price=None, max_cost=0.1)[0] == 70
    spending.book(1, "train", 0.01, -30)
    assert left(total=50, max_cost=0.6)[0] == 20


@given(st.integers(1, 10**6), st.integers(1, 10**7))
def test_a_sum_that_pays_for_queries_pays_for_all_of_them(queries: int, price: int) -> None:
    per_query = price / 10**7
    assert affordable(queries * per_query, per_query) == queries


@pytest.mark.parametrize(
    ("money", "text"),
    [(0, "0.00"), (0.002, "0.002"), (0.8, "0.80"), (1.5, "1.50"), (1234.567, "1,234.57")],
)
def test_dollars_have_cents_or_what_is_below(money: float, text: str) -> None:
    assert in_dollars(money) == f"US $ {text}"


OUTCOMES = st.lists(st.sampled_from(["answer", "charge", "free"]), max_size=12)


@given(
    outcomes=OUTCOMES,
    train=st.integers(0, 40),
    total=st.none() | st.integers(1, 60),
    cents=st.none() | st.integers(1, 60),
)
@settings(max_examples=15, deadline=None)
def test_no_limit_is_exceeded_under_concurrency_and_with_retries(
    outcomes: list[str], train: int, total: int | None, cents: int | None
) -> None:
    """Queries for two purposes, of which some attempts fail, charged or free."""
    charged, lock, waiting = [0], threading.Lock(), list(outcomes)

    def answer(pixels: np.ndarray) -> np.ndarray:
        with lock:
            outcome = waiting.pop() if waiting else "answer"
            charged[0] += len(pixels) * (outcome != "free")
        if outcome != "answer":
            raise AskFailed("busy", again=True, billed=outcome == "charge", wait_s=0.0)
        return answers(pixels)

    max_cost = None if cents is None else cents / 100
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / LEDGER) as ledger:
        usual: dict[str, Any] = {
            "victim": victim(answer), "ledger": ledger, "total": total, "max_cost": max_cost,
            "about": VictimInfo(target="v", kind="probabilities"), "price": 0.01,
            "stopper": Stopper(), "pace": NO_WAIT,
        }  # fmt: skip
        messages = []
        for purpose, budget, seed in (("measure", 12, 1), ("train", train, 2)):
            oracle = Oracle(budget=budget, purpose=purpose, **usual)
            pool = NoisePool(channels=1, image_size=8, seed=seed)
            try:
                oracle.ask(pool, range(20))
            except (BudgetSpent, AskFailed) as error:
                messages.append(str(error))
            assert ledger.spent(oracle.target, purpose) <= budget
        spent, paid = ledger.spending.queries(oracle.target), ledger.spending.dollars(1, 0.01)
    assert charged[0] == spent  # nothing is in flight any more
    assert total is None or spent <= total
    assert max_cost is None or paid <= max_cost + 1e-9
    assert all("busy" in it or "is spent" in it or "is reached" in it for it in messages)


def test_dollars_hold_among_requests_that_leave_together(tmp_path: Path) -> None:
    async def all_at_once(ledger: Ledger, target: int) -> list[object]:
        limits = QueryLimits(queries=10**6, max_cost=0.3)
        sends = [
            ledger.send(
                target, [Query(content=bytes([n, k]), repeat=0, reference="r") for k in range(3)],
                purpose=f"purpose {n % 3}", limits=limits, attempt=1, price=0.001,
            )
            for n in range(200)
        ]  # fmt: skip
        return await asyncio.gather(*sends, return_exceptions=True)

    for _ in range(2):  # the second time in a ledger of before
        with Ledger(tmp_path / LEDGER) as ledger:
            target = ledger.target(VictimInfo(target="v"))
            found = asyncio.run(all_at_once(ledger, target))
            assert ledger.spending.queries(target) == 300
            assert ledger.spending.dollars(target, 0.001) == pytest.approx(0.3)
    refused = [it for it in found if isinstance(it, BudgetSpent)]
    assert len(refused) == 200
    assert "The limit of US $ 0.30 (--max-cost) is reached; 3 more were not sent." in str(
        refused[0]
    )


def test_prices_fall_with_what_is_asked() -> None:
    prices = prices_of("rekognition")
    assert prices is not None
    assert prices.cost(1000) == pytest.approx(1.0)
    assert prices.cost(2_000_000) == pytest.approx(1000 + 800)
    assert prices.queries_for(1000) == pytest.approx(1_000_000)
    assert prices.queries_for(1800) == pytest.approx(2_000_000)
    assert prices.cost(prices.queries_for(123_456.0)) == pytest.approx(123_456.0)
    assert prices_of("nobody") is None
    assert one_price(2.0).cost(500) == pytest.approx(1.0)
    assert one_price(0.0).queries_for(1.0) == float("inf")
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="price_per_1000 is"):
            one_price(bad)
