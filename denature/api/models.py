"""Models that callers have in Python, as runs and victims."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import TypeAlias, cast

import numpy as np
import torch
from torch import nn

from denature.core.errors import ConfigError
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


def model_of(model: ModelLike, data: DataLike, *, name: str | None = None) -> Run | Victim:
    """A model as a run or a victim.

    Args:
        model: see `ModelLike`.
        data: whose images the model takes, for weights in a file.
        name: identity of a function or a module, by which its answers are kept.

    Raises:
        ConfigError: no model, or a function that has no name of its own.
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
        identity = f"{type(model).__name__} {digest(model)}"
        return FunctionVictim(_answers_of(model), name=name or identity, kind="logits")
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
        ConfigError: it has no code, such as an object that is called; what it is shows nowhere.
    """
    code = getattr(function, "__code__", None)
    if code is None:
        raise ConfigError(
            f"The model is an object of {type(function).__name__}, by which its answers cannot be "
            "told from those of another one. Pass name=..., another one for each state."
        )
    digest = hashlib.sha256(_text_of(code).encode()).hexdigest()[:16]
    return f"{function.__module__}:{function.__qualname__} {digest}"


def _text_of(code: CodeType) -> str:
    """Code as text; functions in it have an address, which changes from process to process."""
    inner = (_text_of(it) if isinstance(it, CodeType) else repr(it) for it in code.co_consts)
    return f"{code.co_code!r} {code.co_names!r} {' '.join(inner)}"
