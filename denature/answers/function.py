"""A user's Python function that answers images."""

import hashlib
from collections.abc import Callable
from typing import TypeAlias, cast, final

import numpy as np
import torch

from denature.answers.answerer import Answers
from denature.answers.kinds import AnswerKind
from denature.core.errors import ConfigError
from denature.core.names import import_named
from denature.core.types import Pixels

Function: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""From float32 images in [0, 1], batch x channels x height x width, to answers: batch x classes, or
labels, batch. A function for ART's `BlackBoxClassifier` fits."""


@final
class FunctionAnswerer:
    """The answers of a function.

    Args:
        function: see `Function`.
        name: identity of the function; `digest` is derived from it, since code has no digest.
        kind: kind of the answers.
    """

    def __init__(self, function: Function, *, name: str, kind: AnswerKind) -> None:
        self.kind: AnswerKind = kind
        self.digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        self._function = function
        self._name = name

    def __call__(self, pixels: Pixels) -> Answers:
        values = checked(self._function(pixels.cpu().numpy()), name=self._name)
        if (values.ndim == 1) != (self.kind == "label"):
            raise ConfigError(
                f"{self._name} answered {values.dtype} of the shape {values.shape}, which is no "
                f"{self.kind}; state the kind that it answers with."
            )
        return Answers(self.kind, torch.from_numpy(values))


def load_function(name: str) -> Function:
    """The function that `package.module:function` names; this executes its module.

    Raises:
        ConfigError: there is no such function.
    """
    try:
        function = import_named(name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"The function {name!r} cannot be imported: {error}.") from None
    if isinstance(function, type):
        raise ConfigError(
            f"{name!r} is a class; wanted is a function from images to answers. The weights of a "
            f"network of this class are a model: model.pt --net {name}."
        )
    if not callable(function):
        raise ConfigError(f"{name!r} is not a function.")
    return cast(Function, function)


def checked(values: object, *, name: str) -> np.ndarray:
    """A function's answers as float32, batch x classes, or int64, batch.

    Raises:
        ConfigError: the answers have another type or shape.
    """
    array = np.asarray(values)
    if array.ndim == 1 and np.issubdtype(array.dtype, np.integer):
        return array.astype(np.int64)
    if array.ndim == 2 and np.issubdtype(array.dtype, np.floating):
        return array.astype(np.float32)
    raise ConfigError(
        f"{name} answered {array.dtype} of the shape {array.shape}; wanted are floats, "
        "batch x classes, or integers, batch."
    )
