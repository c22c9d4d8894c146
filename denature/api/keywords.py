"""Keywords that describe a model, of all functions that take one."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from denature.answers.kinds import AnswerKind
from denature.core.keywords import with_keywords
from denature.recipes.models import ModelOptions

F = TypeVar("F", bound=Callable[..., Any])


class ModelKeywords(TypedDict, total=False):
    """What a model does not state itself; an option that says nothing about it is refused."""

    net: str | None
    """Network of a file of weights: a name from `denature nets`, `timm:NAME`, `torchvision:NAME`,
    or `package.module:factory` for a module of your own."""
    classes: int | None
    """Number of classes of these weights, where neither their shapes nor the data say it."""
    entry: str | None
    """Weights to take from a file that holds several sets, such as `state_dict_ema`."""
    mean: Sequence[float]
    """Mean of each channel by which images are normalised, of images in [0, 1]."""
    std: Sequence[float]
    """Standard deviation of each channel by which images are normalised."""
    scale: float
    """Largest number of what a service, a function or a file takes: 255 in place of 1."""
    service_model: str | None
    """Name of the server's model; by default the only model."""
    output: str | None
    """Name of the model's output; by default the only output."""
    kind: AnswerKind | None
    """Kind of the answers, where the model does not declare it."""
    key_file: Path | None
    """A file with the server's key; the environment variable `DENATURE_KEY` by default."""


FIELDS = {"service_model": "model"}
"""Fields of `ModelOptions` whose keywords have another name: `model` is the model itself here."""


def describes_model(function: F) -> F:
    """Decorator of a function with `ModelKeywords`; see `with_keywords`."""
    defaults = {field.name: field.default for field in fields(ModelOptions)}
    named = {name: defaults[FIELDS.get(name, name)] for name in ModelKeywords.__annotations__}
    return with_keywords(ModelKeywords, named)(function)


def model_options(keywords: ModelKeywords) -> ModelOptions:
    """The keywords as the parts below take them, which need a config that cannot change."""
    given: dict[str, Any] = {FIELDS.get(name, name): value for name, value in keywords.items()}
    for name in {"mean", "std"} & given.keys():
        given[name] = tuple(given[name])
    return ModelOptions(**given)
