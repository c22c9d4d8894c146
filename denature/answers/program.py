"""A model in a file, ONNX or torch's exported program, as a function in this process."""

import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np

from denature.core.errors import ConfigError, MissingExtra, RunError
from denature.core.keywords import many
from denature.core.untrusted import open_regular

SUFFIXES = (".onnx", ".pt2")

Ask: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""From float32 images, batch x channels x height x width, to answers."""

MOST_BATCH = 4096
"""Images of a batch at most, for which a model was exported."""

MOST_SIDE = 4096
"""Pixels a side of an image at most, as networks take here."""


@final
@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Program:
    """The model of a file, and what the file states of its input."""

    ask: Ask
    name: str
    """Name of the file, and digest of its bytes."""
    channels: int
    image_size: int


def open_program(path: Path, *, trust: Collection[str] = ()) -> Program:
    """Load the model of a file.

    Args:
        path: an .onnx file, which executes nothing when it is loaded, or a .pt2 file, which can:
            torch parses its expressions with eval and may unpickle its constants.
        trust: names of .pt2 files that may be loaded.

    Raises:
        ConfigError: the file is not trusted, or its model has another input than images.
        MissingExtra: onnxruntime is not installed.
        RunError: the file cannot be read.
    """
    digest = _digest(path)
    if path.suffix == ".pt2" and not {str(path), path.name} & set(many(trust)):
        raise ConfigError(
            f"Loading {path} can execute code that the file holds, as torch.export.load does. If "
            f"you made it, pass --trust {path}; an .onnx file needs no trust."
        )
    function, shape = (_onnx if path.suffix == ".onnx" else _pt2)(path)
    channels, size = _input(path, shape)
    if isinstance(shape[0], int):
        if not 1 <= shape[0] <= MOST_BATCH:
            raise ConfigError(
                f"{path} takes batches of {shape[0]:,} images; wanted are 1 to {MOST_BATCH:,}."
            )
        function = partial(_in_batches, function, shape[0])
    return Program(ask=function, name=f"{path.name} {digest}", channels=channels, image_size=size)


def _digest(path: Path) -> str:
    """Identity of a model: a digest of its file, and of the files that its weights lie in.

    Raises:
        MissingExtra: onnx is not installed.
        RunError: a file cannot be read.
    """
    found, files = hashlib.sha256(), [path]
    try:
        if path.suffix == ".onnx":
            files += [path.parent / name for name in _external_files(path)]
        for file in files:
            with open_regular(file) as opened:
                hashlib.file_digest(opened, lambda: found)
    except OSError as error:
        raise RunError(
            f"{error.filename or path} cannot be read: {error.strerror or error}."
        ) from None
    return found.hexdigest()[:16]


def _external_files(path: Path) -> list[str]:
    """Files beside an ONNX file that hold some of its weights, as torch writes large ones."""
    try:
        import onnx
        from onnx.external_data_helper import ExternalDataInfo, uses_external_data
    except ImportError as error:
        raise MissingExtra(error.name or "onnx", "onnx", "Asking an ONNX file") from None

    def tensors(graph: Any) -> Iterator[Any]:
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)
                for inner in (attribute.g, *attribute.graphs):
                    yield from tensors(inner)

    try:
        with open_regular(path) as file:
            model = onnx.load_model_from_string(file.read())
    except Exception as error:  # of protobuf, for a file that is damaged
        raise RunError(f"{path} cannot be read as ONNX: {' '.join(str(error).split())}") from None
    held = (tensor for part in (model.graph, *model.functions) for tensor in tensors(part))
    names = {ExternalDataInfo(tensor).location for tensor in held if uses_external_data(tensor)}
    for name in names:
        if not (path.parent / name).resolve().is_relative_to(path.parent.resolve()):
            raise RunError(f"{path} names weights in {name}, outside of its folder; refused.")
    return sorted(names)


def _input(path: Path, shape: list[Any]) -> tuple[int, int]:
    """Channels and side of a model's input.

    Raises:
        ConfigError: the input is no batch of square images of a fixed size.
    """
    fixed = [size if isinstance(size, int) else None for size in shape]
    if (
        len(fixed) != 4
        or None in fixed[1:]
        or fixed[2] != fixed[3]
        or fixed[1] not in (1, 3)
        or not 0 < (fixed[2] or 0) <= MOST_SIDE
    ):
        raise ConfigError(
            f"The input of {path} is {shape}; wanted is batch x channels x height x width with 1 "
            "or 3 channels and square images of a fixed size. Wrap the model in a function, "
            "package.module:function."
        )
    assert fixed[1] is not None
    assert fixed[2] is not None
    return fixed[1], fixed[2]


def _in_batches(ask: Ask, size: int, images: np.ndarray) -> np.ndarray:
    """Answers of a model that was exported for batches of one size; the last is filled up."""
    filled = np.concatenate([images, images[-1:].repeat(-len(images) % size, axis=0)])
    parts = [ask(filled[start : start + size]) for start in range(0, len(filled), size)]
    return np.concatenate(parts)[: len(images)]


def _onnx(path: Path) -> tuple[Ask, list[Any]]:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra(error.name or "onnxruntime", "onnx", "Asking an ONNX file") from None
    try:
        session = onnxruntime.InferenceSession(
            str(path),
            providers=["CPUExecutionProvider"],
            # Constants of any size follow from a few bytes, and would be computed on loading.
            disabled_optimizers=["ConstantFolding"],
        )
    except Exception as error:  # the library's errors have no common base
        raise RunError(f"{path} cannot be read as ONNX: {' '.join(str(error).split())}") from None
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type != "tensor(float)":
        raise ConfigError(
            f"{path} has {len(inputs)} inputs of {', '.join(i.type for i in inputs)} and "
            f"{len(outputs)} outputs; wanted is one float32 input and one output. Wrap the model "
            "in a function, package.module:function."
        )

    def ask(images: np.ndarray) -> np.ndarray:
        [answer] = session.run(None, {inputs[0].name: images})
        return np.asarray(answer)

    return ask, list(inputs[0].shape)


def _pt2(path: Path) -> tuple[Ask, list[Any]]:
    import torch

    try:
        program = torch.export.load(path)
    except Exception as error:  # a damaged archive fails in many ways
        raise RunError(f"{path} cannot be read as .pt2: {' '.join(str(error).split())}") from None
    module = program.module()
    names = set(program.graph_signature.user_inputs)
    shapes = [
        [size if isinstance(size, int) else None for size in node.meta["val"].shape]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in names
    ]

    def ask(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            answer: np.ndarray = module(torch.from_numpy(images)).cpu().numpy()
        return answer

    return ask, shapes[0] if len(shapes) == 1 else []
