"""Shorthand functions `normal`, `nasty` and `distilled`, with all options as keywords."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack, cast

from torch import nn

from denature.answers.config import InferenceConfig
from denature.core.errors import unknown
from denature.data.given import DataLike
from denature.train.config import (
    Augment,
    Checkpoint,
    Device,
    Optimizer,
    ParallelEngine,
    Precision,
    Schedule,
    Training,
)
from denature.train.objectives import Distilled, Nasty, Normal
from denature.train.objectives.distilled import AnswerForm
from denature.train.order import Order
from denature.train.run import Run
from denature.train.runs import train
from denature.train.session import Session

F = TypeVar("F", bound=Callable[..., Run])


class RunKeywords(TypedDict, total=False):
    """Options of every run: those of `train`, and the fields of `Training`."""

    init: Run | Order | None
    backbone: Run | Order | str | None
    out: str | Path | None
    under: str | Path | None
    overwrite: bool
    session: Session | None

    seed: int
    view_seed: int | None
    epochs: int
    optimizer: Optimizer
    lr: float | None
    weight_decay: float | None
    schedule: Schedule
    milestones: Sequence[int]
    gamma: float
    batch_size: int
    fraction: float
    augment: Augment
    frozen: bool
    clip_norm: float | None
    checkpoint: Checkpoint
    validation: float
    evaluate_every: int
    device: Device
    precision: Precision
    parallel: ParallelEngine
    sync_norm: bool


class AskingOptions(RunKeywords, total=False):
    """Options of a run that learns from answers: the fields of `InferenceConfig` too."""

    storage: str
    fold: bool
    compile: bool


class NormalOptions(RunKeywords, total=False):
    """Options of `normal`: the fields of `Normal` too."""

    temperature: float
    smoothing: float


class NastyOptions(AskingOptions, total=False):
    """Options of `nasty`: the fields of `Nasty` too."""

    temperature: float
    omega: float
    warmup: float
    cap: float | None


class DistilledOptions(AskingOptions, total=False):
    """Options of `distilled`: the fields of `Distilled` too."""

    temperature: float
    alpha: float | None
    answers: AnswerForm


def _named(options: type[Any]) -> Callable[[F], F]:
    """Show all options of a function by name, in `help` and where a notebook completes them.

    Args:
        options: their types.
    """
    defaults = {
        field.name: field.default
        for config in (Training, InferenceConfig, Normal, Nasty, Distilled)
        for field in fields(config)
    }
    makes = inspect.signature(train).parameters
    defaults |= {name: makes[name].default for name in RunKeywords.__annotations__ if name in makes}
    own = {NormalOptions: Normal, NastyOptions: Nasty, DistilledOptions: Distilled}[options]
    defaults |= {field.name: field.default for field in fields(own)}

    def with_signature(function: F) -> F:
        signature = inspect.signature(function)
        *given, _ = signature.parameters.values()
        named = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=of
            )
            for name, of in options.__annotations__.items()
        ]
        cast(Any, function).__signature__ = signature.replace(parameters=[*given, *named])
        return function

    return with_signature


@_named(NormalOptions)
def normal(net: str | nn.Module, data: DataLike, **options: Unpack[NormalOptions]) -> Run:
    """Train a network on the true labels; options are those of `train`, `Training`, `Normal`."""
    return _with_options(Normal, net, data, dict(options))


@_named(NastyOptions)
def nasty(
    net: str | nn.Module, data: DataLike, *, adversary: Run, **options: Unpack[NastyOptions]
) -> Run:
    """Train a nasty teacher; options: see `train`, `Training`, `Nasty`, `InferenceConfig`."""
    return _with_options(Nasty, net, data, {"source": adversary, **options})


@_named(DistilledOptions)
def distilled(
    net: str | nn.Module, data: DataLike, *, teacher: Run, **options: Unpack[DistilledOptions]
) -> Run:
    """Train a student; options: see `train`, `Training`, `Distilled`, `InferenceConfig`."""
    return _with_options(Distilled, net, data, {"source": teacher, **options})


def _with_options(
    objective: type[Normal | Nasty | Distilled],
    net: str | nn.Module,
    data: DataLike,
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
