"""What an objective is: a loss for the one training loop, and the images that it may bring.

Nothing here knows of any objective, so that who trains one does not drag the others in.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

if TYPE_CHECKING:  # the command line reads the fields without paying for torch
    from torch import Tensor, nn

    from denature.answers import Answers
    from denature.attacks.gradient import Ask
    from denature.core.compute import Compute
    from denature.core.types import Labels, Logits, PerExample, Pixels
    from denature.data.feed import Batch


class Objective(Protocol):
    """A loss for the training loop; a frozen dataclass, whose fields the record keeps."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def kind(self) -> str:
        """What a run with this objective is called."""

    @property
    def asks(self) -> str | None:
        """Which of a run's inputs answers every batch; None where labels are enough."""

    def __call__(
        self, logits: "Logits", labels: "Labels", answers: "Answers | None", *, done: float
    ) -> "PerExample":
        """The loss per example; `done` is the share of the training's steps that lie behind."""


class Images(Protocol):
    """What a training loop takes batches from; mostly a `Feed` of the training split."""

    def __len__(self) -> int:
        """Images of an epoch."""

    def epoch(
        self, epoch: int, *, view_seed: int, batch_size: int, first: int, part: tuple[int, int]
    ) -> "Iterator[Batch]":
        """The batches of an epoch, counted from 1, from number `first` on."""


class SyntheticData(Images, Protocol):
    """Images that are made up and answered on the way, in the place of training images."""

    def answered(self, batches: "Iterable[Batch]") -> "Iterator[tuple[Batch, Answers]]":
        """Each batch with its answers."""

    def state(self) -> "dict[str, Tensor]":
        """All that is needed to go on."""

    def restore(self, tensors: "dict[str, Tensor]") -> None:
        """Go back to what `state` gave."""


@runtime_checkable
class BringsData(Protocol):
    """An objective that brings its own images."""

    def synthetic_data(
        self,
        teacher: "nn.Module",
        *,
        images: int,
        channels: int,
        image_size: int,
        seed: int,
        compute: "Compute",
    ) -> SyntheticData:
        """Who makes them."""


@runtime_checkable
class Probing(Protocol):
    """An objective that asks the network in training itself, as adversarial training does."""

    def probed(
        self, network: "nn.Module", ask: "Ask", pixels: "Pixels", labels: "Labels"
    ) -> "tuple[Logits, PerExample]":
        """The logits that are counted as answers, and the loss per example.

        Args:
            network: to be looked into; what it is asked here is not learned from.
            ask: the same, for what is learned from.
            pixels: batch x channels x height x width, in [0, 1].
            labels: batch.
        """


@runtime_checkable
class Diverging(Protocol):
    """An objective that pushes a network away from another."""

    def divergence(self, logits: "Logits", answers: "Answers") -> "PerExample":
        """How far it is from the other's answers, in nats."""


@runtime_checkable
class Resolvable(Protocol):
    """An objective some of whose fields follow from others where they are left open."""

    def resolved(self) -> Self:
        """The same with every field filled in."""
