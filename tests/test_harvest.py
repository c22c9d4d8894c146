"""Thefts from a real server: how a victim is named, keys, interruptions and kills."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from denature.cli.app import main
from denature.core.errors import ConfigError, RunError
from denature.extract.asking.ledger import read_tallies
from denature.extract.compatibility import about_of
from denature.extract.stealing import steal
from denature.extract.theft import LEDGER
from denature.extract.victims.find import find
from denature.remote.errors import AskFailed
from denature.train import Run
from tests.processes import Command
from tests.served import Served, serve, serving, stop

pytestmark = pytest.mark.usefixtures("without_figures")


def test_targets_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"is no URL, no \.toml description of an HTTP API, no run's folder, no \.onnx or",
    ):
        find("nonsense")
    for target, meant in (
        ("127.0.0.1:8433", "Is it http://127.0.0.1:8433?"),
        ("mine/nets.py", "A function in that file is mine.nets:NAME."),
        ("mine.answer", "A function is named with a colon: mine:answer."),
        ("tests.class_means:Network", "is a class; wanted is a function.* --net tests.class_means"),
    ):
        with pytest.raises(ConfigError, match=meant.replace("?", r"\?")):
            find(target)
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
    with pytest.raises(AskFailed, match=r"cannot be reached: Cannot connect to host \S+ \["):
        steal(
            find("http://127.0.0.1:9"), net="mlp", pool="digits", budgets=[10], out=tmp_path / "x"
        )


@pytest.fixture(scope="module")
def server(victim: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    run = victim.folder
    with serving(
        tmp_path_factory.mktemp("served"), f"mlp={run}", f"hard={run}@show=label",
        f"few={run}@top=3+decimals=2", f"raw={run}@show=logits",
    ) as served:  # fmt: skip
        yield served


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
             "--budget", "200,400", "--student", "mlp", "--test-images", "60", "--epochs", "8",
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
             "--student", "mlp", "--test-images", "20", "--per-request", "10", "--epochs", "1",
             "--out", str(tmp_path / "theft"), "-q"]  # fmt: skip
    try:
        assert main(words) == 1
        said = capsys.readouterr().err
        assert "answered 401" in said
        assert "DENATURE_KEY, or a file named by --key-file" in said
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
             "--test", "digits", "--budget", "100000", "--student", "mlp", "--test-images", "20",
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
