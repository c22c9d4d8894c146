"""What all tests share."""

import os
from pathlib import Path

import pytest
import torch

from denature.data import Dataset, load


@pytest.fixture(autouse=True, scope="session")
def _one_thread_per_worker() -> None:
    """Workers of pytest-xdist share the cores; two threads in each would only wait for others."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests never read or write the user's cache; what they decode lasts one session."""
    monkeypatch.setenv("DENATURE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; its tests are skipped where there is none."""
    root = os.environ.get("DENATURE_DATA")
    if not root:
        pytest.skip("DENATURE_DATA is not set: tests on real data sets are skipped")
    return Path(root)


@pytest.fixture
def digits() -> Dataset:
    return load("digits")
