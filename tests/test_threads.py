"""How many threads a process computes with, and how they wait."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from denature.cli.app import main
from denature.core import threads
from denature.core.threads import prepare, usable_cores, worker_threads

NAMES = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", threads.BY_QUOTA, *threads.WAITING)

V2 = "30 20 0:26 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw,nsdelegate\n"
V1 = "32 31 0:29 {top} /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which nothing is said about threads, restored afterwards."""
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that what is set below is undone
        monkeypatch.delenv(name)
    return monkeypatch


def cores(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(threads, "_allowed", lambda: count)


def system(root: Path, *, mounts: str, groups: str, **limits: str) -> Path:
    """A root with /proc and /sys of a process in these groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(mounts)
    (root / "proc/self/cgroup").write_text(groups)
    for place, text in limits.items():
        file = root / "sys/fs/cgroup" / place.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.mark.parametrize(
    ("quota", "wanted"),
    [("max", 16), ("400000", 4), ("150000", 2), ("120000", 1), ("10000", 1), ("6400000", 16),
     ("nonsense", 16)],
)  # fmt: skip
def test_a_quota_of_the_second_version_is_a_limit(
    tmp_path: Path, plain: pytest.MonkeyPatch, quota: str, wanted: int
) -> None:
    cores(plain, 16)
    root = system(
        tmp_path, mounts=V2.format(top="/"), groups="0::/a/b\n",
        **{"a__cpu.max": f"{quota} 100000\n", "a__b__cpu.max": "max 100000\n"},
    )  # fmt: skip
    assert usable_cores(root) == wanted


@pytest.mark.parametrize(("quota", "wanted"), [("-1", 16), ("300000", 3), ("0", 16)])
def test_a_quota_of_the_first_version_is_a_limit(
    tmp_path: Path, plain: pytest.MonkeyPatch, quota: str, wanted: int
) -> None:
    """As Docker has it: the group is named as on the host, and mounted as the container's top."""
    cores(plain, 16)
    root = system(
        tmp_path, mounts=V1.format(top="/docker/0f1e"), groups="4:cpu,cpuacct:/docker/0f1e\n",
        **{"cpu__cpu.cfs_quota_us": quota, "cpu__cpu.cfs_period_us": "100000"},
    )  # fmt: skip
    assert usable_cores(root) == wanted


def test_the_narrowest_of_all_limits_counts(tmp_path: Path, plain: pytest.MonkeyPatch) -> None:
    root = system(
        tmp_path, mounts=V2.format(top="/"), groups="0::/a/b\n",
        **{"a__cpu.max": "200000 100000", "a__b__cpu.max": "500000 100000"},
    )  # fmt: skip
    for count, wanted in ((16, 2), (1, 1)):
        cores(plain, count)
        assert usable_cores(root) == wanted
    assert usable_cores(tmp_path / "none") == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_affinity_is_a_limit() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from denature.core.threads import usable_cores; print(usable_cores())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "1\n"


def test_waiting_threads_yield_unless_the_user_decides(plain: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", *threads.WAITING):
        plain.setenv(name, "7")
        before = dict(os.environ)
        prepare()
        assert dict(os.environ) == before
        plain.delenv(name)
    prepare()
    assert {name: os.environ[name] for name in threads.WAITING} == threads.WAITING


def test_a_program_that_imports_denature_has_threads_that_yield() -> None:
    code = "import sys, denature, os; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    env = {
        key: value
        for key, value in os.environ.items()
        if key not in {"OMP_WAIT_POLICY", *threads.WAITING}
    }
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    assert found.stdout == "1000 False\n"


def test_a_quota_limits_the_threads_and_a_named_number_holds(plain: pytest.MonkeyPatch) -> None:
    cores(plain, 16)
    prepare()
    assert "OMP_NUM_THREADS" not in os.environ  # what OpenMP takes by itself
    plain.setattr(threads, "_limits", lambda root: iter([2.0]))
    prepare()
    assert os.environ["OMP_NUM_THREADS"] == "2"
    plain.setenv("OMP_NUM_THREADS", "5")
    prepare()
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_workers_share_the_cores_unless_a_number_was_named(plain: pytest.MonkeyPatch) -> None:
    cores(plain, 8)
    assert [worker_threads(size) for size in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]
    plain.setenv("OMP_NUM_THREADS", "3,2")
    assert worker_threads(8) == 3


def test_workers_of_a_process_under_a_quota_share_it(plain: pytest.MonkeyPatch) -> None:
    """The number that `prepare` took from the quota is no choice of the user, also in a child."""
    cores(plain, 64)
    plain.setattr(threads, "usable_cores", lambda: 4)
    prepare()
    assert os.environ["OMP_NUM_THREADS"] == "4"
    for _ in range(2):  # the child prepares itself again
        assert worker_threads(4) == 1
        prepare()
    threads.choose_threads(4)
    assert worker_threads(4) == 4


@pytest.mark.parametrize("words", [["--threads", "1"], ["--threads=1"]])
def test_a_command_computes_with_the_threads_that_it_was_told(
    words: list[str], plain: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        main(["runs", str(tmp_path), *words, "-q"])
        assert torch.get_num_threads() == 1
        assert os.environ["OMP_NUM_THREADS"] == "1"  # for the processes that it starts
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_a_number_of_threads_that_makes_no_sense_is_refused(
    number: str, plain: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["nets", f"--threads={number}"]) > 0
    assert "threads" in capsys.readouterr().err
    assert "OMP_NUM_THREADS" not in os.environ


DEFAULTS = [(16, None, 4), (16, 1, 4), (8, 4, 2), (2, None, 2), (2, 2, 1), (2, 8, 1)]


@pytest.mark.parametrize(("count", "named", "workers"), DEFAULTS)
def test_workers_by_default_need_no_more_threads_than_cores(
    plain: pytest.MonkeyPatch, count: int, named: int | None, workers: int
) -> None:
    cores(plain, count)
    if named is not None:
        plain.setenv("OMP_NUM_THREADS", str(named))
    assert threads.default_workers() == workers
