"""How many threads a process computes with, and how they wait."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from denature.cli.app import main
from denature.core import threads
from denature.core.errors import Stopped
from denature.core.stopping import Stopper
from denature.core.threads import computing, free_cores, prepare, usable_cores, worker_threads
from denature.data import Dataset
from denature.train import Normal, Run, Training, train
from denature.train.session import Session

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


def stat(root: Path, *cores: tuple[int, ...]) -> None:
    """/proc/stat of a machine whose cores have spent these hundredths of a second."""
    total = tuple(map(sum, zip(*cores, strict=True)))
    lines = [f"cpu  {' '.join(map(str, total))}"]
    lines += [f"cpu{number} {' '.join(map(str, times))}" for number, times in enumerate(cores)]
    (root / "proc").mkdir(parents=True, exist_ok=True)
    (root / "proc/stat").write_text("\n".join([*lines, "intr 1 2 3", "ctxt 4"]) + "\n")


def looked_at(
    root: Path, monkeypatch: pytest.MonkeyPatch, *after: tuple[int, ...], own: float = 0.0
) -> float:
    """Free cores of four, which began with zeros and have spent `after` one second later."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    now, used = [50.0], [7.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: used[0])
    stat(root, *[(0,) * 10] * len(after))

    def sleep(seconds: float) -> None:
        now[0] += 1
        used[0] += own
        stat(root, *after)

    monkeypatch.setattr(time, "sleep", sleep)
    return free_cores(root)


def spent(user: int = 0, nice: int = 0, stolen: int = 0, waiting: int = 0) -> tuple[int, ...]:
    idle = 100 - user - nice - stolen - waiting
    return (user, nice, 0, idle, waiting, 0, 0, stolen, user, nice)  # guests are part of user


@pytest.mark.parametrize(
    ("after", "own", "free"),
    [
        ([spent()] * 4, 0.0, 4.0),
        ([spent(user=100), spent(), spent(), spent()], 0.0, 3.0),
        ([spent(user=100), spent(nice=60), spent(stolen=40), spent(waiting=100)], 0.0, 2.0),
        ([spent(user=100)] * 4, 0.0, 0.0),
        ([spent(user=100)] * 4, 1.5, 1.5),  # threads of this process are no neighbours
        ([spent()] * 4, 0.5, 4.0),  # its clock is finer than the system's
        ([spent()] * 3 + [spent()] + [spent(user=100)] * 4, 0.0, 4.0),  # others' cores
    ],
)
def test_free_cores_are_those_that_others_leave(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: list[tuple[int, ...]],
    own: float,
    free: float,
) -> None:
    assert looked_at(tmp_path, monkeypatch, *after, own=own) == pytest.approx(free)


def test_all_cores_are_free_where_the_system_does_not_tell(
    tmp_path: Path, plain: pytest.MonkeyPatch
) -> None:
    cores(plain, 5)
    plain.setattr(time, "sleep", lambda seconds: None)
    assert free_cores(tmp_path) == 5


@pytest.fixture
def four(plain: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A process of four threads on four cores."""
    cores(plain, 4)
    plain.setattr(threads, "usable_cores", lambda: 4)
    plain.setattr(threads, "_announced", set())
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield plain
    assert torch.get_num_threads() == 4
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("free", "wanted"), [(4.0, 4), (3.6, 4), (3.4, 3), (1.0, 1), (0.4, 1), (0.0, 1)]
)
def test_each_free_core_has_a_thread(four: pytest.MonkeyPatch, free: float, wanted: int) -> None:
    four.setattr(threads, "free_cores", lambda: free)
    said: list[str] = []
    for _ in range(2):
        with computing(say=said.append) as number:
            assert number == torch.get_num_threads() == wanted
    assert len(said) == (wanted < 4)
    assert all(f"{free} of 4 cores free" in line and "--threads N" in line for line in said)


def test_a_number_that_is_known_is_not_chosen_by_the_load(four: pytest.MonkeyPatch) -> None:
    def looks() -> float:
        raise AssertionError("the load decides nothing here")

    four.setattr(threads, "free_cores", looks)
    for begun, wanted in ((3, 3), (1, 1), (9, 4)):
        with computing(begun) as number:
            assert number == torch.get_num_threads() == wanted
    four.setenv("OMP_NUM_THREADS", "4")
    for named in (None, 1):
        with computing(named) as number:
            assert number == torch.get_num_threads() == 4


def test_a_run_goes_on_with_the_threads_that_it_began_with(
    four: pytest.MonkeyPatch, digits: Dataset, tmp_path: Path
) -> None:
    """Whatever the load is by then; what ran to its end in one go has the same weights."""
    brief = Training(epochs=2, batch_size=256, precision="fp32", device="cpu")

    def trained(out: str, free: float, steps: int) -> tuple[Run, list[int]]:
        four.setattr(threads, "free_cores", lambda: free)
        counts: list[int] = []

        def wish() -> bool:
            counts.append(torch.get_num_threads())
            return len(counts) > steps

        session = Session(stopper=Stopper(wish=wish))
        try:
            return train(
                "cnn", digits, Normal(), brief, out=tmp_path / out, session=session
            ), counts
        except Stopped:
            return trained(out, 1.0, 1000)

    whole, counts = trained("whole", 2.0, 1000)
    assert set(counts) == {2}
    resumed, counts = trained("resumed", 2.0, 3)
    assert set(counts) == {2}
    assert resumed.digest == whole.digest
    assert resumed.record.environment["device"].endswith(", 2 threads")
    alone, counts = trained("alone", 1.0, 1000)
    assert set(counts) == {1}
    assert alone.record.id == whole.record.id


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the system does not tell the load")
@pytest.mark.skipif(
    usable_cores() < threads._allowed(), reason="a quota keeps processes from holding all cores"
)
def test_neighbours_that_hold_all_cores_leave_one_thread() -> None:
    env = {name: value for name, value in os.environ.items() if name not in NAMES}
    code = "from denature.core.threads import computing\nwith computing() as number: print(number)"
    hold = [sys.executable, "-c", "while True: pass"]
    neighbours = [subprocess.Popen(hold) for _ in range(usable_cores())]
    try:
        found = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()
    assert found.stdout == "1\n"
