"""A user's Python function that answers images."""

from collections.abc import Callable
from typing import TypeAlias, cast

import numpy as np

from denature.core.errors import ConfigError
from denature.core.names import import_named

Function: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""From float32 images in [0, 1], batch x channels x height x width, to answers: batch x classes, or
labels, batch. A function for ART's `BlackBoxClassifier` fits."""


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
