"""What all tests share."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from denature.answers.sources import LiveAnswers
from denature.data import Dataset, load
from denature.defenses.catalogue import DEFENSES
from denature.extract import config
from denature.extract.asking.ledger import Ledger
from denature.extract.theft import LEDGER
from denature.recipes import demo as demo_module
from denature.recipes.demo import Demo
from denature.recipes.runner import run
from denature.report import page
from denature.report.results import Outcome
from denature.serve.keys.sqlite import SqliteKeys
from denature.train import Normal, Run, Training, train
from tests.guarded import Guarded
from tests.hub_server import Hub
from tests.served import serving
from tests.sharing import own_hub, shared_runs
from tests.toy_defenses import TOYS

# With one thread a run has the same last bits whatever the machine does beside it, and tests that
# run at the same time do not wait for each other's threads.
torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What draws from the global generators draws the same, whichever tests ran before.

    A hook and not a fixture: fixtures of a module are made before those of a test.
    """
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - of libraries that draw from it


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests never read or write the user's cache; what they decode lasts one session."""
    monkeypatch.setenv("DENATURE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def trained_on_digits(net: str, epochs: int, factory: pytest.TempPathFactory) -> Run:
    quick = Training(epochs=epochs, batch_size=64, device="cpu", precision="fp32")
    with pytest.MonkeyPatch.context() as patch:  # the cache of tests is set for each of them only
        patch.setenv("DENATURE_CACHE", str(factory.getbasetemp() / "cache"))
        return train(net, "digits", Normal(), quick, out=factory.mktemp("trained") / net)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A network that tests only read."""
    return trained_on_digits("cnn", 2, tmp_path_factory)


@pytest.fixture(scope="session")
def trained_mlp(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A network that knows the digits, which tests of many files only read."""
    return trained_on_digits("mlp", 8, tmp_path_factory)


@pytest.fixture(scope="session")
def victim(trained_mlp: Run) -> Run:
    """The network behind a service, where a file trains none of its own."""
    return trained_mlp


@pytest.fixture(scope="module")
def guarded(victim: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server with a key of 100,000 images."""
    store = tmp_path_factory.mktemp("guarded") / "keys"
    with contextlib.closing(SqliteKeys(store)) as keys:
        key = keys.add("alice", budget=100_000, rate=None)
    with serving(store.parent, f"m={victim.folder}", "--keys", str(store)) as served:
        yield Guarded(served, store, key)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Runs that tests share on a hub, and only read."""
    return shared_runs(tmp_path_factory)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    yield from own_hub(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Two seeds of a few epochs: enough for every part, not for the effect."""
    with pytest.MonkeyPatch.context() as patch:
        brief = {"epochs": 2, "precision": "fp32"}
        teacher = replace(demo_module.TEACHER, milestones=(1,), **brief)  # type: ignore[arg-type]
        patch.setattr(demo_module, "TEACHER", teacher)
        patch.setattr(demo_module, "STUDENT", replace(demo_module.STUDENT, **brief))  # type: ignore[arg-type]
        return run(
            Demo(folder=tmp_path_factory.mktemp("demo"), seeds=2, students=("mlp",), teacher="mlp")
        )


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, toy in TOYS.items():
        monkeypatch.setitem(DEFENSES, name, toy)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / LEDGER) as opened:
        yield opened


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, which is no place of modules before a command names one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    return tmp_path


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages have no figures: they take longer to draw than what is measured takes to train."""
    for name in ("svg", "write_figure"):
        monkeypatch.setattr(page, name, lambda *_: "")


@pytest.fixture(scope="module")
def few_steps() -> Iterator[None]:
    """Clones that are made in a moment, and are worse for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "LEAST_STEPS", 5)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; its tests are skipped where there is none."""
    root = os.environ.get("DENATURE_DATA")
    if not root:
        pytest.skip("DENATURE_DATA is not set: tests on real data sets are skipped")
    return Path(root)


@pytest.fixture
def disk_of(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk of a given size, such as 256k."""
    folder = tmp_path / "disk"

    def mount(size: str) -> Path:
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a small disk cannot be mounted here, only as root on Linux")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def digits() -> Dataset:
    return load("digits")


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, decoding an image fails the test."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("an image was decoded again")

    return lambda: monkeypatch.setattr(Image, "open", refuse)


@pytest.fixture
def small_disk(disk_of: Callable[[str], Path]) -> Path:
    return disk_of("256k")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images a network was asked about for its answers, call by call."""
    counts: list[int] = []
    ask = LiveAnswers.ask

    def counted(self: LiveAnswers, pixels: torch.Tensor) -> torch.Tensor:
        counts.append(len(pixels))
        return ask(self, pixels)

    monkeypatch.setattr(LiveAnswers, "ask", counted)
    return counts
