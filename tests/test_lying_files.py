"""Files of at most 20 MB that lie about their contents take little memory, and one line each."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

FLOOR = 512
"""MiB of resident memory that a load may take."""

GOAL = 128
"""MiB that all loads take but those of `LARGE`."""

LARGE = ("picture_", "packed_pickle_within", "parquet_of_cells_within")
"""Pictures, cells and batches of CIFAR-100 within their limits, which are held whole."""

HARMLESS = ("picture_", "pictures_", "images_enlarged", "onnx_")
"""Files that can be read: only memory is at stake."""


CASES = [
    name
    for part in ("answers", "data", "runs")
    for name in re.findall(r"\n@case\ndef (\w+)", (HERE / f"lies_of_{part}.py").read_text())
]

pytestmark = pytest.mark.slow

Outcomes = dict[str, tuple[str, float]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    if sys.platform != "linux":
        pytest.skip("peaks of memory are read from /proc")
    words = ["-m", "tests.lying_driver", str(tmp_path_factory.mktemp("lies"))]
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, cwd=HERE.parent
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [entry["name"] for entry in found] == CASES
    return {entry["name"]: (entry["error"], entry["mib"]) for entry in found}


def test_no_loader_takes_much_memory(outcomes: Outcomes) -> None:
    peaks = {name: mib for name, (_, mib) in outcomes.items()}
    assert {name: mib for name, mib in peaks.items() if mib >= FLOOR} == {}
    small = {name: mib for name, mib in peaks.items() if not name.startswith(LARGE)}
    assert {name: mib for name, mib in small.items() if mib >= GOAL} == {}


def test_what_is_measured_is_memory(outcomes: Outcomes) -> None:
    """A picture of 40 million pixels takes a byte for each, at least."""
    assert outcomes["picture_png_of_one_bit"][1] > 38


def test_every_lie_is_one_line(outcomes: Outcomes) -> None:
    for name, (error, _) in outcomes.items():
        assert not error.startswith("Traceback"), f"{name}: {error}"
        assert "\n" not in error, name
        assert bool(error) != name.startswith(HARMLESS), f"{name}: {error}"
