"""Models that a caller names or has in Python, as runs and victims."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
import torch
from torch import nn

from denature.answers.scaling import PixelScale
from denature.core.errors import ConfigError
from denature.core.keywords import many
from denature.core.progress import SILENT, Progress
from denature.core.weights import digest
from denature.data import load
from denature.data.given import DataLike
from denature.extract.victims.base import Victim
from denature.extract.victims.called import FunctionVictim
from denature.extract.victims.local import local
from denature.nets.published import check_backbone
from denature.recipes.identity import identity_of
from denature.recipes.models import (
    OF_FUNCTIONS,
    ImageShape,
    ModelOptions,
    check_network,
    check_options,
    folder_of,
    is_network,
    open_run,
    open_victim,
    options_of,
)
from denature.remote.config import RequestConfig
from denature.train.run import Run, load_run

ModelLike: TypeAlias = Run | Victim | nn.Module | Callable[[np.ndarray], np.ndarray] | str | Path
"""A model as functions take it: named as on the command line, or a value. A module maps images in
[0, 1] to logits; a function maps float32 images in [0, 1], batch x channels x height x width, to
probabilities, logits or labels."""


def models_of(
    models: Sequence[ModelLike],
    data: DataLike,
    *,
    name: str | None = None,
    options: ModelOptions | None = None,
    pace: RequestConfig | None = None,
    trust: Collection[str] = (),
    progress: Progress = SILENT,
) -> list[Run | Victim]:
    """Models as runs and victims.

    Args:
        models: see `ModelLike`.
        data: whose images the models take, for weights in a file.
        name: identity of a function, by which its answers are kept; those of a module are kept by
            name and weights.
        options: what a model does not state itself.
        pace: rate and retries of requests.
        trust: modules and files that may execute code.
        progress: receives the progress of decoding.

    Raises:
        ConfigError: no model, an option that applies to none of them, or a function without a name
            whose answers depend on more than its code.
    """
    options = options or ModelOptions()
    check_options({name_of(model): {*_options_of(model)} for model in models}, options)
    for model in models:
        if isinstance(model, str | Path) and is_network(str(model)):
            check_network(str(model), options)
    images = images_of(data, progress)
    pace, trust = pace or RequestConfig(), many(trust)

    def opened(model: ModelLike) -> Run | Victim:
        if not isinstance(model, str | Path):
            return _of_value(model, name, options)
        if is_network(str(model)):
            return open_run(str(model), options, images=images, trust=trust)
        return open_victim(str(model), options, images=images, pace=pace, trust=trust)

    return [opened(model) for model in models]


def open_target(
    model: ModelLike,
    data: DataLike,
    *,
    name: str | None = None,
    options: ModelOptions | None = None,
    top: int = 0,
    endpoint_url: str | None = None,
    values: Sequence[str] = (),
    pace: RequestConfig | None = None,
    trust: Collection[str] = (),
    progress: Progress = SILENT,
) -> Victim:
    """Any model as a victim; a network answers in this process, without a wire.

    See `models_of` and `denature.extract.victims.find.find` for the arguments.
    """
    options = options or ModelOptions()
    if isinstance(model, str | Path):
        return open_victim(
            str(model),
            options,
            images=images_of(data, progress),
            top=top,
            endpoint_url=endpoint_url,
            values=values,
            pace=pace or RequestConfig(),
            trust=many(trust),
        )
    usable = {*_options_of(model)} | ({"kind"} if isinstance(model, Run) else set())
    check_options({name_of(model): usable}, options)
    found = _of_value(model, name, options)
    return local(found, kind=options.kind) if isinstance(found, Run) else found


def images_of(data: DataLike, progress: Progress = SILENT) -> Callable[[], ImageShape]:
    """Reads a data set for the shape of its images, when a model needs it."""

    def shape() -> ImageShape:
        dataset = load(data, progress=progress)
        return ImageShape(dataset.channels, dataset.image_size, len(dataset.classes) or None)

    return shape


def backbone_of(backbone: Run | str | Path | None, trust: Collection[str]) -> Run | str | None:
    """A backbone as a run, or the name of a library's network, which has one of this name."""
    if backbone is None or isinstance(backbone, Run):
        return backbone
    if (folder := folder_of(str(backbone))) is not None:
        return load_run(folder, trust=trust)
    check_backbone(str(backbone))
    return str(backbone)


def name_of(model: ModelLike) -> str:
    """A name of a model for pages; `folder_name` shortens it for folders."""
    if isinstance(model, str | Path):
        return str(model)
    if isinstance(model, Run):
        net = model.record.net
        return f"{model.record.kind}-{net.name}-{net.digest[:8]}"
    return str(getattr(model, "__name__", type(model).__name__))


def check_paid(max_cost: float | None, models: Mapping[str, Run | Victim]) -> None:
    """Check that a limit in dollars has something to limit.

    Args:
        max_cost: US dollars at most.
        models: by name.

    Raises:
        ConfigError: all models are networks in this process.
    """
    if max_cost is not None and all(isinstance(model, Run) for model in models.values()):
        raise ConfigError(
            f"max_cost limits what queries cost, and {' and '.join(models)} "
            f"{'is a network' if len(models) == 1 else 'are networks'} in this process. Leave it "
            "out."
        )


def _options_of(model: ModelLike) -> Iterable[str]:
    """Options that can describe a model."""
    if isinstance(model, str | Path):
        return options_of(str(model))
    return () if isinstance(model, Run) or hasattr(model, "ask") else OF_FUNCTIONS


def _of_value(model: object, name: str | None, options: ModelOptions) -> Run | Victim:
    """A model that a caller has in Python."""
    if isinstance(model, Run):
        return model
    pixels = PixelScale(scale=options.scale, mean=options.mean, std=options.std)
    if isinstance(model, nn.Module):
        identity = f"{name or type(model).__name__} {digest(model)}"
        kind = options.kind or "logits"
        return FunctionVictim(_answers_of(model), name=identity, kind=kind, pixels=pixels)
    if hasattr(model, "ask"):
        return cast(Victim, model)
    if not callable(model):
        raise ConfigError(
            f"The model is {type(model).__name__}; wanted is a run, a torch module, a function "
            "from float32 images in [0, 1] to answers, or what `denature audit` takes."
        )
    return FunctionVictim(model, name=name or identity_of(model), kind=options.kind, pixels=pixels)


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
