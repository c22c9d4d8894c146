"""Runs in workers and on a real Ray cluster of this machine: same ids, same weights, deaths."""

import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from denature.cli.options import OutputOptions, RunOptions
from denature.core.errors import ConfigError
from denature.core.progress import Meter
from denature.core.record import read_record
from denature.core.stopping import Stopper
from denature.data import load
from denature.data.loading import loads_again
from denature.train import CheckpointConfig, Distilled, Normal, Order, Training, train
from denature.train.remote import RemoteBatch
from denature.train.run import Run
from denature.train.session import Session
from denature.train.workers import ProcessPool, RayPool
from tests.processes import Command

CREWS = {"processes": ("--workers", "2"), "ray": ("--ray", "local")}


@pytest.fixture(params=CREWS)
def pool(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Options for each kind of pool."""
    if request.param == "ray":
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'denature[ray]'")
    return CREWS[request.param]


QUICK = Training(epochs=1, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train("mlp", "digits", Normal(), QUICK, out=tmp_path_factory.mktemp("teacher") / "run")


def sweep(teacher: Run, out: Path, *more: str, epochs: int = 2) -> "subprocess.Popen[str]":
    assert teacher.folder is not None
    name, home = teacher.folder.name, teacher.folder.parent
    words = f"distill cnn --data digits --teacher {name} --epochs {epochs} --out {out}"
    alphas = "--alpha 0.1,0.9 --precision fp32 --device cpu --json -q --save-every 0.1s"
    # One thread, as Ray gives its workers: more may add in another order.
    return Command(
        *(*words.split(), *alphas.split(), *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=home,
        env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_NUM_CPUS": "2"},
    )


def results(process: "subprocess.Popen[str]") -> list[dict[str, Any]]:
    out, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    return [json.loads(line) for line in out.splitlines()]


def workers(pool: tuple[str, ...], driver: int) -> list[int]:
    """The processes of a pool that can be at work."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            title = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) if title else 0
        except OSError:
            continue
        if (
            title.startswith(b"ray::carry_out")
            if "--ray" in pool
            else (parent == driver and b"spawn_main" in title)
        ):
            found.append(int(entry.name))
    return found


@pytest.fixture(scope="module")
def here(teacher: Run, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Records of the sweep of 12 epochs in one process."""
    return results(sweep(teacher, tmp_path_factory.mktemp("here"), epochs=12))


@pytest.mark.slow
@pytest.mark.alone
def test_a_sweep_with_a_killed_worker_ends_like_one_in_this_process(
    teacher: Run, here: list[dict[str, Any]], tmp_path: Path, pool: tuple[str, ...]
) -> None:
    """Two workers, one killed in the middle of its run: its run is resumed by another one."""
    there = sweep(teacher, tmp_path / "there", *pool, epochs=12)
    limit = time.monotonic() + 120
    killed = None
    while killed is None and time.monotonic() < limit:
        states = list((tmp_path / "there").glob("*/state/state.safetensors"))
        busy = workers(pool, there.pid)
        if len(states) == 2 and len(busy) == 2:
            killed = busy[0]
            os.kill(killed, signal.SIGKILL)
        time.sleep(0.02)
    assert killed is not None
    records = results(there)
    assert [r["id"] for r in records] == [r["id"] for r in here]
    assert [r["net"]["digest"] for r in records] == [r["net"]["digest"] for r in here]
    # Full paths travel; a record keeps to what was said.
    assert teacher.folder is not None
    for run in (*records, *here):
        assert run["inputs"]["teacher"]["folder"] == teacher.folder.name
    assert not list((tmp_path / "there").glob("*/state"))


@pytest.mark.slow
@pytest.mark.alone
def test_a_deadline_and_a_signal_stop_the_workers_in_good_order(
    teacher: Run, tmp_path: Path, pool: tuple[str, ...]
) -> None:
    limit_s = "14s" if "--ray" in pool else "8s"  # a cluster takes seconds to start
    cut = sweep(teacher, tmp_path, *pool, "--time-limit", limit_s, epochs=5000)
    _, errors = cut.communicate(timeout=120)
    assert cut.returncode == 75, errors
    assert "the workers saved the states of their runs" in errors
    assert len(list(tmp_path.glob("*/state/state.safetensors"))) == 2
    before = [p.read_bytes() for p in tmp_path.glob("*/state/state.safetensors")]
    again = sweep(teacher, tmp_path, *pool, epochs=5000)
    limit = time.monotonic() + 120
    while [p.read_bytes() for p in tmp_path.glob("*/state/state.safetensors")] == before:
        assert time.monotonic() < limit
        time.sleep(0.2)
    again.send_signal(signal.SIGTERM)
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 75, errors
    assert "Stopped by SIGTERM" in errors


@pytest.fixture(scope="module")
def damaged(teacher: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of one epoch whose records say nothing."""
    folder = tmp_path_factory.mktemp("damaged")
    results(sweep(teacher, folder, epochs=1))
    records = list(folder.glob("*/record.json"))
    assert len(records) == 2
    for record in records:
        record.write_text("{}")
    return folder


@pytest.mark.slow
@pytest.mark.alone
def test_what_a_worker_refuses_is_said_here(
    teacher: Run, damaged: Path, pool: tuple[str, ...]
) -> None:
    failed = sweep(teacher, damaged, *pool, epochs=1)
    _, errors = failed.communicate(timeout=120)
    assert failed.returncode == 1
    assert errors.splitlines()[-1].startswith("denature: ")
    assert "record.json" in errors


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:9", r"No Ray cluster answers at '127\.0\.0\.1:9': .*ray start --head"),
        ("ray://127.0.0.1:9", "No Ray cluster answers"),
        ("nonsense", "wanted is auto, local, host:port"),
        ("host:port", "wanted is auto, local, host:port"),
    ],
)
def test_an_address_that_does_not_answer_is_said_at_once(address: str, said: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    clock = time.monotonic()
    with pytest.raises(ConfigError, match=said):
        RayPool(address)
    assert time.monotonic() - clock < 20


def batch_of(teacher: Run | None, **order: Any) -> RemoteBatch:
    given: dict[str, Any] = {"net": "mlp", "objective": Distilled(), "training": QUICK, **order}
    assert teacher is not None
    return RemoteBatch.of(
        [Order(**given)], [{"teacher": teacher}], load("digits"),
        overwrite=False, checkpointing=CheckpointConfig(), seconds=None,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.alone
def test_the_last_reports_count_and_a_dead_mailbox_ends_no_training(
    teacher: Run, tmp_path: Path
) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    tally = Meter("all", 0, "images")
    pool = RayPool("local", device="cpu")
    try:
        for name in ("reported", "unreported"):
            made: list[int] = []
            batch = batch_of(teacher, out=tmp_path / name)
            pool.carry_out([batch], Stopper(), tally, made.append)
            assert made == [1]
            assert read_record(tmp_path / name).kind == "distilled"
            assert tally.done == len(load("digits").train)  # of the first call alone
            ray.kill(pool._mailbox)
    finally:
        pool.close()


def test_what_cannot_travel_is_refused(teacher: Run, tmp_path: Path) -> None:
    from torch import nn

    assert batch_of(teacher, out=tmp_path).inputs == ({"teacher": teacher.folder},)
    with pytest.raises(ConfigError, match="name a factory"):
        batch_of(teacher, net=nn.Flatten(), out=tmp_path)
    with pytest.raises(ConfigError, match="come back in folders"):
        batch_of(teacher)
    with pytest.raises(ConfigError, match="in this process's memory only"):
        batch_of(Run(teacher.record, teacher.network), out=tmp_path)


class Refusing:
    """Workers that must not be asked."""

    size = 2

    def carry_out(self, *given: Any) -> None:
        raise AssertionError("sent")

    def close(self) -> None:
        pass


def test_runs_on_data_that_was_changed_in_memory_are_made_here(tmp_path: Path) -> None:
    data = load("digits")
    half = replace(data, train=data.train.divide(0.5, "half")[0])
    assert loads_again(data)
    assert not loads_again(half)
    assert not loads_again(replace(data, config=replace(data.config, source="noise")))
    session = Session(workers=Refusing())
    run = train("mlp", half, Normal(), QUICK, out=tmp_path / "here", session=session)
    assert run.digest == train("mlp", half, Normal(), QUICK).digest
    with pytest.raises(AssertionError, match="sent"):
        train("mlp", data, Normal(), QUICK, out=tmp_path / "there", session=session)


def test_no_workers_and_two_kinds_of_workers_are_refused() -> None:
    with pytest.raises(ConfigError, match="workers is 0; it must be at least 1"):
        ProcessPool(0)
    with (
        pytest.raises(ConfigError, match="pass one of them"),
        RunOptions(workers=2, ray="local").session(OutputOptions(), "cpu"),
    ):
        pass
