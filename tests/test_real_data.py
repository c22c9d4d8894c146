"""CIFAR-10 itself, where DENATURE_DATA says that it lies."""

from pathlib import Path

import pytest
from PIL import Image

from denature.data import Dataset, load


@pytest.fixture
def cifar10(real_data: Path) -> Dataset:
    """Decoded for the first test that asks, mapped from the session's cache for the others."""
    return load(str(real_data / "cifar10"))


def test_cifar10_is_whole(cifar10: Dataset) -> None:
    assert (len(cifar10.train), len(cifar10.test), cifar10.validation) == (50_000, 10_000, None)
    assert (cifar10.channels, cifar10.image_size) == (3, 32)
    assert cifar10.classes == (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    assert cifar10.test_origin == "test"
    assert cifar10.train.labels.bincount().tolist() == [5000] * 10
    assert cifar10.test.labels.bincount().tolist() == [1000] * 10


def test_cifar10_has_the_mean_and_deviation_that_everybody_uses(cifar10: Dataset) -> None:
    mean, deviation = cifar10.statistics()
    assert mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=2e-3)
    assert deviation == pytest.approx((0.2470, 0.2435, 0.2616), abs=2e-3)


def test_a_second_load_of_cifar10_decodes_nothing(
    cifar10: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("an image was decoded again")

    monkeypatch.setattr(Image, "open", refuse)
    again = load(cifar10.config)
    assert again.describe() == cifar10.describe()
    assert again.train.images[::1000].equal(cifar10.train.images[::1000])
