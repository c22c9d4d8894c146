"""Functions, and .onnx and .pt2 files, as served models."""

import hashlib
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from denature.answers.answerer import Answers
from denature.answers.function import checked, load_function
from denature.answers.kinds import AnswerKind
from denature.answers.looks import kind_of
from denature.answers.network import converted
from denature.answers.program import SUFFIXES, Program, open_program
from denature.answers.scaling import PixelScale
from denature.core.errors import ConfigError
from denature.core.names import is_attribute
from denature.core.seeds import generator
from denature.core.types import Pixels
from denature.serve.config import FunctionModel, ServedModel
from denature.serve.protocol import ModelSignature
from denature.serve.refusal import Refused

TRIED = 8
"""Random images whose answers show their kind and the number of scores."""


def find_function(
    served: ServedModel,
    *,
    channels: int,
    image_size: int,
    classes: int | None,
    kind: AnswerKind | None,
    pixels: PixelScale,
    trust: Collection[str],
) -> ServedModel:
    """The model with what is known of its function or file, from answers to random images.

    Args:
        served: names `package.module:function`, or an .onnx or .pt2 file.
        channels: of a function's images; a file states its own.
        image_size: likewise, in pixels a side.
        classes: number of classes of a model that answers with labels.
        kind: kind of its answers; by default as their values look.
        pixels: numbers that it takes in place of pixels in [0, 1].
        trust: names of .pt2 files that may be loaded.

    Raises:
        ConfigError: there is no such function, or it gives no answers to images.
        RunError: the file cannot be read.
    """
    program = _program(served.run, channels, image_size, trust)
    values = _tried(program, pixels)
    found = kind_of(values, percent=False) or "logits"
    if kind is not None and "label" in (kind, found) and kind != found:
        raise ConfigError(f"{program.name} answers with {found}, not with {kind}.")
    scores = values.shape[1] if values.ndim > 1 else classes or int(values.max()) + 1
    known = FunctionModel(
        kind=kind or found,
        scores=max(scores, 2),
        channels=program.channels,
        image_size=program.image_size,
        pixels=pixels,
    )
    return replace(served, function=known).resolved()


def _tried(program: Program, pixels: PixelScale) -> np.ndarray:
    """Answers to random images.

    Raises:
        ConfigError: there are none, or their numbers are not finite.
    """
    shape = (TRIED, program.channels, program.image_size, program.image_size)
    drawn = generator(0, "function").integers(0, 256, shape, dtype=np.uint8)
    try:
        answers = program.ask(pixels(drawn))
    except Exception as error:  # a user's function may raise any exception
        raise ConfigError(
            f"{program.name} failed on random images of the shape {shape}: {type(error).__name__}: "
            f"{error}. Other images of a function are named with --channels and --image-size."
        ) from error
    values = checked(answers, name=program.name)
    if len(values) != TRIED or not np.isfinite(values).all():
        raise ConfigError(
            f"{program.name} gave {len(values)} answers to {TRIED} random images, and "
            f"{np.isfinite(values).sum()} of their {values.size} numbers are finite; wanted is one "
            "answer of finite numbers for each image."
        )
    return values


@final
class ServedFunction:
    """Answers of a function or a file, of the kind that the defenses take.

    Raises:
        ConfigError, RunError: see `find_function`.
    """

    def __init__(self, served: ServedModel, *, trust: Collection[str]) -> None:
        assert served.function is not None
        self._model = known = served.function
        self._program = _program(served.run, known.channels, known.image_size, trust)
        self.kind: AnswerKind = served.taken or served.exposure.kind
        text = f"{self._program.name} {known.pixels.options}"
        self.digest = hashlib.sha256(text.encode()).hexdigest()[:16]

    def __call__(self, pixels: Pixels) -> Answers:
        """Answers to images in [0, 1].

        Raises:
            Refused: with 500, if there are no answers of the known form.
        """
        known, name = self._model, self._program.name
        try:
            values = checked(self._program.ask(known.pixels(pixels.numpy())), name=name)
        except Exception as error:  # a user's function may raise any exception
            raise _failure(f"{name} failed: {type(error).__name__}: {error}") from error
        shape = (len(pixels),) if known.kind == "label" else (len(pixels), known.scores)
        if values.shape != shape:
            raise _failure(f"{name} answered in the shape {values.shape}, not {shape}.")
        if not np.isfinite(values).all():
            raise _failure(f"{name} answered with numbers that are not finite.")
        return converted(values, known.kind, self.kind)


def signature_of(served: ServedModel) -> ModelSignature:
    """Input and output of a function or a file, as they are served."""
    assert served.function is not None
    known = served.function
    return ModelSignature(
        name=served.name,
        shape=(known.channels, known.image_size, known.image_size),
        classes=tuple(map(str, range(known.scores))),
        named=False,
        exposure=served.exposure,
    )


def unit_pixels(images: np.ndarray) -> Tensor:
    """Images in [0, 1] from those of a request, uint8 or float32."""
    # Arrays over a request's bytes are read-only, which torch would warn about.
    return torch.tensor(PixelScale()(images))


def _program(name: str, channels: int, image_size: int, trust: Collection[str]) -> Program:
    if is_attribute(name):
        ask = load_function(name)
        return Program(ask=ask, name=name, channels=channels, image_size=image_size)
    if Path(name).suffix in SUFFIXES:
        return open_program(Path(name), trust=trust)
    raise ConfigError(
        f"{name!r} cannot be served: wanted is a run's folder, a file of weights with --net, hf:, "
        "timm: or torchvision:NAME, an .onnx or .pt2 file, or package.module:function. A server's "
        "models are served with --upstream URL."
    )


def _failure(cause: str) -> Refused:
    return Refused(500, "The model gave no valid answer.", cause=cause)
