"""Weights that a library's authors publish for its networks, fetched by the library itself."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import final

from torch import Tensor

from denature.core.errors import ConfigError
from denature.core.names import library_of
from denature.core.record import InputRecord
from denature.nets import libraries


@final
@dataclass(frozen=True, eq=False)
class PublishedWeights:
    """What a library's network learned elsewhere, mostly on ImageNet, to start from.

    Args:
        name: `timm:NAME` or `torchvision:NAME`.
        tensors: of the network as `denature.nets.create` makes it, its normalisation among them.
    """

    name: str
    tensors: dict[str, Tensor]

    @staticmethod
    def of(name: str, *, channels: int, image_size: int) -> "PublishedWeights":
        """Fetch them, or read them where the library keeps what it fetched.

        Raises:
            ConfigError: no library's network, or there are no weights for it that can be had.
            MissingExtra: the library is not installed.
        """
        named = library_of(name)
        if named is None:
            raise ConfigError(
                f"The backbone {name!r} is no run's folder and no network of a library, such as "
                "timm:resnet18, whose authors publish weights."
            )
        return PublishedWeights(
            name, libraries.published(*named, channels=channels, image_size=image_size)
        )

    @cached_property
    def digest(self) -> str:
        """sha256 of the weights, first 16 hex digits."""
        found = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            found.update(f"{name}:{tuple(tensor.shape)}:".encode())
            found.update(tensor.contiguous().numpy().data)
        return found.hexdigest()[:16]

    @property
    def recipe(self) -> str:
        return self.digest

    def as_input(self) -> InputRecord:
        """How a run's record refers to it."""
        return InputRecord(
            folder=None,
            kind="published",
            net=self.name,
            digest=self.digest,
            recipe=self.recipe,
            accuracy=None,
            seed=None,
        )
