"""scikit-learn's digits."""

from collections.abc import Iterator

import numpy as np

from denature.data.decode import DecodedBlock
from denature.data.source import DataSource


def digits() -> DataSource:
    """The 1,797 handwritten digits in scikit-learn's wheel: 8x8, grey."""

    def blocks() -> Iterator[DecodedBlock]:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        pixels = np.rint(images.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
        yield DecodedBlock(pixels, labels.astype(np.int64))

    return DataSource({"train": blocks}, tuple("0123456789"), ("digits", 1), 1797)
