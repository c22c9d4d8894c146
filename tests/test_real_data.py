"""CIFAR-10 and Tiny-ImageNet themselves, where DENATURE_DATA says that they lie."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from denature.data import load


@pytest.mark.slow
def test_cifar10_loads_whole_and_is_decoded_once(
    real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One test, because each worker of pytest-xdist would decode it for itself: seven seconds."""
    cifar10 = load(str(real_data / "cifar10"))
    assert (len(cifar10.train), len(cifar10.test), cifar10.validation) == (50_000, 10_000, None)
    assert (cifar10.channels, cifar10.image_size, len(cifar10.classes)) == (3, 32, 10)
    assert (cifar10.test_origin, cifar10.skipped) == ("test", 0)
    assert cifar10.train.labels.bincount().tolist() == [5000] * 10
    assert cifar10.test.labels.bincount().tolist() == [1000] * 10

    # The constants that every script for CIFAR-10 normalises with.
    mean, deviation = cifar10.train.statistics()
    assert mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=2e-3)
    assert deviation == pytest.approx((0.2470, 0.2435, 0.2616), abs=2e-3)

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("an image was decoded again")

    monkeypatch.setattr(Image, "open", refuse)
    again = load(cifar10.config)
    assert again.describe() == cifar10.describe()
    assert again.train.images[::1000].equal(cifar10.train.images[::1000])


MEASURE = """
import resource, sys
from denature.cli.app import main
assert main(sys.argv[1:]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, file=sys.stderr)
"""


@pytest.mark.slow
def test_tiny_imagenet_trains_in_two_and_a_half_gib(real_data: Path, tmp_path: Path) -> None:
    """Mapped images counted; decoding all of them into an empty cache included."""
    place = real_data / "tiny-imagenet"
    if not place.exists():
        pytest.skip(f"there is no {place}")
    command = [sys.executable, "-c", MEASURE, "train", "cnn", "--data", str(place), "--epochs", "1",
               "--fraction", "0.01", "--out", str(tmp_path / "run"), "-q"]  # fmt: skip
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "10,000 test images" in found.stdout
    gibibytes = float(found.stderr.split()[-1])
    assert gibibytes <= 2.5, gibibytes
