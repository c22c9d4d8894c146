"""Audits that were cut off, and that go on."""

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from denature.train import Run
from tests.audit_commands import audit_words, refused, told
from tests.class_means import ASKED, BROKEN, HERE
from tests.processes import Command
from tests.served import serve

pytestmark = pytest.mark.usefixtures("without_figures", "few_steps")


def test_a_model_that_fails_in_the_middle_is_asked_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = (f"{HERE}:breaking", "--defense", "rounding", "--per-request", "8")
    ASKED.clear()
    BROKEN[:] = [50]
    try:
        error = refused(capsys, *plan, out=tmp_path)
    finally:
        BROKEN.clear()
    assert "ValueError: out of memory. Stored answers are kept: mend it, and run the same" in error
    first = len(ASKED)
    assert 40 <= first <= 50
    found = told(capsys, *plan, out=tmp_path)
    assert len(ASKED) == len(set(ASKED)) == 60
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["queries"] >= 60  # lost queries count
    again = told(capsys, *plan, out=tmp_path)
    assert len(ASKED) == 60
    assert json.loads((tmp_path / "result.json").read_text())["queries"] == result["queries"]
    assert again["cells"] == found["cells"]


def test_one_more_seed_keeps_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = (f"{HERE}:probabilities", "--defense", "rounding")
    told(capsys, *plan, out=tmp_path)
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    told(capsys, *plan, "--seeds", "2", out=tmp_path)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    assert len(after) == 2 * len(times)
    assert times.items() <= after.items()


def test_runs_of_a_measured_cell_are_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(capsys, f"{HERE}:probabilities", "--defense", "none", out=tmp_path)
    [cell] = (tmp_path / "cells").iterdir()
    (tmp_path / "cells" / cell.stem / "run").mkdir(parents=True)  # as a kill may leave it
    told(capsys, f"{HERE}:probabilities", "--defense", "none", out=tmp_path)
    assert list((tmp_path / "cells").iterdir()) == [cell]


WHOLE = (
    *("--defense", "gaussian-noise,nasty", "--thief", "naive,active-both"),
    *("--budget", "20,40", "--seeds", "1", "--labelled", "10"),
)


def _words(*given: str, out: Path) -> list[str]:
    return ["audit", *audit_words(given), "--out", str(out), "-q"]


def _briefly(words: Sequence[str], **options: Any) -> Command:
    """A command in a process of its own, whose clones have few steps."""
    return Command(*words, module="tests.brief", **options)


def _measured(out: Path) -> dict[str, Any]:
    found = json.loads((out / "result.json").read_text())
    return {name: found[name] for name in ("cells", "worst", "baselines", "curves", "queries")}


@pytest.mark.slow
def test_a_killed_audit_ends_as_an_undisturbed_one(victim: Run, tmp_path: Path) -> None:
    words = _words(str(victim.folder), *WHOLE, out=tmp_path / "killed")
    cells = tmp_path / "killed" / "cells"
    for wanted in (1, 14):  # in screening, and in racing
        process = _briefly(words)
        while process.poll() is None and len(list(cells.glob("*.json"))) < wanted:
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "killed" / "result.json").exists()
    assert _briefly(words).wait() == 0
    undisturbed = _words(str(victim.folder), *WHOLE, "--workers", "2", out=tmp_path / "whole")
    assert _briefly(undisturbed).wait() == 0  # also with two workers
    assert _measured(tmp_path / "killed") == _measured(tmp_path / "whole")
    assert not [path for path in cells.iterdir() if path.is_dir()]


@pytest.mark.slow
def test_a_service_that_stops_in_the_middle(victim: Run, tmp_path: Path) -> None:
    served = serve(tmp_path, str(victim.folder))
    words = _words(
        f"http://{served.address}",
        *("--defense", "rounding,mad", "--thief", "naive,labels", "--budget", "20,40"),
        *("--per-request", "8", "--rate", "20", "--attempts", "2", "--longest-wait-s", "1"),
        out=tmp_path / "audit",
    )
    process = _briefly(words, stderr=subprocess.PIPE)
    while sum(entry["images"] for entry in served.entries()) < 20:
        assert process.poll() is None
        time.sleep(0.01)
    served.process.kill()
    served.process.communicate()
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "run the same command again" in error
    kept = _answered(tmp_path / "audit")
    assert 0 < kept < 80
    again = _serve_at(tmp_path, victim, served.address)
    try:
        assert _briefly(words, stdout=subprocess.DEVNULL).wait() == 0
    finally:
        again.terminate()
        again.communicate(timeout=60)
    entries = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    # 40 test images and the 40 queries of the largest budget, of which no answered one is repeated.
    assert sum(entry["images"] for entry in entries) == 80 - kept
    assert _answered(tmp_path / "audit") == 80


def _answered(folder: Path) -> int:
    """Images of which a ledger holds the answer."""
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as ledger:
        [[count]] = ledger.execute("SELECT count(*) FROM queries WHERE answer NOT NULL")
        return int(count)


def _serve_at(out: Path, victim: Run, address: str) -> "subprocess.Popen[str]":
    process = Command(
        *("serve", victim.folder, "--device", "cpu", "--port", address.rpartition(":")[2]),
        *("--log", out / "again.jsonl"),
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process
