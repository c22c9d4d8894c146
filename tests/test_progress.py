"""What progress says: rates of the last part, sizes that change, reports of workers."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from denature.core.progress import AT_MOST, Both, Meter, Relay, Silent, Task, short_seconds
from denature.core.stopping import Stopper
from denature.data import Dataset
from denature.extract import ExtractionConfig, steal
from denature.extract.victims.local import local
from denature.robust.config import AttackConfig
from denature.robust.evaluation import evaluate
from denature.robust.target import Target
from denature.train import Normal, Order, Training, make
from denature.train.remote import RemoteBatch
from denature.train.reports import EVERY_S, Received, Report, Reporter
from denature.train.session import Session
from denature.train.workers import carry_out

QUICK = Training(epochs=2, precision="fp32", device="cpu", batch_size=256)


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Tally(Silent):
    """The tasks that were opened, with what they were told."""

    def __init__(self) -> None:
        self.meters: list[Meter] = []
        self.notes: list[str] = []
        self.steps: dict[str, list[float]] = {}

    @contextmanager
    def task(self, name: str, total: float, unit: str) -> Iterator[Task]:
        meter = Meter(name, total, unit)
        self.meters.append(meter)
        yield _Kept(meter, self)

    def named(self, name: str) -> Meter:
        [meter] = [meter for meter in self.meters if meter.name == name]
        return meter


class _Kept:
    def __init__(self, meter: Meter, tally: Tally) -> None:
        self.meter, self.tally = meter, tally

    def advance(self, amount: float, note: str = "") -> None:
        self.meter.advance(amount, note)
        self.tally.notes += [note] if note else []
        if amount:
            self.tally.steps.setdefault(self.meter.name, []).append(amount)

    def grow(self, amount: float) -> None:
        self.meter.grow(amount)


# Rates


def test_the_rate_is_that_of_the_last_part() -> None:
    """Three small runs in a minute, and then ones that take a hundred times as long."""
    clock = Clock()
    meter = Meter("all", 2200, "images", clock=clock)
    for _ in range(30):
        clock.now += 2
        meter.advance(10)
    assert meter.left == pytest.approx(1900 / 5)
    for _ in range(30):
        clock.now += 10
        meter.advance(1)
    assert meter.rate == pytest.approx(0.1, rel=0.15)
    assert meter.left == pytest.approx((2200 - 330) / 0.1, rel=0.15)
    assert meter.elapsed == 360


def test_a_warm_up_is_not_taken_for_the_rate() -> None:
    clock = Clock()
    meter = Meter("a", 1000, "images", clock=clock)
    clock.now += 90
    meter.advance(1)
    assert meter.left is None
    for _ in range(20):
        clock.now += 1
        meter.advance(10)
    assert meter.left == pytest.approx(799 / 10)


def test_the_first_advances_of_much_work_say_nothing_of_its_end() -> None:
    """A demo of 90 seconds once said that 13 hours were left, after 64 of its images."""
    clock = Clock()
    meter = Meter("a", 949_080, "images", clock=clock)
    for _ in range(3):
        clock.now += 3
        meter.advance(64)
    assert meter.left is None
    clock.now += 3
    meter.advance(60_000)
    assert meter.left is not None
    assert meter.left < 300


def test_work_that_stalls_takes_longer_and_rare_advances_have_a_rate() -> None:
    clock = Clock()
    meter = Meter("a", 10, "runs", clock=clock)
    for _ in range(4):
        clock.now += 100
        meter.advance(1)
    before = meter.left
    assert before is not None
    assert before == pytest.approx(600)
    clock.now += 400
    assert meter.left is not None
    assert meter.left > 1.5 * before


def test_what_need_not_be_done_counts_neither_as_done_nor_for_the_rate() -> None:
    clock = Clock()
    meter = Meter("a", 1000, "images", clock=clock)
    for _ in range(10):
        clock.now += 5
        meter.advance(10)
    meter.grow(-800)
    assert (meter.total, meter.done, meter.rate) == (200, 100, 2)
    assert meter.left == 50
    assert meter.line == "a: 100 of 200 images, 50%, 2 images/s, 50 s, 50 s left"
    meter.unit = f"images{AT_MOST}"
    assert meter.line == ("a: 100 of 200 images at most, 50%, 2 images/s, 50 s, 50 s left at most")
    meter.advance(100)
    assert meter.line == "a: 200 of 200 images in 50.0 s"


def test_a_size_that_is_not_known_is_not_shown() -> None:
    clock = Clock()
    meter = Meter("a", 0, "pictures", clock=clock)
    clock.now += 30
    assert meter.line == "a: 30 s"
    meter.advance(60, "train")
    assert (meter.left, meter.finished) == (None, False)
    assert meter.line == "a: 60 pictures, 30 s (train)"


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [(0.4, "0 s"), (119, "119 s"), (121, "2.0 min"), (3000, "50 min"), (1e5, "28 h")],
)
def test_durations_are_short(seconds: float, wanted: str) -> None:
    assert short_seconds(seconds) == wanted


# Parts of a whole


def test_outermost_tasks_of_the_unit_are_a_part_of_the_whole() -> None:
    whole, shown = Meter("whole", 100, "images"), Tally()
    relay = Relay(_Kept(whole, shown), "images", shown)
    with relay.task("answers", 7, "answers") as other:
        other.advance(7)
    with relay.task("all", 60, "images") as outer, relay.task("one", 60, "images") as inner:
        Both(inner, outer).advance(50, "epoch 1")
        outer.grow(-10)
    assert (whole.done, whole.total) == (50, 90)
    assert [(m.name, m.done, m.total) for m in shown.meters] == [
        ("answers", 7, 7), ("all", 50, 50), ("one", 50, 60),
    ]  # fmt: skip
    assert shown.named("one").note == "epoch 1"


def test_a_batch_that_begins_again_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker dies after 40 of 100 images, of which 25 are in the state that is resumed."""
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    whole = Meter("all", 200, "images")
    received = Received(_Kept(whole, Tally()))

    def worker(batch: int, resumed: float, done: float) -> None:
        def send(report: Report) -> bool:
            received.count(report)
            return True

        reporter = Reporter(batch, send)
        reporter.flush()
        reporter.grow(-resumed)
        for _ in range(int(done)):
            clock.now += EVERY_S / 4
            reporter.advance(1)
        reporter.flush()

    worker(0, 0, 40)
    worker(1, 0, 100)
    assert (whole.done, whole.total) == (140, 200)
    worker(0, 25, 75)
    # 15 images were trained twice.
    assert (whole.done, whole.total) == (215, 215)


def test_what_cannot_be_sent_is_sent_later_and_not_too_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, sent = Clock(), list[Report]()
    monkeypatch.setattr(time, "monotonic", clock)
    full = [False, True, True, False, False]

    def send(report: Report) -> bool:
        if not (blocked := full.pop(0)):
            sent.append(report)
        return not blocked

    reporter = Reporter(3, send)
    reporter.flush()
    for _ in range(12):
        clock.now += EVERY_S / 3
        reporter.advance(2)
    assert full == [False] if len(full) == 1 else not full
    reporter.advance(1)
    full = [False]
    reporter.flush()
    assert sum(report.done for report in sent) == 25
    assert [report.begins for report in sent] == [True, *[False] * (len(sent) - 1)]


# Runs


def orders(out: Path, *seeds: int, **training: Any) -> list[Order]:
    return [
        Order(
            net="mlp", objective=Normal(), training=replace(QUICK, seed=seed, **training),
            under=out,
        )
        for seed in seeds
    ]  # fmt: skip


def test_runs_advance_with_the_images_of_each(digits: Dataset, tmp_path: Path) -> None:
    make(orders(tmp_path, 0, fraction=0.3), digits)
    tally = Tally()
    # A finished run, one of another length, and two orders of one run.
    wanted = [*orders(tmp_path, 0, 1, 1, fraction=0.3), *orders(tmp_path, 2, epochs=3)]
    _, run, _, longer = make(wanted, digits, session=Session(progress=tally))
    whole = tally.named("3 runs")
    assert run.record.data is not None
    assert longer.record.data is not None
    assert whole.finished
    assert whole.done == 2 * run.record.data.train + 3 * longer.record.data.train
    assert whole.total == pytest.approx(whole.done)
    assert max(tally.steps["3 runs"]) <= QUICK.batch_size
    assert [note for note in tally.notes if "finished" in note] == [
        "1 finished", "2 finished", "3 finished",
    ]  # fmt: skip
    assert {meter.name for meter in tally.meters} == {
        "3 runs", "normal mlp, seed 1", "normal mlp, seed 2",
    }  # fmt: skip


class Here:
    """Workers in this process, which report as those of others do."""

    size = 2

    def carry_out(
        self,
        batches: Sequence[RemoteBatch],
        stopper: Stopper,
        task: Task,
        made: Callable[[int], None],
    ) -> None:
        received = Received(task)

        def send(report: Report) -> bool:
            received.count(report)
            return True

        for number, batch in enumerate(batches):
            carry_out(batch, Reporter(number, send))
            made(len(batch.orders))

    def close(self) -> None: ...


def test_workers_count_the_images_that_they_train(digits: Dataset, tmp_path: Path) -> None:
    """Fewer than planned, where a part is held out for validation."""
    tally = Tally()
    wanted = orders(tmp_path, 0, 1, 2, checkpoint="best-validation")
    runs = make(wanted, digits, session=Session(progress=tally, workers=Here()))
    data = runs[0].record.data
    assert data is not None
    assert data.train < len(digits.train)
    whole = tally.named("3 runs")
    assert whole.done == 3 * 2 * data.train
    assert whole.total == pytest.approx(whole.done)


def test_a_single_run_has_one_task(digits: Dataset, tmp_path: Path) -> None:
    tally = Tally()
    make(orders(tmp_path, 0), digits, session=Session(progress=tally))
    [meter] = tally.meters
    assert (meter.name, meter.done) == ("normal mlp, seed 0", 2 * len(digits.train))
    assert meter.note.startswith("epoch 2/2")


def test_a_theft_names_the_budget_that_it_trains_for(digits: Dataset, tmp_path: Path) -> None:
    [victim] = make(orders(tmp_path / "victim", 0), digits)
    tally = Tally()
    steal(
        local(victim, kind="probabilities"), net="mlp", pool="digits", budgets=[100, 300],
        out=tmp_path / "theft", stealing=ExtractionConfig(test_images=20, seeds=2), training=QUICK,
        session=Session(progress=tally),
    )  # fmt: skip
    whole = tally.named("clones")
    assert whole.done == whole.total == 2 * 2 * (80 + 280)  # the others measure fidelity
    assert "of 280 queries, budget 2 of 2" in tally.notes


def test_an_attack_shows_its_own_passes(digits: Dataset, tmp_path: Path) -> None:
    [victim] = make(orders(tmp_path / "victim", 0), digits)
    config = AttackConfig(
        effort="quick",
        attacks=("fgsm", "carlini-wagner"),
        samples=20,
        batch_size=10,
        linf=(0.1, 0.2),
    )
    images = digits.test.images[digits.test.rows[:8]].float().div(255)

    def attacked() -> Tally:
        tally = Tally()
        target = Target(victim, images, device="cpu")
        evaluate(target, None, digits, config, tmp_path / "out", session=Session(progress=tally))
        return tally

    tally = attacked()
    whole, slow = tally.meters[0], tally.named("carlini-wagner")
    assert whole.name.startswith("attacking ")
    assert whole.done == pytest.approx(whole.total)
    assert slow.done == pytest.approx(slow.total)
    assert len(tally.steps["carlini-wagner"]) > 100
    assert slow.done > 50 * tally.named("fgsm").done
    # What is stored takes no pass.
    again = attacked()
    assert all(meter.done == 0 for meter in again.meters)
    assert all(meter.total == pytest.approx(0, abs=1e-6) for meter in again.meters)
