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

from denature.core.errors import ConfigError, MissingExtra, RunError, Stopped
from denature.core.stopping import Stopper, parse_duration
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
    train,
)
from denature.train import passes as passes_module
from denature.train.identity import plan_id, plan_of
from denature.train.job import Job
from denature.train.session import Session
from denature.train.team import ProcessGroup
from denature.train.tracking import tensorboard
from tests.interrupted import Noisy, StopsAt
from tests.processes import Command, run_command

QUICK = Training(epochs=2, batch_size=96, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def teacher(data: Dataset) -> Run:
    return train("mlp", data, Normal(), QUICK)


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


@pytest.mark.parametrize("left", [".plan.json.1234abcd.tmp", "state.safetensors"])
def test_a_folder_whose_preparation_was_killed_is_used(
    data: Dataset, tmp_path: Path, left: str
) -> None:
    """A kill may leave the state's folder without a plan, which nothing but a run writes."""
    (tmp_path / "run" / "state").mkdir(parents=True)
    (tmp_path / "run" / "state" / left).write_bytes(b"half")
    made = train("mlp", data, Normal(), QUICK, out=tmp_path / "run")
    assert not (tmp_path / "run" / "state").exists()
    assert made.record.accuracy is not None


def test_a_folder_called_state_that_no_run_wrote_stays(data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "notes.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(RunError, match="files that no run wrote, such as state"):
            train("mlp", data, Normal(), QUICK, out=tmp_path, overwrite=overwrite)
    assert (tmp_path / "state" / "notes.txt").exists()


def test_a_kill_while_a_finished_run_is_tidied_loses_nothing(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever of the state is left then, the run is finished."""
    seen: list[set[str]] = []

    def cut(folder: Path, **_: Any) -> None:
        seen.append({path.name for path in folder.iterdir()})
        raise OSError("killed")

    session = Session(checkpointing=CheckpointConfig(save_every_s=0))
    with monkeypatch.context() as patch:
        patch.setattr("denature.train.run.shutil.rmtree", cut)
        first = train("mlp", data, Normal(), QUICK, out=tmp_path / "run", session=session)
    assert "plan.json" not in seen[-1]
    monkeypatch.setattr(passes_module, "fit", None)
    again = train("mlp", data, Normal(), QUICK, out=tmp_path / "run")
    assert again.record == first.record


def test_a_stop_without_a_folder_says_that_nothing_is_kept(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="nothing is kept, since the run has no folder"):
        train("mlp", data, Normal(), QUICK, session=Session(stopper=StopsAt(3)))


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
    """The weights' digest of a run that is not killed."""
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
            if error is not None:
                raise error
            for step in range(4, 40):
                write({"loss/train": 1.0, "accuracy/train": 0.5}, step)

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
    whole = train("mlp", data, Distilled(), QUICK, source=teacher, out=tmp_path / "whole")
    assert run.record.config == whole.record.config


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
