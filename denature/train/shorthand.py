"""Shorthand functions `normal`, `nasty` and `distilled`, with all options as keywords."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

from torch import nn

from denature.answers.config import InferenceConfig
from denature.core.errors import ConfigError
from denature.core.keywords import with_keywords
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
C = TypeVar("C", bound=Normal | Nasty | Distilled | Training | InferenceConfig)


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


def _shorthand(objective: type[Any], options: type[Any]) -> Callable[[F], F]:
    """Decorator of a function with these options; see `with_keywords`.

    Args:
        objective: config that holds the defaults of its own options.
        options: their types.
    """
    defaults = {name: made.default for name, made in inspect.signature(train).parameters.items()}
    for config in (Training, InferenceConfig, objective):
        defaults |= {field.name: field.default for field in fields(config)}
    return with_keywords(options, defaults)


@_shorthand(Normal, NormalOptions)
def normal(net: str | nn.Module, data: DataLike, **options: Unpack[NormalOptions]) -> Run:
    """Train a network on the true labels; options are those of `train`, `Training`, `Normal`."""
    return _with_options(Normal, net, data, dict(options))


@_shorthand(Nasty, NastyOptions)
def nasty(
    net: str | nn.Module, data: DataLike, *, adversary: Run, **options: Unpack[NastyOptions]
) -> Run:
    """Train a nasty teacher; options: see `train`, `Training`, `Nasty`, `InferenceConfig`."""
    return _with_options(Nasty, net, data, {"source": adversary, **options})


@_shorthand(Distilled, DistilledOptions)
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
    def take(kind: type[C]) -> C:
        given = {f.name: options.pop(f.name) for f in fields(kind) if f.name in options}
        try:
            return kind(**given)
        except TypeError as error:  # a number was compared with a text, for one
            raise ConfigError(f"One of {given} is of another type: {error}.") from None

    made, training = take(objective), take(Training)
    inference = take(InferenceConfig) if objective.asks else InferenceConfig()
    return train(net, data, made, training, inference=inference, **options)
