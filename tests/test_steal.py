"""The thief's side: the ledger, the oracle, what a server may say, and clones of a real server."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from denature import api
from denature.answers.looks import kind_of
from denature.answers.network import answers_from
from denature.answers.transfer import Transfer
from denature.cli.app import main
from denature.core.errors import ConfigError, RunError, Stopped
from denature.core.stopping import Stopper
from denature.data import Dataset
from denature.data.config import DataConfig
from denature.data.dataset import Split
from denature.extract.asking.ledger import BudgetSpent, Ledger, Query, read_tallies
from denature.extract.asking.limits import QueryLimits
from denature.extract.asking.oracle import Oracle
from denature.extract.asking.pool import NoisePool, StoredPool, open_pool, pool_of_tests
from denature.extract.asking.pricing import Prices, one_price, prices_of
from denature.extract.asking.reading import combined, completed, fitting
from denature.extract.compatibility import about_of, fitted
from denature.extract.config import Choose, ExtractionConfig
from denature.extract.measure import agreement, ask_reference, predictions_of
from denature.extract.planning import PLAN
from denature.extract.selection.base import Selection
from denature.extract.selection.both import both
from denature.extract.selection.catalogue import SELECTIONS, find_selection
from denature.extract.selection.k_center import k_center
from denature.extract.selection.uncertainty import uncertainty
from denature.extract.speed import SpeedResult, Timing
from denature.extract.stealing import steal
from denature.extract.theft import LEDGER, read_theft
from denature.extract.thief import Thief
from denature.extract.victims.base import VictimInfo
from denature.extract.victims.called import FunctionVictim
from denature.extract.victims.find import find
from denature.extract.victims.local import local
from denature.remote.config import RequestConfig
from denature.remote.errors import AskFailed
from denature.remote.protocol import (
    Address,
    read_reply,
    read_signature,
    request,
    wire_images,
)
from denature.remote.signature import RemoteSignature
from denature.remote.wire import retry_after
from denature.report.kinds import answers_of
from denature.report.speed import price_sentences, timing_table
from denature.serve import protocol
from denature.serve.config import Exposure
from denature.serve.exposure import expose
from denature.train import Cloned, Normal, Run, Training, load_run, train
from tests.processes import Command
from tests.served import Served, serve, stop
from tests.test_classes import Heard

IN_ROUNDS = {name: s.select for name, s in SELECTIONS.items() if s.select is not None}
pytestmark = pytest.mark.usefixtures("without_figures")

QUICK = Training(epochs=2, batch_size=32, device="cpu", precision="fp32")
SOFT = np.array([0.5, 0.2, 0.3], np.float32)


def split_of(count: int, *, seed: int = 0) -> Split:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 1, 4, 4), dtype=np.uint8)
    return Split(
        torch.from_numpy(pixels), torch.zeros(count, dtype=torch.int64), torch.arange(count)
    )


def images_of(count: int, *, seed: int = 0) -> StoredPool:
    return StoredPool("some", split_of(count, seed=seed), "digest", channels=1)


class Counted:
    """A function that counts what it is asked, and how many calls run at once."""

    def __init__(self, answer: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        self.answer = answer or (lambda pixels: np.tile(SOFT, (len(pixels), 1)))
        self.calls: list[int] = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        assert pixels.dtype == np.float32
        assert 0 <= pixels.min() <= pixels.max() <= 1
        with self._lock:
            self.calls.append(len(pixels))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(0.005)
        try:
            return self.answer(pixels)
        finally:
            with self._lock:
                self.at_once -= 1


def oracle_of(ledger: Ledger, function: Any, *, budget: int = 100, **more: Any) -> Oracle:
    kind = more.pop("kind", None)
    victim = FunctionVictim(function, name="victim", kind=kind)
    about = asyncio.run(victim.about())
    usual: dict[str, Any] = {
        "pace": RequestConfig(per_request=8, concurrency=4),
        "stopper": Stopper(),
    }
    return Oracle(victim=victim, ledger=ledger, about=about, budget=budget, **(usual | more))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / LEDGER) as opened:
        yield opened


# The oracle and its budget


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


def test_who_is_told_to_wait_waits_unless_it_is_too_long(ledger: Ledger) -> None:
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
def test_who_waits_stops_at_once_when_that_is_wished(ledger: Ledger, slow: str) -> None:
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


def test_who_is_cancelled_leaves_a_ledger_that_goes_on(ledger: Ledger, tmp_path: Path) -> None:
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
    # A second's worth at once, then as it drips.
    assert time.perf_counter() - clock >= (90 - 50) / 50 - 0.1


# What answers are


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.array([1, 2]), "label"),
        (SOFT[None], "probabilities"),
        (np.array([[0.5, 0.2, 0.31]]), "probabilities"),
        (np.array([[0.5, 0.2, 0.9]]), None),
        (np.array([[0.5, -0.2, 0.7]]), "logits"),
        (np.array([[5.0, 0.2, 0.1]]), "logits"),
        (np.array([[0.9, np.nan, np.nan]]), None),
        (np.array([[0.9, 0.8, np.nan]]), None),
        (np.array([[9.0, np.nan, np.nan]]), "logits"),
    ],
)
def test_the_kind_of_answers_is_seen(values: np.ndarray, kind: str | None) -> None:
    assert kind_of(values) == kind


PERCENT = np.array([[55.0, 45.0, 0.0], [12.5, 80.0, 7.4], [0.1, 0.2, 99.6], [33, 33, 33]])


def test_answers_in_percent_are_probabilities_and_divided(ledger: Ledger) -> None:
    assert kind_of(PERCENT) == "probabilities"
    assert kind_of(PERCENT, percent=False) == "logits"
    assert kind_of(PERCENT - 1) == "logits"
    assert kind_of(PERCENT[:1]) is None  # a single row of logits may sum to 100 by chance
    heard, rows = Heard(), np.tile(PERCENT, (3, 1)).astype(np.float32)
    for number, kind in enumerate((None, "probabilities")):
        oracle = oracle_of(
            ledger,
            lambda it: rows[: len(it)],
            kind=kind,
            pace=RequestConfig(per_request=12),
            progress=heard,
        )
        oracle.about = replace(oracle.about, classes=3, target=f"m{number}")
        oracle.target = ledger.target(oracle.about)
        oracle.ask(images_of(12), range(12))
        assert oracle.kind == "probabilities"
        kept = np.concatenate(
            [row for its in ledger.answers(oracle.target).values() for row in its.values()]
        )
        np.testing.assert_allclose(np.sort(kept), np.sort(rows.reshape(-1) / 100), rtol=1e-6)
        assert sum("in percent; they are divided by 100" in line for line in heard.lines) == 1
        heard.lines.clear()


def test_a_request_of_few_logits_that_sum_to_a_hundred_stays_one_of_logits() -> None:
    about = VictimInfo(target="m", classes=3)
    kind, values = fitting(PERCENT[:1], count=1, kind="logits", about=about)
    assert kind == "logits"
    assert (values == PERCENT[:1]).all()
    kind, values = fitting(PERCENT[:1], count=1, kind="probabilities", about=about)
    np.testing.assert_allclose(values, PERCENT[:1] / 100)
    kind, values = fitting(PERCENT, count=4, kind="landmarks", about=about)
    assert kind == "landmarks"
    assert (values == PERCENT).all()
    with pytest.raises(ConfigError, match="are stated to be logits but look like probabilities"):
        fitting(PERCENT, count=4, kind="logits", about=about)


LOGIT = np.array([[3.0, -1.0, 0.5]], np.float32)
UNFIT: list[tuple[str | None, Any, str]] = [
    ("probabilities", LOGIT, "are stated to be probabilities but look like logits"),
    ("logits", SOFT[None], "are stated to be logits but look like probabilities"),
    ("label", LOGIT, "are stated to be label but look like logits"),
    ("probabilities", np.array([1]), "are stated to be probabilities but look like label"),
    (
        "probabilities",
        PERCENT[1:2] * [[1, np.nan, 1]],
        "stated to be probabilities.*sum to 100 and all are shown",
    ),
    ("probabilities", PERCENT[:1] * 2, r"in percent they .*package\.module:function"),
    (
        None,
        PERCENT[:1],
        r"could be logits or probabilities \(state which with --kind",
    ),
    (
        None,
        np.full((1, 3), 0.9, np.float32),
        r"could be logits or probabilities \(state which with --kind",
    ),
    (None, np.array([[np.nan, 0.9, np.nan]], np.float32), "could be logits or probabilities"),
    (None, np.array([[np.nan] * 3], np.float32), "answers without any value"),
    (None, np.array([[np.inf, 0, 0]], np.float32), "answers that are not finite"),
    (None, np.empty((1, 0), np.float32), "answers of the shape"),
    (None, np.full((1, 4), 0.25, np.float32), "4 values an image, and 3 are wanted"),
    (None, np.array([3]), "labels from 3 to 3 of 3 classes"),
    (None, np.array([-1]), "labels from -1 to -1"),
]


@pytest.mark.parametrize(("kind", "values", "said"), UNFIT)
def test_answers_that_are_none_count_and_are_not_kept(
    ledger: Ledger, kind: Any, values: np.ndarray, said: str
) -> None:
    """Not even where the same is asked again: what is kept was looked at."""
    answers = [values]

    def answer(pixels: np.ndarray) -> np.ndarray:
        return np.repeat(answers[0], len(pixels), axis=0)

    def oracle() -> Oracle:
        found = oracle_of(
            ledger, answer, kind=kind, pace=RequestConfig(per_request=2, concurrency=1)
        )
        found.about = replace(found.about, classes=3)
        return found

    for turn in (1, 2):
        with pytest.raises(ConfigError, match=said):
            oracle().ask(images_of(6), range(6))
        assert (oracle().left, ledger.answers(1)) == (100 - 2 * turn, {})
    answers[0] = {"logits": LOGIT, "label": np.array([1])}.get(str(kind), SOFT[None])
    oracle().ask(images_of(6), range(6))
    assert len(ledger.answers(1)) == 6


def test_a_target_keeps_to_one_kind(ledger: Ledger) -> None:
    oracle_of(ledger, Counted()).ask(images_of(2), range(2))
    with pytest.raises(
        ConfigError, match="answered probabilities before, and logits is stated now"
    ):
        oracle_of(ledger, Counted(), kind="logits")
    changed = oracle_of(ledger, lambda p: np.tile(LOGIT, (len(p), 1)), purpose="measure")
    with pytest.raises(ConfigError, match="stated to be probabilities but look like logits"):
        changed.ask(images_of(2, seed=1), range(2))


def test_what_was_hidden_is_filled_in() -> None:
    nan = np.nan
    top = completed("probabilities", np.array([[0.5, nan, 0.3, nan]], np.float32))
    np.testing.assert_allclose(top, [[0.5, 0.1, 0.3, 0.1]], rtol=1e-6)
    rounded = completed("probabilities", np.array([[0.7, 0.2, 0.2], [0, 0, 0]], np.float32))
    np.testing.assert_allclose(rounded, [[7 / 11, 2 / 11, 2 / 11], [1 / 3] * 3], rtol=1e-6)
    logits = completed("logits", np.array([[4.0, nan, -2.0]], np.float32))
    np.testing.assert_array_equal(logits, [[4, -8, -2]])
    zero = completed("probabilities", np.array([[nan, 0, nan, nan], [nan, 1, nan, nan]]))
    np.testing.assert_array_equal(zero, [[0, 1, 0, 0], [0, 1, 0, 0]])


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_what_was_hidden_never_gets_more_than_what_was_shown(data: st.DataObject) -> None:
    classes, top = data.draw(st.integers(2, 6)), data.draw(st.integers(1, 6))
    kind: Any = data.draw(st.sampled_from(["probabilities", "logits"]))
    numbers = st.lists(st.floats(-9, 9), min_size=classes, max_size=classes)
    full = np.array([data.draw(numbers)], np.float32)
    if kind == "probabilities":
        full = np.exp(full) / np.exp(full).sum()
        full = full.round(data.draw(st.integers(0, 3)))
    order = np.argsort(-full[0], kind="stable")
    partly = full.copy()
    partly[0, order[top:]] = np.nan
    found, values, says = combined(kind, [[partly[0]]], classes=classes)
    assert says[0] == order[0]
    if found == "label":
        assert (kind, top) == ("logits", 1)
        return
    assert np.isfinite(values).all()
    shown = values[0][order[:top]]
    assert values[0].max() <= shown.max() + 1e-6
    hidden = values[0][order[top:]]
    if len(hidden) and kind == "logits":
        assert hidden.max() <= shown.min() + 1e-5
    if kind == "probabilities":
        assert values.sum() == pytest.approx(1, abs=1e-5)


def test_several_answers_are_one() -> None:
    votes = [[np.array([2]), np.array([2]), np.array([0])], [np.array([1])]]
    kind, values, says = combined("label", votes, classes=3)
    assert (kind, says.tolist()) == ("probabilities", [2, 1])
    np.testing.assert_allclose(values, np.array([[1, 0, 2], [0, 3, 0]]) / 3, rtol=1e-6)
    nan = np.nan
    rows = [[np.array([0.6, nan, nan]), np.array([nan, 0.8])], [np.array([0.2, 0.3, 0.5])]]
    kind, values, says = combined("probabilities", rows, classes=3)
    np.testing.assert_allclose(values, [[0.35, 0.5, 0.15], [0.2, 0.3, 0.5]], rtol=1e-5)
    assert (kind, says.tolist()) == ("probabilities", [1, 2])
    top = [[np.array([nan, 7.0, nan])], [np.array([3.0, nan, nan])]]
    kind, values, says = combined("logits", top, classes=3)
    assert (kind, values.tolist()) == ("label", [1, 0])


# The ledger as a file


def test_one_process_at_a_time_is_at_work_with_a_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path / LEDGER), pytest.raises(RunError, match="Another process is at work"):
        Ledger(tmp_path / LEDGER)
    Ledger(tmp_path / LEDGER).close()


@pytest.mark.parametrize("content", [b"no database at all, only words", b"SQLite format 3\0torn"])
def test_what_is_no_ledger_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / LEDGER
    path.write_bytes(content)
    for look in (Ledger, read_tallies):
        with pytest.raises(RunError, match=r"cannot be (used|read) as a ledger"):
            look(path)
    assert path.read_bytes() == content


def test_another_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / LEDGER
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE cheese (name TEXT)")
    with pytest.raises(RunError, match="is no ledger of this denature's format"):
        Ledger(path)


def test_a_disk_that_is_full_ends_a_harvest_and_loses_nothing(small_disk: Path) -> None:
    wide = Counted(lambda pixels: np.full((len(pixels), 500), 0.002, np.float32))
    (small_disk / "other").write_bytes(bytes(65_536))
    with Ledger(small_disk / LEDGER) as ledger:
        with pytest.raises(RunError, match=r"cannot be written: .*full"):
            oracle_of(ledger, wide, budget=10_000).ask(images_of(2000), range(2000))
        kept = ledger.answers(1)
    # It may be full where an answer comes, or where an intent is written and nothing is sent.
    assert 0 < len(kept) <= sum(wide.calls)
    (small_disk / "other").unlink()  # somebody makes room
    with Ledger(small_disk / LEDGER) as ledger:
        assert ledger.answers(1).keys() == kept.keys()


def test_a_damaged_answer_is_told(ledger: Ledger) -> None:
    oracle = oracle_of(ledger, Counted())
    oracle.ask(images_of(2), range(2))
    with closing(sqlite3.connect(ledger.path)) as db, db:
        db.execute("UPDATE queries SET answer = x'0102' WHERE id = 1")
    with pytest.raises(RunError, match="damaged: an answer has 2 bytes"):
        ledger.answers(oracle.target)


# The protocol, as a client

SIGNATURE = RemoteSignature(
    input="images", datatype="UINT8", shape=(1, 4, 4), channels_last=False,
    output="probabilities", classes=3,
)  # fmt: skip
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 1, 4, 4), dtype=np.uint8)
LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]], np.float32)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
@pytest.mark.parametrize(
    ("show", "top"),
    [("probabilities", 0), ("logits", 0), ("label", 0), ("probabilities", 2), ("logits", 2)],
)
def test_what_our_client_asks_our_server_answers(
    show: Any, top: int, datatype: str, binary: bool
) -> None:
    served = protocol.ModelSignature(
        name="m", shape=(1, 4, 4), classes=("a", "b", "c"), exposure=Exposure(show=show)
    )
    signature = replace(read_signature(served.describe(), None), datatype=datatype)
    wire = wire_images(PIXELS, signature)
    body, headers = request(wire, signature, id="7", binary=binary, top=top)
    asked = protocol.parse(body, headers.get(protocol.LENGTH), served, max_images=9)
    assert asked.id == "7"
    wanted = PIXELS if datatype == "UINT8" else (PIXELS / 255).astype(np.float32)
    np.testing.assert_array_equal(asked.images, wanted)
    values = answers_from(torch.from_numpy(LOGITS), show, dtype=torch.float64).values.numpy()
    reply, length = protocol.render(expose(values, served.exposure), asked, served)
    found = read_reply(reply, length, replace(signature, classes=3), count=2)
    if show == "label":
        np.testing.assert_array_equal(found, [0, 1])
        return
    full = LOGITS if show == "logits" else np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    if top:
        assert np.isnan(found).sum(1).tolist() == [1, 1]
        full = np.where(np.isnan(found), np.nan, full)
    np.testing.assert_allclose(found, full, rtol=1e-6)


def test_a_model_of_channels_last_is_asked_so() -> None:
    described = {
        "name": "tf",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4, 5, 3]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 3]}],
    }
    signature = read_signature(described, None)
    assert (signature.shape, signature.channels_last) == ((3, 4, 5), True)
    images = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(1, 3, 4, 5)
    wire = wire_images(images, signature)
    body, _ = request(wire, signature, id="1", binary=False)
    [tensor] = json.loads(body)["inputs"]
    assert tensor["shape"] == [1, 4, 5, 3]
    np.testing.assert_allclose(
        np.reshape(tensor["data"], tensor["shape"]), images.transpose(0, 2, 3, 1) / 255, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("", None),
        ("/", None),
        ("/v2", None),
        ("/v2/", None),
        ("/v2/models", None),
        ("/v2/models/m", "/v2/models/m"),
        ("/v2/models/m/", "/v2/models/m"),
        ("/v2/models/m/infer", "/v2/models/m"),
        ("/v2/models/m/ready", "/v2/models/m"),
        ("/v2/models/m/versions/7", "/v2/models/m/versions/7"),
        ("/v2/models/m/versions/7/infer/", "/v2/models/m/versions/7"),
        ("/behind/a/proxy/v2/models/m", "/behind/a/proxy/v2/models/m"),
    ],
)
def test_every_url_of_a_model_names_it(url: str, named: str | None) -> None:
    found = Address.of(f"http://host:8000{url}")
    version = "" if found.version is None else f"/versions/{found.version}"
    if named is None:
        assert found == ("http://host:8000", None, None)
    else:
        assert f"{found.url}/v2/models/{found.model}{version}" == f"http://host:8000{named}"


@pytest.mark.parametrize("datatype", ["INT32", "INT64", "UINT8", "FP32", "FP64"])
@pytest.mark.parametrize("shape", [[-1], [-1, 1]])
def test_labels_in_a_column_are_labels(datatype: str, shape: list[int]) -> None:
    described = {**DESCRIBED, "outputs": [{"name": "y", "datatype": datatype, "shape": shape}]}
    whole = not datatype.startswith("FP")
    signature = read_signature(described, None, kind=None if whole else "label")
    assert signature.classes is None
    tensor = {"name": "y", "datatype": datatype, "shape": [3, *shape[1:]], "data": [2, 0, 1]}
    body = json.dumps({"outputs": [tensor]}).encode()
    found = read_reply(body, None, signature, count=3)
    np.testing.assert_array_equal(found, np.array([2, 0, 1]), strict=True)
    if not whole:  # one number an image may be a score; the caller says that it is a class
        plain = read_reply(body, None, read_signature(described, None), count=3)
        with pytest.raises(ConfigError, match=r"1 values an image.*pass --kind label"):
            fitting(plain, count=3, kind=None, about=VictimInfo(target="m", classes=4))
        wild = json.dumps({"outputs": [{**tensor, "data": [0.5, 0, 1]}]}).encode()
        with pytest.raises(ValueError, match="no whole numbers"):
            read_reply(wild, None, signature, count=3)


@pytest.mark.parametrize("place", ["model", "output"])
@pytest.mark.parametrize("key", ["names", "labels", "class_names", "classes"])
def test_a_server_may_name_classes_in_several_ways(place: str, key: str) -> None:
    names = ["aquarium fish", "goldfish, Carassius auratus", "eel"]
    output: dict[str, Any] = {"name": "a", "datatype": "FP32", "shape": [-1, 3]}
    model = {**DESCRIBED, "outputs": [output]}
    (model if place == "model" else output)["parameters"] = {key: names}
    assert read_signature(model, None).names == tuple(names)
    output |= {"datatype": "INT64", "shape": [-1, 1]}
    assert read_signature(model, None).classes == 3
    output |= {"datatype": "FP32", "shape": [-1, 3]}
    for wrong in (names[:2], [*names[:2], 3], [*names[:2], "\x1b[2J"], "eel", None):
        (model if place == "model" else output)["parameters"] = {key: wrong}
        found = read_signature(model, None)
        assert found.names == ()
        assert (found.unread is None) == (wrong is None)


NAMES = ("dog", "cat", "great tit")
COUNTED: list[Any] = [
    {"0": "dog", "1": "cat", "2": "great tit"},
    {"2": "great tit", "0": "dog", "1": "cat"},
    {"cat": 1, "great tit": 2, "dog": 0},
    "dog,cat,great tit",
    "dog, cat, great tit",
    "dog\ncat\r\ngreat tit\n",
    "dog; cat; great tit",
    '["dog", "cat", "great tit"]',
    '{"0": "dog", "1": "cat", "2": "great tit"}',
    {"string_value": "dog,cat,great tit"},
]


@pytest.mark.parametrize("key", ["names", "labels", "id2label", "label2id"])
@pytest.mark.parametrize("named", COUNTED)
def test_class_names_in_an_object_or_a_text_are_read(named: Any, key: str) -> None:
    parameters = {"parameters": {key: named}}
    for form in ({"datatype": "FP32", "shape": [-1, 3]}, {"datatype": "INT64", "shape": [-1]}):
        model = {**DESCRIBED, "outputs": [{"name": "a", **form, **parameters}]}
        found = read_signature(model, None)
        assert (found.names, found.classes, found.unread) == (NAMES, 3, None)


def test_a_text_is_parted_where_that_gives_as_many_names_as_there_are_classes() -> None:
    output = {"name": "a", "datatype": "FP32", "shape": [-1, 2]}
    for text in ("tit, great\neel", "tit, great; eel", "tit, great|eel"):
        model = {**DESCRIBED, "outputs": [{**output, "parameters": {"labels": text}}]}
        assert read_signature(model, None).names == ("tit, great", "eel")


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"1": "dog", "2": "cat", "3": "eel"}, "labels: an object of 3, such as '1': 'dog'"),
        ({"0": "dog", "1": "cat", "1.0": "eel"}, "labels: an object of 3"),
        ({"dog": 0, "cat": 0, "eel": 1}, "labels: an object of 3"),
        ({"dog": True, "cat": 0, "eel": 2}, "labels: an object of 3"),
        ({"0": {"name": "dog"}}, "labels: an object of 1"),
        ([{"id": 0, "name": "dog"}] * 3, "labels: a list of 3, such as an object"),
        (["dog", "cat"], "labels: a list of 2, such as 'dog'"),
        ("dog,cat", "labels: a text, 'dog,cat'"),
        ("labels.txt", "labels: a text, 'labels.txt'"),
        ("[" * 100_000, "labels: a text"),
        ("\x1b" * 100, "labels: a text"),
        ([["\x1b[2J" * 99]] * 3, "labels: a list of 3, such as a list"),
        ({"\x1b" * 99: None, "1": 2}, "labels: an object of 2"),
        ("x\x1b[2J,y,z", "labels: a text, 'x"),
    ],
)
def test_class_names_in_a_form_that_is_not_known_are_told(
    named: Any, said: str, digits: Dataset
) -> None:
    output = {"name": "a", "datatype": "FP32", "shape": [-1, 3], "parameters": {"labels": named}}
    found = read_signature({**DESCRIBED, "outputs": [output]}, None)
    assert found.names == ()
    assert found.unread is not None
    assert found.unread.startswith(said)
    assert found.unread.isprintable()
    assert len(found.unread) < 100
    heard = Heard()
    told = VictimInfo(target="m", classes=10, unread=found.unread)
    for data, count in ((digits, 0), (replace(digits, classes=tuple("abcdefghij")), 1)):
        fitted(told, data, heard)
        assert len(heard.lines) == count
    assert "m names its classes in a form that is not known here (labels: " in heard.lines[0]
    assert "no class names" not in heard.lines[0]


def test_numbers_of_classes_are_no_names() -> None:
    nothing: list[Any] = [3, True, [], {}, "", None]
    for said in nothing:
        model = {**DESCRIBED, "parameters": {"classes": said}}
        found = read_signature(model, "a")
        assert (found.names, found.unread) == ((), None)


DESCRIBED: dict[str, Any] = {
    "name": "m",
    "inputs": [{"name": "x", "datatype": "UINT8", "shape": [-1, 1, 4, 4]}],
    "outputs": [{"name": "a", "datatype": "FP32", "shape": [-1, 3]},
                {"name": "b", "datatype": "INT64", "shape": [-1]}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "has the outputs a, b; choose one with --output"),
        ({"outputs": None}, "does not describe its outputs"),
        ({"outputs": [{"name": "a"}]}, "does not describe its outputs"),
        ({"inputs": []}, "states no input; MLServer takes inputs"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]}, "wanted is one"),
        ({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [-1, 1, 4, 4]}]}, "no pixels"),
    ],
)
def test_a_model_that_cannot_be_asked_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_signature({**DESCRIBED, **changes}, None)
    assert read_signature(DESCRIBED, "b").output == "b"


def reply(**changes: Any) -> bytes:
    tensor = {"name": "probabilities", "shape": [2, 3], "datatype": "FP32",
              "data": [0.1, 0.2, 0.7, 0.3, 0.3, 0.4]}  # fmt: skip
    return json.dumps({"outputs": [{**tensor, **changes}]}).encode()


BAD_REPLIES = [
    b"", b"[]", b"{", b'{"outputs": 3}', b'{"outputs": []}', b'{"outputs": [3]}',
    reply(name="other"), reply(shape=[2]), reply(shape=[3, 3]), reply(shape=[2, -3]),
    reply(shape=[2, 10**9]), reply(shape="23"), reply(datatype="FP8"), reply(datatype=None),
    reply(data=[0.1]), reply(data=None), reply(data=["a"] * 6), reply(data=[True] * 6),
    reply(data=[[0.1, 0.2, 0.7], 3]), reply(data=[1e999, 0, 0, 0, 0, 0]),
    reply(datatype="INT64", shape=[2], data=[1, 3]), 
    reply(datatype="INT64", shape=[2], data=[-1, 0]),
    reply(datatype="BYTES", data=["0.5:0"] * 5 + ["x"]), reply(datatype="BYTES", data=["1:9"] * 6),
    b"[" * 100_000, b'{"outputs": ' + b"[" * 100_000, reply(datatype=["FP32"]),
    reply(shape=[2] + [1] * 20_000), reply(data=[10**400, 0, 0, 0, 0, 0]),
    reply(datatype="BYTES", data=["nan:0"] * 6), reply(parameters={"binary_data_size": 4}),
]  # fmt: skip


@pytest.mark.parametrize("body", BAD_REPLIES)
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises((ValueError, OverflowError, RecursionError), match=r"\w"):
        read_reply(body, None, SIGNATURE, count=2)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_reply_with_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    head = json.dumps({"outputs": [{"name": "probabilities", "shape": [2, 3], "datatype": "FP32",
                                    "parameters": {"binary_data_size": 24}}]}).encode()  # fmt: skip
    body = bytearray(head + np.full((2, 3), 1 / 3, np.float32).tobytes())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    length = data.draw(st.sampled_from([str(len(head)), None, "x", "-1", "99999", "3"]))
    try:
        found = read_reply(bytes(body[:cut]), length, SIGNATURE, count=2)
    except ValueError:
        return
    assert len(found) == 2


def test_how_long_to_wait_is_read() -> None:
    assert (retry_after(None), retry_after("7"), retry_after("soon")) == (None, 7.0, None)
    assert (retry_after("\u00b2"), retry_after("-3"), retry_after("9" * 400)) == (
        None,
        None,
        float("inf"),
    )
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 -0000") == 0.0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 +999999") is None
    later = retry_after("Fri, 01 Jan 2100 00:00:00 GMT")
    assert later is not None
    assert later > 1e9


def test_targets_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"is no URL, no \.toml description of an HTTP API, no run's folder, no \.onnx or",
    ):
        find("nonsense")
    with pytest.raises(ConfigError, match="cannot be imported"):
        find("denature:no_such_function")
    with pytest.raises(ConfigError, match="a key does not apply to"):
        find(str(tmp_path), key="secret")
    with pytest.raises(ConfigError, match="Passwords"):
        find("http://me:secret@localhost:1")
    for url in ("http://", "http://a..b", "http://h:x", "http://h/?key=secret", "http://h/#a"):
        with pytest.raises(ConfigError, match="URL") as error:
            find(url)
        assert "secret" not in str(error.value)
    with pytest.raises(ConfigError, match="characters that no header can hold"):
        find("http://h", key="a\nb")
    with pytest.raises(AskFailed, match="cannot be reached"):
        steal(
            find("http://127.0.0.1:9"), net="mlp", pool="digits", budgets=[10], out=tmp_path / "x"
        )


# Choosing


def test_the_uncertain_and_the_far_are_chosen() -> None:
    candidates = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.0, 1.0], [0.6, 0.4]])
    asked = torch.tensor([[0.6, 0.4]])
    assert uncertainty(candidates, asked, 2).tolist() == [1, 3]
    assert k_center(candidates, asked, 2).tolist() == [2, 0]
    # Distances 0.42, 0.14, 0.85, 0 and entropies 0.33, 0.69, 0, 0.67, each as shares of the most.
    assert both(candidates, asked, 1).tolist() == [1]


def test_the_catalogue_has_a_strategy_for_each_choice_of_the_config() -> None:
    assert list(SELECTIONS) == list(get_args(Choose))
    assert "random" not in IN_ROUNDS
    with pytest.raises(ConfigError, match=r"no selection 'k-centre'\. Did you mean k-center"):
        find_selection("k-centre")


@pytest.mark.parametrize("choose", IN_ROUNDS)
def test_strategies_name_each_candidate_once(choose: str) -> None:
    select = IN_ROUNDS[choose]
    torch.manual_seed(0)
    candidates, asked = torch.randn(50, 4).softmax(-1), torch.randn(5, 4).softmax(-1)
    before = candidates.clone()
    places = select(candidates, asked, 20)
    assert len(set(places.tolist())) == 20
    assert select(candidates, asked, 90).sort().values.tolist() == list(range(50))
    assert torch.equal(candidates, before)


# Pools


def test_a_pool_has_the_channels_that_a_victim_takes() -> None:
    grey = images_of(3)
    colour = StoredPool("some", split_of(3), "d", channels=3)
    assert (colour.images([0, 2])[:, 1] == grey.images([0, 2])[:, 0]).all()
    split = replace(split_of(3), images=torch.from_numpy(colour.images([0, 1, 2])))
    assert (StoredPool("some", split, "d", channels=1).images([1]) == grey.images([1])).all()
    with pytest.raises(ConfigError, match="only 1 and 3"):
        StoredPool("some", split_of(3), "d", channels=2)


def test_noise_of_a_number_is_the_same_for_ever() -> None:
    noise = NoisePool(channels=1, image_size=8, seed=3)
    assert (noise.images([5, 2])[1] == noise.images([2])[0]).all()
    assert len(set(noise.contents(range(100)))) == 100
    assert noise.references([7, 3]) == [f"{noise.digest}#7", f"{noise.digest}#3"]
    assert NoisePool(channels=1, image_size=8, seed=4).contents([0]) != noise.contents([0])


def test_a_pool_holds_nothing_of_what_is_tested_on(digits: Dataset) -> None:
    pool = open_pool(DataConfig(source="digits"), channels=1, image_size=8)
    assert pool.size == len(digits.train)
    tests = StoredPool("tests", digits.test, "d", channels=1)
    assert pool.references([0]) == [f"digits#{int(digits.train.rows[0])}"]
    theirs = set(tests.contents(range(len(digits.test))))
    assert not theirs & set(pool.contents(range(len(digits.train))))


# Clones


def transfer_of(dataset: Dataset, kind: Any) -> Transfer:
    truth = torch.nn.functional.one_hot(dataset.train.labels, 10).float()
    values = {"label": dataset.train.labels, "logits": 9 * truth, "probabilities": truth}[kind]
    return Transfer(kind, values, victim="oracle")


@pytest.mark.parametrize("kind", ["label", "probabilities", "logits"])
def test_a_clone_learns_from_answers_of_every_kind(digits: Dataset, kind: Any) -> None:
    learning = replace(QUICK, epochs=8)
    clone = train("mlp", digits, Cloned(), learning, source=transfer_of(digits, kind))
    assert clone.accuracy.value > 0.85
    assert (clone.record.kind, answers_of(clone.record)) == ("cloned", kind)
    assert clone.record.inputs["victim"].net == "oracle"


def test_a_clone_of_right_labels_is_what_training_makes(digits: Dataset) -> None:
    clone = train("mlp", digits, Cloned(), QUICK, source=transfer_of(digits, "label"))
    normal = train("mlp", digits, Normal(), QUICK)
    assert clone.record.net.digest == normal.record.net.digest


def test_answers_to_other_images_are_refused(digits: Dataset) -> None:
    values = torch.zeros(7, dtype=torch.int64)
    with pytest.raises(ConfigError, match="answered 7 images"):
        train("mlp", digits, Cloned(), QUICK, source=Transfer("label", values, victim="x"))
    with pytest.raises(ConfigError, match="needs a run as victim"):
        train("mlp", digits, Cloned(), QUICK)
    with pytest.raises(ConfigError, match="not finite"):
        Transfer("logits", torch.full((2, 3), float("nan")), victim="x")
    with pytest.raises(ConfigError, match="wanted are int64"):
        Transfer("label", torch.zeros(2, 3), victim="x")


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Run:
    learning = Training(epochs=8, batch_size=64, device="cpu", precision="fp32")
    return train("mlp", "digits", Normal(), learning, out=tmp_path_factory.mktemp("runs") / "mlp")


def test_a_theft_grows_and_asks_the_difference(victim: Run, tmp_path: Path) -> None:
    counted = Counted()
    inside = local(victim)
    counted.answer = inside._function

    def go(*budgets: int, **more: Any) -> Any:
        called = FunctionVictim(counted, name="v", kind="probabilities")
        return steal(called, net="mlp", pool="digits", budgets=budgets, out=tmp_path / "out",
                     stealing=ExtractionConfig(fidelity=50, seeds=2, **more), training=QUICK,
                     price=0.001)  # fmt: skip

    first = go(100, 300)
    assert sum(counted.calls) == 300
    assert [clone.budget for clone in first.clones] == [100, 100, 300, 300]
    assert [clone.answers for clone in first.clones] == [50, 50, 250, 250]
    assert [clone.seed for clone in first.clones] == [0, 1, 0, 1]
    assert (first.spent, first.lost, first.measuring, first.kind) == (250, 0, 50, "probabilities")
    assert first.clones[0].money == pytest.approx(0.05)
    records = {clone.folder: (Path(clone.folder) / "record.json").stat().st_mtime_ns
               for clone in first.clones}  # fmt: skip
    second = go(100, 300, 600)
    assert sum(counted.calls) == 600
    assert second.clones[:4] == first.clones
    for folder, written in records.items():  # read, not made again
        assert (Path(folder) / "record.json").stat().st_mtime_ns == written
    with pytest.raises(RunError, match="holds another theft: pool_seed was 0, is 1"):
        go(100, pool_seed=1)
    # Fresh clones: that of 100 queries is what a theft of 100 queries alone makes.
    alone = steal(FunctionVictim(counted, name="v", kind="probabilities"), net="mlp", pool="digits",
                  budgets=[100], out=tmp_path / "alone", stealing=ExtractionConfig(fidelity=50),
                  training=QUICK)  # fmt: skip
    assert alone.clones[0].id == first.clones[0].id
    ours, theirs = (load_run(clone.folder) for clone in (alone.clones[0], first.clones[0]))
    assert ours.record.net.digest == theirs.record.net.digest


@pytest.mark.parametrize("choose", IN_ROUNDS)
def test_rounds_choose_with_the_clone_of_the_round_before(
    victim: Run, tmp_path: Path, choose: Any
) -> None:
    theft = steal(local(victim, kind="label"), net="mlp", pool="digits", budgets=[110],
                  out=tmp_path, training=QUICK,
                  stealing=ExtractionConfig(choose=choose, round_size=40, fidelity=20)
                  )  # fmt: skip
    assert (theft.spent, theft.measuring, theft.clones[0].answers) == (90, 20, 90)
    assert theft.kind == "label"
    assert len(list((tmp_path / "rounds").iterdir())) == 2


def test_a_thief_needs_no_folder_claim_and_takes_any_strategy(
    victim: Run, digits: Dataset, tmp_path: Path
) -> None:
    """A caller brings its own oracle and selection; here the last candidates of each round."""

    def last(candidates: torch.Tensor, queried: torch.Tensor, count: int) -> torch.Tensor:
        rounds.append((len(candidates), len(queried)))
        return torch.arange(len(candidates) - count, len(candidates))

    rounds: list[tuple[int, int]] = []
    source, tests = local(victim), pool_of_tests(digits)
    images = open_pool(DataConfig(source="digits"), channels=1, image_size=8)
    with Ledger(tmp_path / LEDGER) as ledger:
        oracle = Oracle(
            victim=source, ledger=ledger, about=fitted(about_of(source), digits), budget=90,
            pace=RequestConfig(), stopper=Stopper(),
        )  # fmt: skip
        reference = ask_reference(
            replace(oracle, budget=100, purpose="measure"), digits, tests, images=100, seed=3
        )
        thief = Thief(
            oracle=oracle, images=images, held_out=tests, dataset=digits, net="mlp",
            selection=Selection(name="last", select=last), out=tmp_path, training=QUICK,
            stealing=ExtractionConfig(round_size=40, seeds=2),
        )  # fmt: skip
        stolen = thief.steal([50, 90])
        assert ledger.spent(oracle.target, "train") == 90
    assert [(clone.budget, clone.spent) for clone in stolen] == [(50, 50)] * 2 + [(90, 90)] * 2
    pool = images.size or 0
    assert rounds == [(pool - 40, 40), (pool - 80, 80)]
    assert not (tmp_path / PLAN).exists()
    # The reference holds what the victim's network predicts, and counts what clones share with it.
    assert reference.rows == sorted(set(reference.rows))
    assert len(reference.rows) == 100
    sample = digits.test.take(np.array(reference.rows))
    assert (predictions_of(victim, sample, device="cpu") == reference.predictions).all()
    assert reference.fidelity(victim, device="cpu").value == 1
    right = reference.predictions == sample.labels[sample.rows].numpy()
    assert reference.accuracy.value == pytest.approx(right.mean())
    clone = stolen[-1].run
    shared = predictions_of(clone, sample, device="cpu") == reference.predictions
    fidelity = reference.fidelity(clone, device="cpu")
    assert fidelity.value == pytest.approx(shared.mean())
    assert fidelity.n == 100
    assert 0.2 < fidelity.value < 1


def test_agreement_is_a_share_of_classes_and_a_distance_of_landmarks() -> None:
    shares = agreement(np.array([1, 2, 3, 4]), np.array([1, 2, 0, 4]))
    assert (shares.value, shares.n) == (0.75, 4)
    places = np.array([[0.1, 0.2], [0.5, 0.5]], np.float32)
    others = np.array([[0.2, 0.4], [0.5, 0.6]], np.float32)
    assert agreement(places, others).value == pytest.approx((0.15 + 0.05) / 2)


def test_a_thief_with_rounds_needs_a_limited_pool(digits: Dataset, tmp_path: Path) -> None:
    """An unlimited pool has no set of candidates; without the check a round would never end."""
    noise = NoisePool(channels=1, image_size=8, seed=0)
    with Ledger(tmp_path / LEDGER) as ledger:
        oracle = oracle_of(ledger, Counted())
        with pytest.raises(ConfigError, match="is unlimited"):
            Thief(
                oracle=oracle, images=noise, held_out=pool_of_tests(digits), dataset=digits,
                selection=find_selection("k-center"), stealing=ExtractionConfig(), net="mlp",
                out=tmp_path,
            )  # fmt: skip


def test_randomised_answers_are_averaged(victim: Run, tmp_path: Path) -> None:
    inside, chance = local(victim, kind="label")._function, np.random.default_rng(0)

    def wavering(pixels: np.ndarray) -> np.ndarray:
        labels = inside(pixels)
        return np.where(chance.random(len(labels)) < 0.3, (labels + 1) % 10, labels)

    learning = replace(QUICK, epochs=6)
    theft = steal(FunctionVictim(wavering, name="w"), net="mlp", pool="digits", budgets=[950],
                  out=tmp_path, stealing=ExtractionConfig(repeats=3, fidelity=50),
                  training=learning)  # fmt: skip
    [clone] = theft.clones
    assert (theft.spent, clone.answers, theft.kind) == (900, 300, "label")
    assert answers_of(load_run(clone.folder).record) == "probabilities"  # shares of votes


def test_no_test_image_is_asked_to_learn_from_and_none_twice(
    victim: Run, digits: Dataset, tmp_path: Path
) -> None:
    """A pool of all test images, some others, and each of those again."""
    tests, others = digits.test, digits.train.take(np.arange(100))
    images = [tests.images[tests.rows], others.images[others.rows], others.images[others.rows]]
    pixels = torch.cat(images).numpy()
    path = tmp_path / "pool.npz"
    np.savez(path, x_train=pixels, y_train=np.zeros(len(pixels), np.int64))
    usual: dict[str, Any] = {"net": "mlp", "pool": str(path), "test": "digits", "training": QUICK}
    with pytest.raises(ConfigError, match="has 100 images that differ"):
        steal(local(victim), budgets=[126], out=tmp_path / "a", **usual)
    theft = steal(local(victim), budgets=[459], out=tmp_path / "b",
                  stealing=ExtractionConfig(fidelity=359), **usual)  # fmt: skip
    assert (theft.spent, theft.measuring, theft.clones[0].answers) == (100, 359, 100)


def test_a_clone_costs_what_its_images_cost(victim: Run, tmp_path: Path) -> None:
    inside, lost = local(victim)._function, [2]

    def losing(pixels: np.ndarray) -> np.ndarray:
        if lost[0] and len(pixels) == 20:
            lost[0] -= 1
            raise AskFailed("lost", again=True, billed=True, wait_s=0.0)
        return inside(pixels)

    theft = steal(
        FunctionVictim(losing, name="l", kind="probabilities"),
        net="mlp",
        pool="digits",
        budgets=[30, 110],
        out=tmp_path,
        stealing=ExtractionConfig(fidelity=10),
        price=1.0,
        training=QUICK,
        pace=RequestConfig(per_request=20, concurrency=1),
    )
    spent = [(clone.budget, clone.spent, clone.money, clone.answers) for clone in theft.clones]
    # Both losses hit the first request, and the budget of 110 leaves 60 images to learn from.
    assert spent == [(30, 60, 60, 20), (110, 100, 100, 60)]
    whole = steal(FunctionVictim(inside, name="w", kind="probabilities"), net="mlp", pool="digits",
                  budgets=[130], out=tmp_path / "w", price=1.0, training=QUICK,
                  stealing=ExtractionConfig(fidelity=30, repeats=30))  # fmt: skip
    assert (whole.clones[0].spent, whole.clones[0].answers) == (90, 3)


def test_lost_test_images_are_asked_once_more(victim: Run, tmp_path: Path) -> None:
    inside, alive = local(victim)._function, [False]

    def dying(pixels: np.ndarray) -> np.ndarray:
        if not alive[0]:
            raise AskFailed("lost", again=False, billed=True)
        return inside(pixels)

    def go() -> Any:
        return steal(
            FunctionVictim(dying, name="d", kind="probabilities"),
            net="mlp",
            pool="digits",
            budgets=[20],
            out=tmp_path,
            stealing=ExtractionConfig(fidelity=30, fidelity_extra=True),
            training=QUICK,
        )

    with pytest.raises(AskFailed, match="lost"):
        go()
    alive[0] = True
    theft = go()
    assert (theft.measuring, theft.victim_accuracy.n) == (60, 30)


@pytest.mark.parametrize("changes", [{"training": replace(QUICK, epochs=3)}, {"net": "cnn"}])
def test_what_chose_the_images_cannot_be_changed_later(
    victim: Run, tmp_path: Path, changes: dict[str, Any]
) -> None:
    usual: dict[str, Any] = {
        "net": "mlp", "pool": "digits", "budgets": [60], "out": tmp_path, "training": QUICK,
        "stealing": ExtractionConfig(choose="uncertainty", round_size=30, fidelity=10),
    }  # fmt: skip
    steal(local(victim), **usual)
    with pytest.raises(RunError, match=r"holds another theft: (net|training) was"):
        steal(local(victim), **{**usual, **changes})


def test_the_decimals_of_answers_are_part_of_a_thefts_plan_and_of_its_clones(
    victim: Run, tmp_path: Path
) -> None:
    """Spelled as by thefts of before, whose clones' loss rounded."""
    words = ["steal", str(victim.folder), "--pool", "digits", "--budget", "60", "--student", "mlp",
             "--choose", "uncertainty", "--round-size", "30", "--fidelity", "10", "--epochs", "1",
             "--device", "cpu", "--precision", "fp32", "-q"]  # fmt: skip
    for name, more, decimals in (("exact", [], None), ("rounded", ["--decimals", "1"], 1)):
        assert main([*words, *more, "--out", str(tmp_path / name)]) == 0
        plan = json.loads((tmp_path / name / "plan.json").read_text())
        assert plan["objective"] == {"temperature": 1.0, "decimals": decimals}
        theft = read_theft(tmp_path / name)
        assert theft is not None
        [clone] = theft.clones
        objective = load_run(clone.folder).record.config["objective"]
        assert objective == {"kind": "cloned", **plan["objective"]}
    assert main([*words, "--out", str(tmp_path / "rounded")]) == 1  # it holds another theft


def test_a_theft_can_be_carried_out_inside_of_a_loop(victim: Run, tmp_path: Path) -> None:
    """As in a notebook."""

    async def cell() -> Any:
        return steal(local(victim), net="mlp", pool="digits", budgets=[20], out=tmp_path,
                     stealing=ExtractionConfig(fidelity=10), training=QUICK)  # fmt: skip

    assert asyncio.run(cell()).spent == 10


def test_lost_queries_leave_fewer_answers_and_are_told(victim: Run, tmp_path: Path) -> None:
    inside, failures = local(victim)._function, [3]

    def losing(pixels: np.ndarray) -> np.ndarray:
        if failures[0] and len(pixels) == 16:
            failures[0] -= 1
            raise AskFailed("lost", again=True, billed=True, wait_s=0.0)
        return inside(pixels)

    theft = steal(FunctionVictim(losing, name="l"), net="mlp", pool="digits", budgets=[170],
                  out=tmp_path, stealing=ExtractionConfig(fidelity=10), training=QUICK,
                  pace=RequestConfig(per_request=16))  # fmt: skip
    assert (theft.spent, theft.lost, theft.clones[0].answers) == (160, 48, 112)


WRONG_THEFTS: list[tuple[dict[str, Any], str]] = [
    ({"budgets": []}, "wanted is at least one"),
    ({"budgets": [1]}, "at least two images"),
    ({"budgets": [9], "stealing": ExtractionConfig(repeats=5)}, "at least two images"),
    ({"budgets": [5000]}, "has 1,438 images that differ from each other and from the test images"),
    ({"price": float("nan")}, "price is nan"),
    ({"pool": "noise"}, "Noise has no labels"),
    (
        {"pool": "noise", "test": "digits", "stealing": ExtractionConfig(choose="both")},
        "is unlimited, so no round can choose",
    ),
    ({"net": "no-such"}, "There is no network"),
]


@pytest.mark.parametrize(("changes", "said"), WRONG_THEFTS)
def test_thefts_that_cannot_be_are_refused(
    victim: Run, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    usual: dict[str, Any] = {"net": "mlp", "pool": "digits", "budgets": [20], "training": QUICK}
    with pytest.raises(ConfigError, match=said):
        steal(local(victim), out=tmp_path, **{**usual, **changes})


# Against a real server


@pytest.fixture(scope="module")
def server(victim: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    run = victim.folder
    served = serve(
        tmp_path_factory.mktemp("served"), f"mlp={run}", f"hard={run}@show=label",
        f"few={run}@top=3+decimals=2", f"raw={run}@show=logits",
    )  # fmt: skip
    yield served
    stop(served)


@pytest.mark.parametrize("form", ["{}", "{}/infer", "{}/", "{}/versions/1", "{}/versions/1/infer"])
def test_a_models_url_is_enough_to_ask_it(server: Served, form: str) -> None:
    url = f"http://{server.address}/v2/models/raw"
    version = "/versions/1" if "versions" in form else ""
    assert about_of(find(form.format(url))).target == url + version
    with pytest.raises(ConfigError, match="The URL names the model raw, and --model mlp"):
        find(url, model="mlp")


@pytest.mark.parametrize(
    ("model", "kind"),
    [("mlp", "probabilities"), ("hard", "label"), ("few", "probabilities"), ("raw", "logits")],
)
def test_whatever_a_server_shows_makes_a_clone(
    server: Served, tmp_path: Path, model: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "theft"
    words = ["steal", f"http://{server.address}", "--model", model, "--pool", "digits",
             "--budget", "200,400", "--student", "mlp", "--fidelity", "60", "--epochs", "8",
             "--batch-size", "32", "--per-request", "32", "--price-per-1000", "1",
             "--out", str(out), "--json", "-q"]  # fmt: skip
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["kind"], told["spent"], told["measuring"]) == (kind, 340, 60)
    assert told["clones"][-1]["fidelity"]["value"] > 0.6
    before = sum(entry["images"] for entry in server.entries() if entry["model"] == model)
    assert before == 400
    assert main(words) == 0
    assert sum(entry["images"] for entry in server.entries() if entry["model"] == model) == before
    assert {"report.html", "records.jsonl"} <= set(os.listdir(out))
    capsys.readouterr()
    assert main(["ledger", str(out), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["purpose"]: line["queries"] for line in lines} == {"train": 340, "measure": 60}


def test_a_model_has_to_be_named_where_there_are_several(
    server: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["steal", f"http://{server.address}", "--pool", "digits", "--budget", "20",
             "--student", "mlp", "--out", str(tmp_path)]  # fmt: skip
    assert main(words) == 1
    assert "serves mlp, hard, few, raw; choose one with --model" in capsys.readouterr().err
    assert main([*words, "--model", "none"]) == 1
    assert "answered 404: There is no model called 'none'" in capsys.readouterr().err


def test_a_server_that_wants_a_key_gets_one_and_its_budget_ends_the_harvest(
    victim: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    keys = str(tmp_path / "keys.sqlite")
    assert main(["keys", keys, "--add", "thief", "--budget", "150"]) == 0
    key = capsys.readouterr().out.strip()
    served = serve(tmp_path, f"m={victim.folder}", "--keys", keys)
    words = ["steal", f"http://{served.address}", "--pool", "digits", "--budget", "300",
             "--student", "mlp", "--fidelity", "20", "--per-request", "10", "--epochs", "1",
             "--out", str(tmp_path / "theft"), "-q"]  # fmt: skip
    try:
        assert main(words) == 1
        assert "answered 401" in capsys.readouterr().err
        monkeypatch.setenv("DENATURE_KEY", key)
        assert main(words) == 1
        assert "The budget of 150 images allows 0 more" in capsys.readouterr().err
        [train_tally] = [
            it for it in read_tallies(tmp_path / "theft" / LEDGER) if it.purpose == "train"
        ]
        assert (train_tally.queries, train_tally.answered) == (130, 130)  # 429 was never billed
        assert main(["keys", keys, "--change", "thief", "--budget", "320"]) == 0
        assert main(words) == 0
    finally:
        stop(served)


DRIVER = Path(__file__).with_name("steal_driver.py")


@pytest.mark.slow
def test_a_harvest_that_is_killed_fifty_times_loses_no_answer_and_overspends_nothing(
    victim: Run, tmp_path: Path
) -> None:
    """The driver forks a thief, which asks a real server, and kills it; see its text."""
    served = serve(tmp_path, f"m={victim.folder}")
    try:
        done = subprocess.run(
            [sys.executable, str(DRIVER), f"http://{served.address}", str(tmp_path / "out"), "50"],
            capture_output=True, text=True, timeout=280,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    finally:
        stop(served)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["kills"] >= 50
    assert told["most_unknown"] <= told["concurrency"]
    entries = [e for e in served.entries() if e["images"] and e["id"] != "check"]
    with closing(sqlite3.connect(tmp_path / "out" / LEDGER)) as db:
        ledger = {
            str(number): (status, images)
            for number, status, images in db.execute("SELECT id, status, images FROM requests")
        }
        [[spent]] = db.execute("SELECT sum(images) FROM requests WHERE billed")
        [[missing]] = db.execute("SELECT count(*) FROM queries WHERE answer IS NULL")
    heard = {entry["id"]: entry["images"] for entry in entries}
    assert len(heard) == len(entries)  # no request was sent twice
    for number, images in heard.items():  # nothing reached the server that the ledger had not noted
        assert ledger[number][1] == images
    for number, (status, images) in ledger.items():
        assert status in ("answered", "unknown", "failed")
        if status == "answered":
            assert heard[number] == images
    assert sum(heard.values()) <= spent <= told["budget"]
    assert told["unknown"] > 0  # or no kill ever found a request in flight
    assert (missing, told["answered"]) == (0, told["images"])
    assert told["equal"]  # the answers are those of the network itself


def test_an_interrupted_harvest_exits_in_good_order(server: Served, tmp_path: Path) -> None:
    words = ["steal", f"http://{server.address}", "--model", "mlp", "--pool", "noise",
             "--test", "digits", "--budget", "100000", "--student", "mlp", "--fidelity", "20",
             "--per-request", "1", "--concurrency", "2", "--out", str(tmp_path / "t")]  # fmt: skip
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = Command(*words, stderr=subprocess.PIPE, env=one)
    ledger, deadline = tmp_path / "t" / LEDGER, time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.2)
        with suppress(RunError):
            if any(it.purpose == "train" and it.answered for it in read_tallies(ledger)):
                break
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "answers; they are kept. Run the same command again" in said
    [tally] = [it for it in read_tallies(ledger) if it.purpose == "train"]
    assert (tally.unknown, tally.queries) == (0, tally.answered)


# What it costs


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


def test_a_theft_pays_off_only_where_prices_are_known_and_above_zero() -> None:
    timing = Timing(images=1, count=9, images_per_second=2000.4, p50_ms=0.5, p90_ms=1, p99_ms=2)

    def result(prices: Prices | None, paid: float | None) -> SpeedResult:
        return SpeedResult(clone=[timing], service=[], queries=0, prices=prices, paid=paid)

    priced = result(one_price(2.0), 3.0)
    assert priced.cost(1000) == pytest.approx(2.0)
    assert priced.paid_after == pytest.approx(1500)
    assert "as much for 1,500 images" in price_sentences(priced)[-1]
    for other in (result(None, 3.0), result(one_price(2.0), None), result(one_price(0.0), 3.0)):
        assert other.paid_after is None
        assert not any("theft" in sentence for sentence in price_sentences(other))
    assert result(None, None).cost(1000) is None
    assert price_sentences(result(None, None)) == []
    assert timing_table(priced)[1:] == [["clone", "1", "2,000", "0.50", "1.00", "2.00", "9"]]


@pytest.mark.slow
def test_a_clone_is_timed_beside_the_service(
    server: Served, victim: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theft = api.steal(local(victim), "digits", student="mlp", budget=[60], out=tmp_path,
                      price_per_1000=2, fidelity=10, training=QUICK).result  # fmt: skip
    words = ["speed", theft.clones[0].folder, "--against", f"http://{server.address}", "--model",
             "mlp", "--queries", "60", "--per-request", "10", "--price-per-1000", "4"]  # fmt: skip
    before = sum(entry["images"] for entry in server.entries())
    assert main([*words, "--json", "-q"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    asked = sum(entry["images"] for entry in server.entries()) - before
    assert told["queries"] == asked == 60
    assert (told["paid"], told["paid_after"]) == (pytest.approx(0.1), pytest.approx(25))
    assert told["costs"] == {"1000": 4.0, "1000000": 4000.0}
    assert [it["images"] for it in told["clone"]] == [1, 256]
    assert [it["images"] for it in told["service"]] == [1, 10]
    for it in told["clone"] + told["service"]:
        assert 0 < it["p50_ms"] <= it["p90_ms"] <= it["p99_ms"]
        assert it["images_per_second"] > 0
    assert main([*words, "-q"]) == 0
    said = capsys.readouterr().out
    assert "the service charges as much for 25 images" in said
    assert "US $ 4.00 for a thousand images, US $ 4,000.00 for a million" in said
    assert main([*words[:-6], "--queries", "5"]) == 1
    assert "it must be at least 30" in capsys.readouterr().err
