"""Ways to name a trained model on a command line, each with the files that it needs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from denature.serve.export import export
from denature.train import Run


def scale_of(run: Run) -> list[str]:
    """The normalisation of a run, as options of a command."""
    network: Any = run.network
    return [
        word
        for name in ("mean", "std")
        for word in (f"--{name}", ",".join(map(str, getattr(network, name).flatten().tolist())))
    ]


def checkpoint(run: Run, path: Path) -> list[str]:
    """A checkpoint as training scripts write it: nested, from DataParallel, without a scale."""
    network: Any = run.network
    weights = {f"module.{name}": value for name, value in network.body.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": weights}, path / "model.pt")
    return ["model.pt", "--net", "cnn", *scale_of(run)]


def whole(run: Run, path: Path) -> list[str]:
    weights = {name: value.contiguous() for name, value in run.network.state_dict().items()}
    save_file(weights, path / "whole.safetensors")
    return ["whole.safetensors", "--net", "cnn"]


FACTORY = """
from torch import nn

def make(image_size):
    from denature.nets import create
    return create("cnn", classes=10, channels=1, image_size=image_size)

def classify(images):
    import torch
    from denature.train import load_run
    with torch.no_grad():
        return load_run({run!r}).network(torch.from_numpy(images)).softmax(-1).numpy()
"""


def own_module(run: Run, path: Path) -> list[str]:
    (path / "own_nets.py").write_text(FACTORY.format(run=str(run.folder)))
    torch.save(run.network.state_dict(), path / "own.pt")
    return ["own.pt", "--net", "own_nets:make"]


def function(run: Run, path: Path) -> list[str]:
    (path / "own_functions.py").write_text(FACTORY.format(run=str(run.folder)))
    return ["own_functions:classify"]


def onnx(run: Run, path: Path) -> list[str]:
    export(run, path / "network.onnx", "onnx")
    return ["network.onnx"]


def program(run: Run, path: Path) -> list[str]:
    export(run, path / "network.pt2", "pt2")
    return ["network.pt2", "--trust", "network.pt2"]


WAYS: list[Callable[[Run, Path], list[str]]] = [
    checkpoint, whole, own_module, function, onnx, program,
]  # fmt: skip
