"""The log of requests: what is in it, and lines that cannot be written."""

import contextlib
import fcntl
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from denature.cli.app import main
from denature.serve.keys import open_keys
from denature.serve.log import LineWriter
from denature.train import Run
from tests.guarded import Guarded, body, running
from tests.served import INFER, Served


def test_lines_that_cannot_be_written_are_counted_and_fail_no_request(
    victim: Run, tmp_path: Path
) -> None:
    """A full disk, as /dev/full is one."""
    with running(victim, "--log", "/dev/full") as served:
        for _ in range(5):
            assert served.send("POST", INFER, body())[0] == 200
        assert lost_lines(served, least=5) == 5


def test_a_reader_of_the_log_that_leaves_or_stalls_stops_nothing(victim: Run) -> None:
    for leaves in (True, False):
        ours, theirs = os.pipe()
        fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
        with running(victim, stderr=theirs) as served:
            os.close(theirs)
            if leaves:
                os.close(ours)
            for _ in range(60):  # of more than 100 bytes each
                assert served.send("POST", INFER, body())[0] == 200
            assert served.send("GET", "/v2/health/live")[0] == 200
            if leaves:
                assert lost_lines(served, least=60) >= 60
        if not leaves:
            os.close(ours)


def test_lines_beyond_those_that_may_wait_are_lost_and_the_others_whole(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    lost: list[int] = []
    writer = LineWriter(theirs, lost.append)
    for number in range(20_000):
        writer.put(f"{number:09d}")
    assert 0 < sum(lost) < 20_000
    kept = 20_000 - sum(lost)
    with open(ours, "rb") as reader:
        lines = [reader.readline() for _ in range(kept)]
        assert lines == sorted(lines)
        assert set(map(len, lines)) == {10}
        writer.close()
    os.close(theirs)


def test_a_line_that_a_disk_took_in_part_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log"
    code = (
        "import os, resource, signal, sys\n"
        "from denature.serve.log import LineWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "lost = []\n"
        "place = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (14, resource.RLIM_INFINITY))\n"
        "for line in ('{\"a\": 1}', '{\"b\": 2}'):\n"
        "    writer = LineWriter(place, lost.append) if line[2] == 'a' else writer\n"
        "    writer.put(line)\n"
        "while not lost: pass\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))\n"
        "writer.put('{\"c\": 3}')\n"
        "writer.close()\n"
        "print(sum(lost))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
    whole = [line for line in path.read_text().splitlines() if line.endswith("}")]
    assert whole == ['{"a": 1}', '{"c": 3}']


def test_a_log_that_cannot_be_opened_is_told_at_the_start(
    victim: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(victim.folder), "--port", "0", "--log", str(tmp_path)]) == 1
    assert "cannot be written: Is a directory" in capsys.readouterr().err


def lost_lines(served: Served, least: int) -> float:
    for _ in range(500):
        figures = served.send("GET", "/metrics")[2].decode()
        found = re.search(r"^denature_log_lines_lost_total (.*)$", figures, re.M)
        assert found is not None
        if (lost := float(found[1])) >= least:
            return lost
        time.sleep(0.02)
    raise AssertionError(f"{lost:g} lines are lost, of {least}")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/admin", 404), ("DELETE", "/v2", 405)]
)
def test_what_the_server_does_not_have_is_logged_too(
    guarded: Guarded, method: str, path: str, status: int
) -> None:
    before = len(guarded.served.entries())
    assert guarded.served.send(method, path)[0] == status
    [entry] = guarded.served.entries()[before:]
    assert (entry["status"], entry["peer"], entry["model"]) == (status, "127.0.0.1", None)
    assert entry["error"] in ("Not Found", "Method Not Allowed")


def test_a_refused_request_is_logged_with_its_key(guarded: Guarded) -> None:
    guarded.until_answered()
    with contextlib.closing(open_keys(str(guarded.keys), patience_s=10)) as keys:
        keys.change("alice", budget=guarded.answered, rate=None)
        assert guarded.ask()[0] == 429
        keys.change("alice", budget=100_000, rate=None)
    entry = guarded.served.entries()[-1]
    assert (entry["key"], entry["status"], entry["peer"]) == ("alice", 429, "127.0.0.1")
    assert entry["error"].startswith("The budget of")
