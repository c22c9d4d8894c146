"""Networks of libraries, by `timm:NAME`, `torchvision:NAME` or `hf:owner/name`.

Networks are built with random weights, without a download; published weights are fetched when
they are requested.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from denature.core.errors import ConfigError, MissingExtra, RunError, unknown
from denature.nets import hub

EXTRAS = {"hf": "transformers"}
"""Extras whose names are not those of the libraries."""


def create(library: str, name: str, *, classes: int, channels: int, image_size: int) -> nn.Module:
    """A library's network for images of this shape.

    Raises:
        ConfigError: the library has no such network, or cannot build it for this shape.
        MissingExtra: the library is not installed.
    """
    make = {"timm": _timm, "torchvision": _torchvision, "hf": hub.create}[library]
    shape = f"{classes} classes and {channels} channels of {image_size} pixels a side"
    with _blaming(library, name, f"make {name!r} for {shape}"):
        return make(name, classes, channels, image_size)


def check_name(library: str, name: str) -> None:
    """Check that a library has a network of this name.

    Raises:
        ConfigError: it has none.
        MissingExtra: the library is not installed.
    """
    with _blaming(library, name, f"find {name!r}"):
        if library == "hf":
            hub.check_name(name)
        elif library == "timm":
            import timm

            if not timm.is_model(name):
                raise unknown(f"network of {library}", name, timm.list_models())
        else:
            import torchvision

            if name.lower() not in (names := torchvision.models.list_models()):
                raise unknown(f"network of {library}", name, names)


def published(library: str, name: str, *, channels: int, image_size: int) -> dict[str, Tensor]:
    """The published weights of a library's network, as the state of what `nets.create` makes.

    Mean and standard deviation of its training images are among them.

    Raises:
        ConfigError: the library has no weights for the network, or they cannot be fetched.
        MissingExtra: the library is not installed.
    """
    fetch = {"timm": _timm_weights, "torchvision": _torchvision_weights, "hf": hub.published}[
        library
    ]
    with _blaming(library, name, f"give weights of {name!r}"):
        body, mean, std = fetch(name, channels, image_size)
    tensors = {f"body.{key}": value for key, value in body.items()}
    statistics = {"mean": mean, "std": std}
    return tensors | {k: torch.tensor(v[:channels]).view(-1, 1, 1) for k, v in statistics.items()}


@contextmanager
def _blaming(library: str, name: str, deed: str) -> Iterator[None]:
    """Turn a library's exceptions into errors that name the library and the failed step."""
    try:
        yield
    except ImportError:
        extra = EXTRAS.get(library, library)
        raise MissingExtra(extra, extra, f"The network {library}:{name}") from None
    except (ConfigError, RunError):
        raise
    except Exception as error:  # a library may raise anything
        raise ConfigError(f"{library} cannot {deed}: {error}.") from error


def _timm(name: str, classes: int, channels: int, image_size: int) -> nn.Module:
    return _timm_made(name, image_size, pretrained=False, num_classes=classes, in_chans=channels)


def _timm_made(name: str, image_size: int, **options: Any) -> nn.Module:
    import timm

    network: nn.Module
    try:  # transformers need the size; convolutional networks refuse it
        network = timm.create_model(name, img_size=image_size, **options)
    except TypeError:
        network = timm.create_model(name, **options)
    return network


def _timm_weights(
    name: str, channels: int, image_size: int
) -> tuple[dict[str, Tensor], Sequence[float], Sequence[float]]:
    network: Any = _timm_made(name, image_size, pretrained=True, in_chans=channels)
    about = network.pretrained_cfg
    return network.state_dict(), about["mean"], about["std"]


def _torchvision_weights(
    name: str, channels: int, image_size: int
) -> tuple[dict[str, Tensor], Sequence[float], Sequence[float]]:
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT
    network = models.get_model(name, weights=None, num_classes=len(weights.meta["categories"]))
    # torchvision's own loading would unpickle any object.
    network.load_state_dict(weights.get_state_dict(check_hash=True, weights_only=True))
    about = weights.transforms()
    return network.state_dict(), about.mean, about.std


def _torchvision(name: str, classes: int, channels: int, image_size: int) -> nn.Module:
    import torchvision

    if channels != 3:
        raise ConfigError(f"torchvision:{name} takes colour images only; these have one channel.")
    network: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes)
    return network
