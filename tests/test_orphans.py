"""Processes whose parent is killed alone: they end too, and what they held is free."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from denature.core.errors import RunError
from denature.train import Normal, Run, Training, run, train

LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc of Linux")

PATIENCE_S = 240.0
"""Most seconds to wait for anything here, on a busy machine."""

SLEEPERS = """
import multiprocessing, sys, time
from denature.core.parent import end_with_parent

def sleep(started, watched):
    if watched:
        end_with_parent()
    started.set()
    time.sleep(600)

def nest(started, watched):
    end_with_parent()
    start(started, watched)
    time.sleep(600)

def start(started, watched, target=sleep):
    context = multiprocessing.get_context("spawn")
    context.Process(target=target, args=(started, watched)).start()

if __name__ == "__main__":
    started = multiprocessing.get_context("spawn").Event()
    start(started, sys.argv[1] == "watched", nest if sys.argv[2] == "nested" else sleep)
    started.wait()
    print("started", flush=True)
    time.sleep(600)
"""


def session_of(leader: int) -> list[int]:
    """Living processes of a session, whose leader may be dead; zombies do not count."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            state, _, _, session = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:4]
        except (OSError, ValueError):
            continue
        if int(session) == leader and state != "Z":
            found.append(int(entry.name))
    return found


def wait_until(holds: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < limit, what
        time.sleep(0.01)


@contextmanager
def started(*command: str, folder: Path | None = None) -> Iterator["subprocess.Popen[str]"]:
    """A process that leads a session; at the end all of the session is killed."""
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        yield process
    finally:
        for left in {process.pid, *session_of(process.pid)}:
            try:
                os.kill(left, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.communicate()


def kill_alone(process: "subprocess.Popen[str]") -> None:
    """SIGKILL the leader of a session, which has children, and nothing else."""
    assert len(session_of(process.pid)) > 1
    process.kill()
    process.wait()


@LINUX
@pytest.mark.parametrize("nesting", ["flat", "nested"])
def test_a_watched_process_ends_with_its_parent(tmp_path: Path, nesting: str) -> None:
    """Also where the parent's own parent was killed; the tracker of resources ends with them."""
    program = tmp_path / "sleepers.py"
    program.write_text(SLEEPERS)
    with started(str(program), "watched", nesting) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        kill_alone(parent)
        wait_until(lambda: not session_of(parent.pid), "processes live on")


@LINUX
def test_a_process_that_is_not_watched_lives_on(tmp_path: Path) -> None:
    """What the other tests would see without the watch."""
    program = tmp_path / "sleepers.py"
    program.write_text(SLEEPERS)
    with started(str(program), "left alone", "flat") as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        kill_alone(parent)
        time.sleep(0.5)
        assert session_of(parent.pid)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    train("mlp", "digits", Normal(), Training(epochs=1, precision="fp32"), out=folder)
    return folder


def sweep(teacher: Path, out: Path, *more: str) -> list[str]:
    words = f"-m denature distill cnn --data digits --teacher {teacher} --epochs 5000 --out {out}"
    options = "--alpha 0.1,0.5,0.9 --precision fp32 --device cpu -q --save-every 0.2s --workers 3"
    return [*words.split(), *options.split(), *more]


@LINUX
@pytest.mark.slow
@pytest.mark.alone
def test_workers_of_a_killed_sweep_end_and_the_next_sweep_goes_on(
    teacher: Path, tmp_path: Path
) -> None:
    def states() -> list[Path]:
        return list(tmp_path.glob("*/state/state.safetensors"))

    with started(*sweep(teacher, tmp_path)) as parent:
        wait_until(lambda: len(states()) == 3, "no states")
        kill_alone(parent)
        # At once: the workers of the killed sweep may still hold their locks.
        again = sweep(teacher, tmp_path, "--time-limit", "0.1s")
        stopped = subprocess.run([sys.executable, *again], capture_output=True, text=True)
        assert stopped.returncode == 75, stopped.stderr
        assert not session_of(parent.pid)


@LINUX
@pytest.mark.slow
@pytest.mark.alone
def test_the_workers_of_a_killed_server_free_its_port(teacher: Path) -> None:
    words = f"-m denature serve {teacher} --workers 2 --port 0 --json --log off"
    with started(*words.split()) as server:
        assert server.stdout is not None
        port = int(json.loads(server.stdout.readline())["url"].rpartition(":")[2])
        wait_until(lambda: len(session_of(server.pid)) >= 4, "no workers")  # and the tracker
        kill_alone(server)
        wait_until(lambda: not session_of(server.pid), "workers live on")
        socket.create_server(("127.0.0.1", port)).close()


@LINUX
@pytest.mark.slow
@pytest.mark.alone
def test_the_face_service_of_a_killed_experiment_ends(teacher: Path, tmp_path: Path) -> None:
    program = tmp_path / "experiment.py"
    program.write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from denature.recipes.serving import serving\n"
        "if __name__ == '__main__':\n"
        "    with serving(Path(sys.argv[1]), 'model', Path('log'), device='cpu'):\n"
        "        print('serving', flush=True)\n"
        "        time.sleep(600)\n"
    )
    with started(str(program), str(teacher), folder=tmp_path) as experiment:
        assert experiment.stdout is not None
        assert experiment.stdout.readline() == "serving\n"
        kill_alone(experiment)
        wait_until(lambda: not session_of(experiment.pid), "the service lives on")


def test_a_finished_run_on_a_read_only_disk_is_read(
    disk_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """Neither a lock file nor anything else is written, and nothing is touched."""
    disk = disk_of("4m")
    brief = Training(epochs=1, precision="fp32", device="cpu")

    def make() -> Run:
        return train("mlp", "digits", Normal(), brief, out=disk / "run")

    first = make()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(OSError, match="Read-only"):
        (disk / "run" / ".run.lock").touch()
    assert make().record == first.record
    with pytest.raises(RunError, match="cannot be written: Read-only"):
        train("mlp", "digits", Normal(), brief, out=disk / "other")


def test_a_finished_run_is_read_beside_a_process_at_work(tmp_path: Path) -> None:
    brief = Training(epochs=1, precision="fp32", device="cpu")
    first = train("mlp", "digits", Normal(), brief, out=tmp_path)
    content = {path: path.stat().st_mtime_ns for path in (tmp_path, *tmp_path.rglob("*"))}
    train("mlp", "digits", Normal(), brief, out=tmp_path)
    assert content == {path: path.stat().st_mtime_ns for path in (tmp_path, *tmp_path.rglob("*"))}
    with run.locked(tmp_path):
        again = train("mlp", "digits", Normal(), brief, out=tmp_path)
    assert again.record == first.record


HOLDER = """
import sys, time
from pathlib import Path
from denature.train.run import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize("seconds", [0.5, 600])
def test_a_run_waits_for_the_lock_of_one_that_is_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(run, "PATIENCE_S", PATIENCE_S if seconds < 1 else 0.1)
    with started("-c", HOLDER, str(tmp_path), str(seconds)) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        if seconds > 1:
            with pytest.raises(RunError, match="Another process is at work"), run.locked(tmp_path):
                pass
            return
        with run.locked(tmp_path):
            assert (tmp_path / run.LOCK).exists()
    assert not (tmp_path / run.LOCK).exists()
