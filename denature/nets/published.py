"""Weights that a library's authors publish for its networks, fetched by the library itself."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from denature.core.errors import ConfigError
from denature.core.names import library_of
from denature.core.record import InputRecord
from denature.nets import libraries


def check_backbone(name: str) -> None:
    """Check that a library has the network of a backbone; one of the hub may be fetched later.

    Raises:
        ConfigError: no network of a library.
        MissingExtra: the library is not installed.
    """
    named = library_of(name)
    if named is None:
        raise ConfigError(
            f"The backbone {name!r} is no run's folder and no network of a library, such as "
            "timm:resnet18, whose authors publish weights."
        )
    if named[0] != "hf":
        libraries.check_name(*named)


@final
@dataclass(frozen=True, eq=False)
class PublishedWeights:
    """Published weights of a library's network, mostly of ImageNet, as a starting point.

    Args:
        name: `timm:NAME` or `torchvision:NAME`.
        tensors: of the network that `denature.nets.create` makes, normalisation included.
    """

    name: str
    tensors: dict[str, Tensor]

    @staticmethod
    def of(name: str, *, channels: int, image_size: int) -> "PublishedWeights":
        """Fetch the weights, or read them from the library's own cache.

        Raises:
            ConfigError: no network of a library, or one whose weights cannot be obtained.
            MissingExtra: the library is not installed.
        """
        check_backbone(name)
        named = library_of(name)
        assert named is not None
        return PublishedWeights(
            name, libraries.published(*named, channels=channels, image_size=image_size)
        )

    @cached_property
    def digest(self) -> str:
        """sha256 of the weights, first 16 hex digits."""
        found = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            found.update(f"{name}:{tuple(tensor.shape)}:".encode())
            # Through bytes: numpy has no bfloat16.
            found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return found.hexdigest()[:16]

    @property
    def recipe(self) -> str:
        return self.digest

    def as_input(self) -> InputRecord:
        """The reference to these weights in a run's record."""
        return InputRecord(
            folder=None,
            kind="published",
            net=self.name,
            digest=self.digest,
            recipe=self.recipe,
            accuracy=None,
            seed=None,
        )
