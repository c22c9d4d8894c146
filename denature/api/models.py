"""Models that callers have in Python, as runs and victims."""

import dis
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import nn

from denature.core.errors import ConfigError, brief
from denature.core.weights import digest
from denature.data import load
from denature.data.given import DataLike
from denature.extract.victims.base import Victim
from denature.extract.victims.called import FunctionVictim
from denature.extract.victims.find import folder_name
from denature.remote.config import RequestConfig
from denature.train.run import Run

ModelLike: TypeAlias = Run | Victim | nn.Module | Callable[[np.ndarray], np.ndarray] | str | Path
"""A model as functions take it. A module maps images in [0, 1] to logits; a function maps float32
images in [0, 1], batch x channels x height x width, to probabilities, logits or labels."""


READING = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
"""Instructions of Python that read a global name."""


def model_of(model: ModelLike, data: DataLike, *, name: str | None = None) -> Run | Victim:
    """A model as a run or a victim.

    Args:
        model: see `ModelLike`.
        data: whose images the model takes, for weights in a file.
        name: identity of a function, by which its answers are kept; those of a module are kept by
            name and weights.

    Raises:
        ConfigError: no model, or a function without a name whose answers depend on more than its
            code.
    """
    if isinstance(model, str | Path):
        from denature.cli.models import ImageShape, ModelOptions, open_models

        def images() -> ImageShape:
            dataset = load(data)
            return ImageShape(dataset.channels, dataset.image_size)

        [found] = open_models(
            [str(model)], ModelOptions(), images=images, pace=RequestConfig(), trust=()
        )
        return found
    if isinstance(model, Run):
        return model
    if isinstance(model, nn.Module):
        identity = f"{name or type(model).__name__} {digest(model)}"
        return FunctionVictim(_answers_of(model), name=identity, kind="logits")
    if hasattr(model, "ask"):
        return cast(Victim, model)
    if not callable(model):
        raise ConfigError(
            f"The model is {type(model).__name__}; wanted is a run, a torch module, a function "
            "from float32 images in [0, 1] to answers, or what `denature audit` takes."
        )
    return FunctionVictim(model, name=name or _identity(model))


def name_of(model: ModelLike) -> str:
    """A short name of a model for pages and folders."""
    if isinstance(model, str | Path):
        return folder_name(str(model))
    if isinstance(model, Run):
        net = model.record.net
        return f"{model.record.kind}-{net.name}-{net.digest[:8]}"
    return str(getattr(model, "__name__", type(model).__name__))


def _answers_of(module: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    """A module as a function from pixels to logits, in eval mode where it computes."""
    parameter = next(module.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device

    def answer(pixels: np.ndarray) -> np.ndarray:
        module.eval()
        with torch.inference_mode():
            logits: torch.Tensor = module(torch.from_numpy(pixels).to(device))
        return logits.float().cpu().numpy()

    return answer


def _identity(function: Callable[[np.ndarray], np.ndarray]) -> str:
    """A function's name with a digest of its code: one of a notebook is written again and again.

    Raises:
        ConfigError: its answers depend on more than its code, such as weights elsewhere.
    """
    if not isinstance(function, FunctionType):
        raise _nameless(f"an object of {type(function).__name__}")
    texts: dict[FunctionType, str] = {}
    _read(function, texts)
    digest = hashlib.sha256(" ".join(texts.values()).encode()).hexdigest()[:16]
    return f"{function.__module__}:{function.__qualname__} {digest}"


def _nameless(what: str) -> ConfigError:
    return ConfigError(
        f"The model is {what}, by which its answers cannot be told from those of another one. Pass "
        "name=..., another one for each state; robustness takes "
        "denature.extract.FunctionVictim(function, name=...)."
    )


def _read(function: FunctionType, texts: dict[FunctionType, str]) -> None:
    """Add the text of a function and of those of its module that it calls.

    Raises:
        ConfigError: the function holds variables, or reads global data.
    """
    where = f"the function {function.__qualname__}, which"
    code = function.__code__
    if code.co_freevars:
        raise _nameless(f"{where} reads {brief(code.co_freevars)} of the function around it")
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items())
    if not _is_plain(defaults):
        raise _nameless(f"{where} has defaults that are no numbers or texts")
    known = {
        name: function.__globals__[name] for name in _read_names(code) & {*function.__globals__}
    }
    plain = {name: value for name, value in sorted(known.items()) if _is_plain(value)}
    texts[function] = " ".join(
        [_text_of(code), *(repr(part) for part in (defaults, plain) if part)]
    )
    for name, value in sorted(known.items()):
        if isinstance(value, FunctionType) and value.__globals__ is function.__globals__:
            if value not in texts:
                _read(value, texts)
        elif name not in plain and (
            getattr(value, "__module__", None) == function.__module__ or not _is_imported(value)
        ):
            raise _nameless(f"{where} reads the global {name}")


def _is_plain(value: object) -> bool:
    """Whether a value is told apart by its text, in any process."""
    if type(value) is tuple:
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, complex, str, bytes)


def _is_imported(value: Any) -> bool:
    """Whether a value is a module, or what a module has under the value's own name."""
    if isinstance(value, ModuleType):
        return True
    if isinstance(value, BuiltinFunctionType):  # a bound one, such as of a list, holds data
        return value.__self__ is None or isinstance(value.__self__, ModuleType | type)
    origin = sys.modules.get(str(getattr(value, "__module__", "")))
    return origin is not None and getattr(origin, getattr(value, "__name__", ""), None) is value


def _read_names(code: CodeType) -> set[str]:
    """Global names that code and the functions in it read."""
    names = {
        str(instruction.argval)
        for instruction in dis.get_instructions(code)
        if instruction.opname in READING
    }
    inner = (const for const in code.co_consts if isinstance(const, CodeType))
    return names.union(*map(_read_names, inner))


def _text_of(code: CodeType) -> str:
    """Code as text, the same in every process."""
    consts = " ".join(map(_text_of_const, code.co_consts))
    return f"{code.co_code!r} {code.co_names!r} {consts}"


def _text_of_const(const: object) -> str:
    """A function in code has an address, and a set the order of its process."""
    if isinstance(const, CodeType):
        return _text_of(const)
    if isinstance(const, frozenset):
        return f"frozenset({{{', '.join(sorted(map(repr, const)))}}})"
    return repr(const)
