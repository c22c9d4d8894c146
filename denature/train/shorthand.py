"""Shorthand functions `normal`, `nasty` and `distilled`, with all options as keywords."""

import inspect
from dataclasses import fields
from typing import Any

from torch import nn

from denature.answers.config import InferenceConfig
from denature.core.errors import unknown
from denature.data import DataConfig, Dataset
from denature.train.config import Training
from denature.train.objectives import Distilled, Nasty, Normal
from denature.train.run import Run
from denature.train.runs import train


def normal(net: str | nn.Module, data: str | DataConfig | Dataset, **options: Any) -> Run:
    """Train a network on the true labels; options are those of `train` and `Training`."""
    return _with_options(Normal, net, data, options)


def nasty(
    net: str | nn.Module, data: str | DataConfig | Dataset, *, adversary: Run, **options: Any
) -> Run:
    """Train a nasty teacher; options: see `train`, `Training`, `Nasty`, `InferenceConfig`."""
    return _with_options(Nasty, net, data, {"source": adversary, **options})


def distilled(
    net: str | nn.Module, data: str | DataConfig | Dataset, *, teacher: Run, **options: Any
) -> Run:
    """Train a student; options: see `train`, `Training`, `Distilled`, `InferenceConfig`."""
    return _with_options(Distilled, net, data, {"source": teacher, **options})


def _with_options(
    objective: type[Normal | Nasty | Distilled],
    net: str | nn.Module,
    data: str | DataConfig | Dataset,
    options: dict[str, Any],
) -> Run:
    def take(kind: type[Any]) -> dict[str, Any]:
        return {f.name: options.pop(f.name) for f in fields(kind) if f.name in options}

    made, training = objective(**take(objective)), Training(**take(Training))
    inference = InferenceConfig(**take(InferenceConfig)) if objective.asks else InferenceConfig()
    known = inspect.signature(train).parameters
    for name in options:
        if name not in known:
            kinds = (objective, Training, *([InferenceConfig] if objective.asks else []))
            raise unknown(
                "option", name, {*known, *(f.name for kind in kinds for f in fields(kind))}
            )
    return train(net, data, made, training, inference=inference, **options)
