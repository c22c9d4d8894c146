"""Files of at most 20 MB that lie about their contents take little memory, and one line each."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).parent / "lying_driver.py"

FLOOR = 512
"""MiB of resident memory that a load may take."""

GOAL = 128
"""MiB that all loads take but those of `LARGE`."""

LARGE = ("picture_", "packed_pickle_within", "parquet_of_cells_within")
"""Pictures, cells and batches of CIFAR-100 within their limits, which are held whole."""

HARMLESS = ("picture_", "pictures_", "images_enlarged", "onnx_")
"""Files that can be read: only memory is at stake."""


QUICK = (
    *("archive_of_a_large_member", "archive_of_a_large_header", "packed_pickle_of_many_objects"),
    *("npz_of_zeros", "npz_of_an_absurd_shape", "parquet_of_large_cells", "picture_png_of_one_bit"),
    *("record_of_a_huge_network", "checkpoint_of_repeated_values", "config_of_many_values"),
    *("recorded_answers_of_many_values", "reply_of_many_values"),
)
"""Files that were found to fill memory, which the fast tests try; the slow ones try the others."""

CASES = re.findall(r"\n@case\ndef (\w+)", DRIVER.read_text())
OTHERS = tuple(name for name in CASES if name not in QUICK)

MEASURED = ("picture_png_of_one_bit", "picture_png_with_transparency")
"""Pictures of 40 million pixels, one among the quick files and one among the others."""

Outcomes = dict[str, tuple[str, float]]


@pytest.fixture(scope="module", params=[QUICK, pytest.param(OTHERS, marks=pytest.mark.slow)],
                ids=["quick", "others"])  # fmt: skip
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    if sys.platform != "linux":
        pytest.skip("peaks of memory are read from /proc")
    command = [sys.executable, str(DRIVER), str(tmp_path_factory.mktemp("lies")), *request.param]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [entry["name"] for entry in found] == [*request.param]
    return {entry["name"]: (entry["error"], entry["mib"]) for entry in found}


def test_no_loader_takes_much_memory(outcomes: Outcomes) -> None:
    peaks = {name: mib for name, (_, mib) in outcomes.items()}
    assert {name: mib for name, mib in peaks.items() if mib >= FLOOR} == {}
    small = {name: mib for name, mib in peaks.items() if not name.startswith(LARGE)}
    assert {name: mib for name, mib in small.items() if mib >= GOAL} == {}


def test_what_is_measured_is_memory(outcomes: Outcomes) -> None:
    """A picture takes a byte for each pixel, at least."""
    [mib] = [outcomes[name][1] for name in MEASURED if name in outcomes]
    assert mib > 38


def test_every_lie_is_one_line(outcomes: Outcomes) -> None:
    for name, (error, _) in outcomes.items():
        assert not error.startswith("Traceback"), f"{name}: {error}"
        assert "\n" not in error, name
        assert bool(error) != name.startswith(HARMLESS), f"{name}: {error}"
