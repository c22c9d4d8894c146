"""Images that are asked of a server, and networks behind it."""

import numpy as np
import pytest
import torch

from denature.data.config import DataConfig
from denature.data.dataset import Dataset, Split
from denature.train import Normal, Run, Training, load_run, train


def digits(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def predicted(run: Run, images: np.ndarray) -> np.ndarray:
    assert run.folder is not None
    network = load_run(run.folder).network.eval()
    with torch.no_grad():
        logits: np.ndarray = network(torch.from_numpy(images).float() / 255).numpy()
    return logits


def colour_mlp(factory: pytest.TempPathFactory) -> Run:
    """A network for 3x32x32, whose bodies of 256 images are as large as those of CIFAR."""
    images = torch.from_numpy(pixels(20))
    split = Split(images, torch.arange(20) % 10, torch.arange(20))
    data = Dataset(config=DataConfig(source="random"), train=split, test=split, validation=None,
                   classes=tuple("0123456789"), digest="random", test_origin="none")  # fmt: skip
    training = Training(epochs=1, device="cpu", precision="fp32")
    return train("mlp", data, Normal(), training, out=factory.mktemp("runs") / "m")
