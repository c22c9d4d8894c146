"""denature runs, denature answers, lists on the command line, trackers."""

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from denature.answers.store import ANSWERS, find_stores
from denature.cli.app import _combinations, main
from denature.core.errors import ConfigError, Stopped
from denature.core.stopping import Stopper
from denature.data import load
from denature.train import CheckpointConfig, Distilled, Normal, Run, Training, listing, train
from denature.train.answering import fill
from denature.train.listing import find
from denature.train.session import Session
from denature.train.tracking import trackers
from tests.interrupted import StopsAt
from tests.processes import Command

QUICK = Training(epochs=1, precision="fp32", device="cpu")


class Stops(Stopper):
    @property
    def reason(self) -> str | None:
        return "a test"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train("mlp", "digits", Normal(), QUICK, out=tmp_path_factory.mktemp("teacher") / "run")


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(words) == code
    out, errors = capsys.readouterr()
    return out if code == 0 else errors


def sweep(teacher: Run, out: Path, *more: str) -> list[str]:
    words = ["distill", "mlp", "--data", "digits", "--teacher", str(teacher.folder)]
    return [*words, "--epochs", "1", "--out", str(out), "-q", *more]


# Lists


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("distill mlp --data digits", ["distill mlp --data digits"]),
        ("distill mlp --alpha 0.1,0.9", ["distill mlp --alpha 0.1", "distill mlp --alpha 0.9"]),
        ("distill a,b --seed=1,2", ["distill a --seed 1", "distill a --seed 2",
                                    "distill b --seed 1", "distill b --seed 2"]),
        ("train mlp --milestones 1,2 --lr 1,2", ["train mlp --milestones 1,2 --lr 1",
                                                 "train mlp --milestones 1,2 --lr 2"]),
        ("train mlp --data a,b", ["train mlp --data a,b"]),
        ("train --net a,b", ["train --net a", "train --net b"]),
        ("train mlp --lr", ["train mlp --lr"]),
        ("eval a,b --alpha 1,2", ["eval a,b --alpha 1,2"]),
    ],
)  # fmt: skip
def test_a_list_stands_for_a_command_line_of_each_value(given: str, expected: list[str]) -> None:
    assert [" ".join(words) for words in _combinations(given.split())] == expected


def test_a_sweep_makes_a_run_of_each_combination(
    teacher: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = sweep(teacher, tmp_path, "--alpha", "0.1,0.9", "--seed", "0,1", "--view-seed", "0")
    table = said(capsys, *words)
    assert [line.split()[:2] for line in table.splitlines()[:1]] == [["Kind", "Run"]]
    assert "alpha" in table
    lines = said(capsys, *words, "--json").splitlines()
    found = {
        (r["config"]["objective"]["alpha"], r["config"]["training"]["seed"])
        for r in map(json.loads, lines)
    }
    assert found == {(0.1, 0), (0.1, 1), (0.9, 0), (0.9, 1)}
    assert len(list(tmp_path.iterdir())) == 4
    assert "--alpha" in said(capsys, *sweep(teacher, tmp_path, "--alpha", "0.1,x"), code=2)
    assert "alpha is 7" in said(capsys, *sweep(teacher, tmp_path, "--alpha", "0.1,7"), code=1)


# denature runs


def test_runs_are_listed_compared_and_pruned(
    teacher: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, *sweep(teacher, tmp_path / "s", "--alpha", "0.1,0.9", "--keep-every", "1"))
    with pytest.raises(Stopped):
        train(
            "mlp", "digits", Normal(), QUICK, out=tmp_path / "cut", session=Session(stopper=Stops())
        )
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "record.json").write_text("{")

    def states() -> list[str]:
        return sorted(run.state for run in find([tmp_path]))

    assert states() == ["damaged", "finished", "finished", "unfinished"]
    listed = said(capsys, "runs", str(tmp_path))
    assert "4 runs, 2 of them finished." in listed
    assert "unfinished" in listed
    compared = said(capsys, "runs", str(tmp_path / "s"), "--compare")
    assert compared.split()[:3] == ["Run", "State", "alpha"]
    assert "temperature" not in compared
    assert [line.split()[2] for line in compared.splitlines()[1:3]] == ["0.1", "0.9"]
    plain = [
        json.loads(line) for line in said(capsys, "runs", str(tmp_path), "--json").splitlines()
    ]
    assert {run["state"] for run in plain} == set(states())
    assert {run["source"] for run in plain} == {None, str(teacher.folder)}
    would = said(capsys, "runs", str(tmp_path), "--prune", "unfinished", "--prune", "snapshots")
    assert would.count("would remove") == 3
    assert len(states()) == 4
    said(capsys, "runs", str(tmp_path), "--prune", "snapshots", "--prune", "unfinished", "--yes")
    assert states() == ["damaged", "finished", "finished"]
    assert not list(tmp_path.rglob("snapshots"))
    said(capsys, "runs", str(tmp_path), "--prune", "damaged", "--yes")
    assert states() == ["finished", "finished"]
    assert "to prune" in said(capsys, "runs", str(tmp_path), "--prune", "weights", code=1)
    assert "no folder" in said(capsys, "runs", str(tmp_path / "none"), code=1)


def test_a_run_that_finished_since_it_was_listed_is_not_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one that a scheduler went on with meanwhile."""
    out = tmp_path / "runs" / "a"
    with pytest.raises(Stopped):
        train("mlp", "digits", Normal(), QUICK, out=out, session=Session(stopper=StopsAt(3)))
    listed = listing.find([tmp_path / "runs"])
    assert [run.state for run in listed] == ["unfinished"]
    train("mlp", "digits", Normal(), QUICK, out=out)
    monkeypatch.setattr(listing, "find", lambda places: listed)
    assert main(["runs", str(tmp_path / "runs"), "--prune", "unfinished", "--yes"]) == 0
    assert "it is finished now" in capsys.readouterr().err
    assert (out / "record.json").exists()


def test_what_a_strangers_link_points_to_is_not_pruned(tmp_path: Path, teacher: Run) -> None:
    assert teacher.folder is not None
    shutil.copytree(teacher.folder, tmp_path / "runs" / "stranger")
    precious = tmp_path / "precious"
    (precious / "sub").mkdir(parents=True)
    (precious / "photo.jpg").write_bytes(b"x")
    (tmp_path / "runs" / "stranger" / "snapshots").symlink_to(precious)
    assert main(["runs", str(tmp_path / "runs"), "--prune", "snapshots", "--yes"]) == 0
    assert sorted(path.name for path in precious.iterdir()) == ["photo.jpg", "sub"]
    assert not (tmp_path / "runs" / "stranger" / "snapshots").is_symlink()


def test_records_that_are_newer_or_not_fetched_are_not_damaged(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "0" + "\nsize 9\n"
    for name, text in (("newer", '{"schema": 99}'), ("lfs", pointer), ("cut", '{"schema": 1')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(text)
    states = {run.folder.name: run.state for run in listing.find([tmp_path])}
    assert states == {"newer": "unreadable", "lfs": "unreadable", "cut": "damaged"}
    assert [path.name for _, path in listing.prunable(listing.find([tmp_path]), "damaged")] == [
        "cut"
    ]


def test_a_run_at_work_is_seen_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("denature.train.run.PATIENCE_S", 0.1)
    out = tmp_path / "run"
    words = ["train", "mlp", "--data", "digits", "--epochs", "100000", "--out", str(out), "-q"]
    process = Command(*words)
    try:
        while not (out / "state" / "events").exists():
            assert process.poll() is None
            time.sleep(0.01)
        [listed] = find([tmp_path])
        assert listed.state == "running"
        assert main(words) == 1
        assert "Another process is at work" in capsys.readouterr().err
        assert main(["runs", str(tmp_path), "--prune", "runs", "--yes"]) == 0
        assert out.exists()
    finally:
        process.kill()
        process.wait()
    [listed] = find([tmp_path])
    assert listed.state == "unfinished"


# denature answers


def test_answers_are_filled_ahead_listed_verified_and_pruned(
    teacher: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    asked: list[int],
) -> None:

    root, run = tmp_path / "stores", str(teacher.folder)
    asking = [
        "--data",
        "digits",
        "--precision",
        "fp32",
        "--device",
        "cpu",
        "--augment",
        "crop",
        "-q",
    ]
    said(capsys, "answers", str(root), "--fill", run, *asking)
    said(capsys, "answers", str(root), "--fill", run, *asking, "--storage", "top-3")
    lines = said(capsys, "answers", str(root), "--json").splitlines()
    found = [json.loads(line) for line in lines]
    count = len(load("digits").train) * 9
    assert [(f["present"], f["damaged"]) for f in found] == [(count, 0)] * 2
    assert {f["key"]["storage"] for f in found} == {"exact", "top-3"}
    asked.clear()
    train(
        "mlp",
        "digits",
        Distilled(),
        Training(epochs=3, precision="fp32", device="cpu", augment="crop"),
        source=teacher,
        session=Session(checkpointing=CheckpointConfig(store=str(root))),
    )
    assert sum(asked) == 16  # all was there but what is asked as a check
    [exact] = [s for s in find_stores(root) if s.key and s.key.storage == "exact"]
    raw = bytearray((exact.folder / ANSWERS).read_bytes())
    raw[44 * 1000 + 9] ^= 1
    (exact.folder / ANSWERS).write_bytes(raw)
    verified = said(capsys, "answers", str(root), "--verify", "-q")
    assert [line.split()[-1] for line in verified.splitlines()[1:3]].count("1") == 1
    assert "would remove" in said(capsys, "answers", str(root), "--prune", "all")
    (exact.folder / "store.json").write_text("{}")
    assert "damaged" in said(capsys, "answers", str(root))
    said(capsys, "answers", str(root), "--prune", "damaged", "--yes")
    assert len(find_stores(root)) == 1
    assert json.loads(said(capsys, "answers", str(root), "--prune", "1d", "--json")) == {
        "would_remove": []
    }
    said(capsys, "answers", str(root), "--prune", "all", "--yes")
    assert "0 stores" in said(capsys, "answers", str(root))


def test_filling_can_stop_and_go_on_and_follow_a_training(teacher: Run, tmp_path: Path) -> None:
    options: dict[str, Any] = {"augment": "crop", "store": str(tmp_path), "device": "cpu"}
    with pytest.raises(Stopped, match="after 512 answers; they are kept"):
        fill(teacher, "digits", session=Session(stopper=Stops()), **options)
    [store] = find_stores(tmp_path)
    first = store.open().standing().present
    assert first >= 512
    fill(teacher, "digits", epochs=2, view_seed=5, **options)
    second = store.open().standing().present
    assert first < second < 3 * len(load("digits").train) + 4096
    assert fill(teacher, "digits", **options) == 9 * len(load("digits").train)


def test_filling_says_what_it_lacks(
    teacher: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--data" in said(capsys, "answers", "--fill", str(teacher.folder), code=1)
    assert "--fill" in said(capsys, "answers", "--data", "digits", code=1)
    from denature.answers import opening

    monkeypatch.setattr(opening, "STORE_LIMIT", 10)
    with pytest.raises(ConfigError, match="more than auto allows"):
        fill(teacher, "digits")


# Trackers


@pytest.mark.slow
def test_curves_go_to_a_real_tracker(
    teacher: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a process of its own: mlflow keeps one active run for all of it."""
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    base = tmp_path / "m.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{base}")
    for more in (["--alpha", "0.1,0.9"], []):
        words = sweep(teacher, tmp_path / f"runs{len(more)}", *more, "--track", "mlflow")
        done = subprocess.run(
            [sys.executable, "-m", "denature", *words],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    with sqlite3.connect(base) as rows:
        metrics = rows.execute("select key, step from metrics").fetchall()
        params = dict(rows.execute("select key, value from params").fetchall())
    assert ("distilled alpha 0.1/loss/train", 1) in metrics
    assert ("distilled alpha 0.9/accuracy/train", 1) in metrics
    assert ("loss/train", 1) in metrics
    assert params["temperature"] == "4.0"


def test_trackers_that_are_not_there_are_said() -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    with (
        pytest.raises(ConfigError, match=r"no tracker 'mlfow'.*mlflow"),
        trackers(["mlfow"], title="", run="", config={}),
    ):
        pass
    with (
        pytest.raises(ConfigError, match="pip install clearml"),
        trackers(["clearml"], title="", run="", config={}),
    ):
        pass
