"""The thefts of `benchmarks.audit` by ART; run by the interpreter of an environment that has it.

    PYTHON -m benchmarks.audit_art FOLDER

The environment needs this package's dependencies too. FOLDER holds `thefts.json` and the images;
`art.npz` is written beside them.
"""

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from denature.nets import create
from denature.train import load_run


def classifier(network: nn.Module, shape: tuple[int, ...], classes: int) -> Any:
    """A network as ART takes it, with Adam at 1e-3."""
    from art.estimators.classification import PyTorchClassifier

    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    return PyTorchClassifier(
        network, nn.CrossEntropyLoss(), shape, classes, optimizer=optimizer, clip_values=(0, 1),
        device_type="cpu",
    )  # fmt: skip


def extraction(victim: Any, kind: str, settings: dict[str, int]) -> Any:
    """KnockoffNets on probabilities, CopycatCNN on labels."""
    from art.attacks.extraction import CopycatCNN, KnockoffNets

    if kind == "label":
        return CopycatCNN(victim, **settings)
    return KnockoffNets(
        victim, sampling_strategy="random", use_probability=True, verbose=False, **settings
    )


def steal(
    theft: dict[str, Any], images: np.ndarray, test: np.ndarray, epochs: int, batch_size: int
) -> tuple[np.ndarray, float]:
    """The thief's classes of the test images, and the seconds of the processor that it took.

    Args:
        theft: a row of `thefts.json`.
        images: the images that are queried, all of them; float32 in [0, 1].
        test: the test images, likewise.
        epochs: of the thief.
        batch_size: of the thief.
    """
    torch.manual_seed(theft["seed"])
    np.random.seed(theft["seed"])  # noqa: NPY002  # ART draws from it
    run = load_run(theft["victim"])
    shape, classes = images.shape[1:], run.record.net.classes
    victim = classifier(nn.Sequential(run.network, nn.Softmax(dim=1)).eval(), shape, classes)
    started = time.process_time()
    axes = (0, 2, 3)
    network = create(
        theft["net"], classes=classes, channels=shape[0], image_size=shape[1],
        mean=tuple(images.mean(axes).tolist()), std=tuple(images.std(axes).tolist()),
    )  # fmt: skip
    settings = {
        "batch_size_fit": batch_size,
        "batch_size_query": 512,
        "nb_epochs": epochs,
        "nb_stolen": len(images),
    }
    attack = extraction(victim, theft["kind"], settings)
    thief = attack.extract(images, thieved_classifier=classifier(network, shape, classes))
    seconds = time.process_time() - started
    return thief.predict(test).argmax(1), seconds


def main() -> None:
    warnings.simplefilter("ignore")  # of ART, which names frameworks that are not installed
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    plan = json.loads((folder / "thefts.json").read_text())
    pool, test = (
        np.load(folder / f"{name}.npy").astype(np.float32) / 255 for name in ("pool", "test")
    )
    done = [
        steal(theft, pool[theft["rows"]], test, plan["epochs"], plan["batch_size"])
        for theft in plan["thefts"]
    ]
    classes, seconds = zip(*done, strict=True)
    np.savez(folder / "art.npz", classes=np.stack(classes), seconds=np.array(seconds))


if __name__ == "__main__":
    main()
