"""Runs that survive: stopped, killed or asked for twice, they come out the same."""

import json
import pickle
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from denature.core.errors import ConfigError, MissingExtra, RunError, Stopped
from denature.core.stopping import Stopper, parse_duration
from denature.core.weights import digest
from denature.data import Dataset, load
from denature.train import (
    CheckpointConfig,
    Distilled,
    Nasty,
    Normal,
    Order,
    Run,
    Training,
    load_run,
    make,
    train,
)
from denature.train import passes as passes_module
from denature.train.identity import plan_id, plan_of
from denature.train.job import Job
from denature.train.session import Session
from denature.train.team import ProcessGroup
from denature.train.tracking import tensorboard
from tests.processes import Command, run_command

QUICK = Training(epochs=2, batch_size=96, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def teacher(data: Dataset) -> Run:
    return train("mlp", data, Normal(), QUICK)


class StopsAt(Stopper):
    """Stops when it is asked for the n-th time."""

    def __init__(self, asked: int) -> None:
        super().__init__()
        self.left = asked

    @property
    def reason(self) -> str | None:
        self.left -= 1
        return "a test" if self.left <= 0 else None


class Noisy(nn.Module):
    """Dropout, which draws at every step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.body(x)
        return found


CASES: dict[str, dict[str, Any]] = {
    "adam": {"net": "cnn", "objective": Normal()},
    "sgd with momentum": {
        "net": "mlp", "objective": Normal(), "training": {"optimizer": "sgd", "lr": 0.01},
    },
    "adamw, best validation": {
        "net": "mlp", "objective": Normal(),
        "training": {"optimizer": "adamw", "checkpoint": "best-validation", "lr": 0.02},
    },
    "nasty": {"net": "mlp", "objective": Nasty(temperature=20, warmup=0.5)},
    "distilled": {"net": "mlp", "objective": Distilled(temperature=20)},
    "dropout": {"net": Noisy, "objective": Normal()},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_was_stopped_often_ends_like_one_that_was_not(
    case: str, data: Dataset, teacher: Run, tmp_path: Path
) -> None:
    given = CASES[case]
    training = replace(QUICK, **given.get("training", {}))

    def make(out: Path, stopper: Stopper | None) -> Run:
        net = given["net"] if isinstance(given["net"], str) else given["net"]()
        return train(
            net, data, given["objective"], training, source=teacher, out=out,
            session=Session(stopper=stopper or Stopper()),
        )  # fmt: skip

    whole = make(tmp_path / "whole", None)
    said: list[str] = []
    while True:
        try:
            pieces = make(tmp_path / "pieces", StopsAt(7))
            break
        except Stopped as stop:
            said.append(str(stop))
    assert len(said) >= 3
    assert all(f"step {7 * n} of" in line for n, line in enumerate(said, 1))
    assert pieces.record.net.digest == whole.record.net.digest
    assert pieces.record.id == whole.record.id
    same = [
        [replace(epoch, seconds=0.0) for epoch in run.record.history] for run in (whole, pieces)
    ]
    assert same[0] == same[1]
    assert not (tmp_path / "pieces" / "state").exists()


def test_a_finished_run_is_not_made_again(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train("mlp", data, Normal(), QUICK, out=tmp_path / "run")
    monkeypatch.setattr(passes_module, "fit", None)
    again = train("mlp", data, Normal(), QUICK, out=tmp_path / "run")
    assert again.record == first.record
    kept = train("mlp", data, Normal(), QUICK, out=tmp_path / "run", overwrite=True)
    assert kept.record == first.record


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lr": 0.5}, r"training\.lr was 0\.001, is 0\.5"),
        ({"epochs": 3}, r"training\.epochs was 2, is 3"),
        ({"fraction": 0.5}, r"data was"),
    ],
)
def test_an_unfinished_run_is_not_taken_up_with_another_config(
    change: dict[str, Any], said: str, data: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        train("mlp", data, Normal(), QUICK, out=tmp_path, session=Session(stopper=StopsAt(3)))
    with pytest.raises(RunError, match=said):
        train("mlp", data, Normal(), replace(QUICK, **change), out=tmp_path)


def test_a_damaged_state_is_said_to_be_damaged(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train("mlp", data, Normal(), QUICK, out=tmp_path, session=Session(stopper=StopsAt(3)))
    state = tmp_path / "state" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"is damaged.*Delete it"):
        train("mlp", data, Normal(), QUICK, out=tmp_path)


def test_snapshots_are_kept_as_often_as_asked(data: Dataset, tmp_path: Path) -> None:
    train(
        "mlp",
        data,
        Normal(),
        replace(QUICK, epochs=5),
        out=tmp_path,
        session=Session(checkpointing=CheckpointConfig(keep_every=2)),
    )
    names = sorted(p.name for p in (tmp_path / "snapshots").iterdir())
    assert names == ["epoch-0002", "epoch-0004"]


def driver(log: Path, out: Path) -> Command:
    return Command(log, out, module="tests.kill_driver")


def digest_of(log: Path, out: Path) -> str:
    """The weights' digest of a run that nobody kills."""
    assert driver(log, out).wait(timeout=120) == 0
    return log.read_text().split()[-1]


MOMENTS = {"step": 4, "store": 30, "evaluate": 0, "state": 1, "rename": 1}
"""Where a run is killed, and how many of these it may pass before."""

KILLS = 5


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_is_killed_at_any_moment_ends_with_the_same_weights(
    moment: str, tmp_path: Path, undisturbed: str
) -> None:
    """Kill -9 five times and more; the log of each process ends with the moment of its death."""
    deaths: Counter[str] = Counter()
    for attempt in range(4 * KILLS):
        log = tmp_path / f"log-{attempt}"
        log.touch()
        process = driver(log, tmp_path / "run")
        while process.poll() is None and log.read_text().split().count(moment) <= MOMENTS[moment]:
            time.sleep(0.0005)
        process.kill()
        process.wait()
        deaths[(log.read_text().split() or ["start"])[-1]] += 1
        if (tmp_path / "run" / "record.json").exists():
            load_run(tmp_path / "run")
            break
        if deaths[moment] == KILLS:
            break
    print(f"killed during: {dict(deaths)}")
    assert deaths[moment] >= KILLS, deaths
    assert digest_of(tmp_path / "log-last", tmp_path / "run") == undisturbed


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("undisturbed")
    return digest_of(folder / "log", folder / "run")


def words(out: Path, *more: str, epochs: int = 12) -> list[str]:
    wanted = ["train", "cnn", "--data", "digits", "--epochs", str(epochs), "--precision", "fp32"]
    return [*wanted, "--out", str(out), "--json", "-q", *more]


@pytest.mark.slow
def test_a_time_limit_ends_with_75_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """Even a limit that is over before training starts gets one step further each time."""
    for step in (1, 2):
        cut = run_command(*words(tmp_path / "run", "--time-limit", "0.001s"))
        assert cut.returncode == 75
        assert f"Stopped by the time limit at step {step} of 144" in cut.stderr
        assert "Run the same command again to go on" in cut.stderr
    end = run_command(*words(tmp_path / "run"))
    assert end.returncode == 0
    whole = Training(epochs=12, precision="fp32")
    undivided = train("cnn", "digits", Normal(), whole)
    assert json.loads(end.stdout.splitlines()[-1])["net"]["digest"] == undivided.record.net.digest


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_puts_the_run_aside(tmp_path: Path, number: int, code: int) -> None:
    out = tmp_path / "run"
    pipe = subprocess.PIPE
    process = Command(*words(out, epochs=500), stderr=pipe, stdout=pipe)
    limit = time.monotonic() + 60
    while not (out / "state" / "events").exists() and time.monotonic() < limit:
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"Stopped by {signal.Signals(number).name} at step" in errors.splitlines()[-1]
    assert (out / "state" / "state.safetensors").exists()
    assert not (out / "record.json").exists()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("9m", 540), ("1.5h", 5400)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-3s", "0", "9 minutes", "nan", "inf"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="duration"):
        parse_duration(text)


def test_students_in_one_pass_are_those_trained_alone(data: Dataset, teacher: Run) -> None:
    """Other networks, alphas, temperatures, seeds and answers, from one pass over the data."""
    base = replace(QUICK, view_seed=7, augment="crop")

    def order(net: str, objective: Distilled, **changes: Any) -> Order:
        return Order(
            net=net, objective=objective, training=replace(base, **changes), source=teacher
        )

    orders = [
        order("mlp", Distilled(alpha=0.1)),
        order("cnn", Distilled(alpha=0.9, temperature=20)),
        order("mlp", Distilled(answers="labels"), seed=3),
        order("mlp", Distilled(), optimizer="sgd", lr=0.01),
    ]
    together = make(orders, data)
    for order_, run in zip(orders, together, strict=True):
        [alone] = make([order_], data)
        assert digest(alone.network) == run.record.net.digest
        assert alone.record.id == run.record.id


def test_a_pass_that_was_stopped_goes_on_with_all_its_students(
    data: Dataset, teacher: Run, tmp_path: Path
) -> None:
    """Also where a kill left their states at different steps, and where one is finished."""

    def orders(folder: str) -> list[Order]:
        return [
            Order(net="mlp", objective=Distilled(alpha=alpha), training=QUICK, source=teacher,
                  out=tmp_path / folder / str(alpha))
            for alpha in (0.1, 0.5, 0.9)
        ]  # fmt: skip

    whole = make(orders("whole"), data)
    with pytest.raises(Stopped):
        make(orders("cut")[:2], data, session=Session(stopper=StopsAt(9)))
    with pytest.raises(Stopped):
        make(orders("cut")[1:2], data, session=Session(stopper=StopsAt(4)))
    make(orders("cut")[2:], data)
    cut = make(orders("cut"), data)
    assert [r.record.net.digest for r in cut] == [r.record.net.digest for r in whole]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many learners each pass had."""
    counts: list[int] = []
    from denature.train.loop import fit

    def counted(learners: Any, *args: Any, **kwargs: Any) -> None:
        counts.append(len(learners))
        fit(learners, *args, **kwargs)

    monkeypatch.setattr(passes_module, "fit", counted)
    return counts


@pytest.mark.parametrize("change", [{"epochs": 3}, {"batch_size": 32}, {"view_seed": 4}])
def test_runs_that_cannot_share_a_pass_get_passes_of_their_own(
    data: Dataset, change: dict[str, Any], passes: list[int]
) -> None:
    base = replace(QUICK, view_seed=0)
    trainings = (base, replace(base, **change), replace(base, seed=5))
    orders = [Order(net="mlp", objective=Normal(), training=it) for it in trainings]
    assert len(make(orders, data)) == 3
    assert passes == [2, 1]


def test_a_graph_of_runs_makes_each_once_and_again_only_what_changed(
    data: Dataset, tmp_path: Path, passes: list[int]
) -> None:
    """Teacher, nasty teacher, students: one knob re-trains what depends on it, nothing else."""

    def orders(omega: float) -> list[Order]:
        def under(net: str, objective: Any, asked: Order | None = None) -> Order:
            return Order(net=net, objective=objective, training=QUICK, source=asked, under=tmp_path)

        normal = under("cnn", Normal())
        nasty = under("cnn", Nasty(temperature=20, omega=omega), normal)
        return [under("mlp", Distilled(alpha=alpha), teacher)
                for teacher in (normal, nasty) for alpha in (0.5, 0.9)]  # fmt: skip

    first = make(orders(0.04), data)
    assert passes == [1, 3, 2]  # the nasty teacher and the students of the normal one ask the same
    assert len(list(tmp_path.iterdir())) == 6
    passes.clear()
    again = make(orders(0.04), data)
    assert passes == []
    assert [run.record for run in again] == [run.record for run in first]
    other = make(orders(0.01), data)
    assert sorted(passes) == [1, 2]
    assert [run.record.id for run in other[:2]] == [run.record.id for run in first[:2]]
    assert len({run.record.id for run in (*first, *other)}) == 6


def test_orders_of_one_run_in_one_folder_make_it_once(
    data: Dataset, teacher: Run, tmp_path: Path, passes: list[int]
) -> None:
    """Alpha 0.9 is what a soft student has where none is given."""

    def order(**fields: Any) -> Order:
        return Order(
            net="mlp", objective=Distilled(**fields), training=QUICK, source=teacher, under=tmp_path
        )

    first, second = make([order(), order(alpha=0.9)], data)
    assert passes == [1]
    assert first.record == second.record
    clash = [replace(order(alpha=alpha), under=None, out=tmp_path / "x") for alpha in (0.1, 0.2)]
    with pytest.raises(ConfigError, match=r"Two runs want the folder .*alpha was 0\.1, is 0\.2"):
        make(clash, data)


def test_a_disk_that_is_full_when_a_state_is_written_loses_nothing(
    data: Dataset, tmp_path: Path, disk_of: Callable[[str], Path]
) -> None:
    disk = disk_of("12m")
    whole = train("mlp", data, Normal(), QUICK, out=tmp_path / "whole")
    with pytest.raises(Stopped):
        train("mlp", data, Normal(), QUICK, out=disk / "run", session=Session(stopper=StopsAt(5)))
    state = disk / "run" / "state" / "state.safetensors"
    before = state.read_bytes()
    with pytest.raises(OSError, match="No space"), open(disk / "junk", "wb") as junk:
        junk.write(bytes(2**24))
    with pytest.raises(RunError, match=r"could not be written.*The one before is kept; make room"):
        train(
            "mlp",
            data,
            Normal(),
            QUICK,
            out=disk / "run",
            session=Session(checkpointing=CheckpointConfig(save_every_s=0)),
        )
    assert state.read_bytes() == before
    (disk / "junk").unlink()
    again = train("mlp", data, Normal(), QUICK, out=disk / "run")
    assert again.record.net.digest == whole.record.net.digest


def test_curves_on_a_full_disk_neither_wait_nor_hide_an_error(
    disk_of: Callable[[str], Path],
) -> None:
    disk = disk_of("1m")

    def draw(error: Exception | None) -> None:
        with tensorboard(disk / "events", after=3) as write:
            for step in range(4, 40):
                write({"loss/train": 1.0, "accuracy/train": 0.5}, step)
            if error is not None:
                raise error

    draw(None)
    with pytest.raises(OSError, match="No space"), open(disk / "junk", "wb") as junk:
        junk.write(bytes(2**21))
    with pytest.raises(OSError, match="No space"):
        draw(None)
    with pytest.raises(RunError, match="of its own"):
        draw(RunError("an error of its own"))


def test_a_run_that_dies_after_its_last_step_is_still_that_run(
    data: Dataset, teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_it() -> Run:
        return train("mlp", data, Distilled(), QUICK, source=teacher, out=tmp_path,
                     session=Session(checkpointing=CheckpointConfig(save_every_s=0)))  # fmt: skip

    with monkeypatch.context() as patch:
        patch.setattr("denature.train.passes.conclude", lambda job, dataset: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make_it()
    run = make_it()
    assert plan_id(plan_of(run.record)) == run.record.id
    assert make_it().record == run.record


def test_one_module_is_not_trained_by_two_orders(data: Dataset) -> None:
    mine = Noisy()
    orders = [Order(net=mine, objective=Normal(), training=replace(QUICK, lr=lr)) for lr in (1, 2)]
    with pytest.raises(ConfigError, match="train one module"):
        make(orders, data)


def test_more_processes_than_a_batch_has_pairs_are_refused(data: Dataset) -> None:
    order = Order(net="mlp", objective=Normal(), training=replace(QUICK, batch_size=8))
    with pytest.raises(ConfigError, match=r"5 processes.*at least 10"):
        Job.of(order, {}, data, ProcessGroup(0, 5))


@pytest.mark.parametrize("error", [Stopped("SIGTERM", "Stopped."), MissingExtra("x", "y", "z")])
def test_errors_come_back_from_other_processes(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert type(again) is type(error)


def test_milestones_may_be_a_list() -> None:
    made = Training(schedule="step", epochs=5, milestones=[2, 4])  # type: ignore[arg-type]
    assert made.milestones == (2, 4)
    assert hash(made)
