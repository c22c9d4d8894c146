"""Whether other processes compute on this machine, and what is done about it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from denature.core.neighbours import others_compute, wait_asleep_beside_others


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0.00 0.01 0.05 1/200 4242", False),
        ("2.00 2.01 2.05 3/200 4242", True),
        ("", False),
        ("macOS has none", False),
    ],
)
def test_a_neighbour_is_a_second_thread_that_could_run(
    tmp_path: Path, text: str, found: bool
) -> None:
    (tmp_path / "loadavg").write_text(text)
    assert others_compute(tmp_path / "loadavg") == found


def test_where_the_system_does_not_say_there_is_none(tmp_path: Path) -> None:
    assert not others_compute(tmp_path / "loadavg")


@pytest.mark.skipif(not Path("/proc/loadavg").exists(), reason="the system does not say")
def test_a_process_that_computes_is_seen() -> None:
    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        assert any(others_compute() for _ in range(200))
    finally:
        spinning.kill()
        spinning.wait()


@pytest.mark.parametrize("said", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_what_the_user_says_about_waiting_holds(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("denature.core.neighbours.others_compute", lambda: True)
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(said, "1")
    before = dict(os.environ)
    wait_asleep_beside_others()
    assert dict(os.environ) == before
    monkeypatch.delenv(said)
    wait_asleep_beside_others()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
