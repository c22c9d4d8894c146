"""The interface of an objective, a loss for the training loop, and of what it may bring.

This module imports no objective, so that training with one does not import the others.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

if TYPE_CHECKING:  # the command line reads the fields without paying for torch
    from torch import Tensor, nn

    from denature.answers import Answers
    from denature.attacks.gradient import Ask
    from denature.core.compute import Compute
    from denature.core.types import Labels, Logits, PerExample, Pixels
    from denature.data.feed import Batch


class Objective(ABC):
    """A loss for the training loop; a frozen dataclass, whose fields the record keeps.

    One that needs more than logits, labels and answers has the methods of `BringsData`, `Probing`
    or `UsesFeatures` too.
    """

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Any]]

    kind: ClassVar[str]
    """Name of the kind of run with this objective."""
    label: ClassVar[str]
    """The source of learning, for reports; `{teacher}` stands for the kind of the answering run,
    `{answers}` for that of its answers."""
    asks: ClassVar[str | None] = None
    """Role of the input that answers every batch; None where labels suffice."""
    answers_shown: ClassVar[str] = "soft"
    """Kind of these answers in reports."""
    needs_logits: ClassVar[bool] = False
    """Whether these answers must be logits."""
    landmarks: ClassVar[bool] = False
    """Whether labels may be coordinates."""
    baseline: ClassVar[bool] = False
    """Whether other runs are compared with runs of its default settings."""
    schedule: ClassVar[str] = "one-cycle"
    """The schedule that `auto` stands for."""
    remedies: ClassVar[str] = ""
    """Options that help where a loss is not finite, as the end of a list."""
    caution: ClassVar[str | None] = None
    """Sentences for a user of the network."""
    least: ClassVar[float] = 0.0
    """The least value of the loss."""
    rebuilt: ClassVar[bool] = False
    """Whether the loss follows from logits, labels, and answers of a run that the record names."""
    remark: ClassVar[str] = ""
    """What a loss measured on a finished run's training images lacks of the loss in training."""
    softened: ClassVar[bool] = False
    """Whether `temperature` divides the logits in training alone; deployed ones are not divided."""

    @property
    def passes(self) -> int:
        """Passes through the network and back in a training step, of a batch each."""
        return 1

    @abstractmethod
    def __call__(
        self, logits: "Logits", labels: "Labels", answers: "Answers | None", *, done: float
    ) -> "PerExample":
        """The loss per example; `done` is the share of the training's steps already taken."""


class BatchSource(Protocol):
    """Source of batches for the training loop; usually a `Feed` of the training split."""

    def __len__(self) -> int:
        """Number of images in an epoch."""

    def epoch(
        self, epoch: int, *, view_seed: int, batch_size: int, first: int, part: tuple[int, int]
    ) -> "Iterator[Batch]":
        """The batches of an epoch, counted from 1, from number `first` on."""


class SyntheticData(BatchSource, Protocol):
    """Images that are generated and answered during training, instead of training images."""

    def answered(self, batches: "Iterable[Batch]") -> "Iterator[tuple[Batch, Answers]]":
        """Each batch with its answers."""

    def state(self) -> "dict[str, Tensor]":
        """The tensors that a resumed training needs."""

    def restore(self, tensors: "dict[str, Tensor]") -> None:
        """Restore what `state` returned."""


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
        """The generator of the images."""


@runtime_checkable
class Probing(Protocol):
    """An objective that calls the network in training itself, as adversarial training does."""

    def probed(
        self, network: "nn.Module", ask: "Ask", pixels: "Pixels", labels: "Labels"
    ) -> "tuple[Logits, PerExample]":
        """The logits that count as answers, and the loss per example.

        Args:
            network: for attacks; these calls are not part of the training step.
            ask: the same network, for the calls that the loss is computed from.
            pixels: batch x channels x height x width, in [0, 1].
            labels: batch.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchContext:
    """One batch in training, for an objective that uses the student's features."""

    logits: "Logits"
    labels: "Labels"
    answers: "Answers | None"
    done: float
    """Share of the training's steps already taken."""
    features: "tuple[Tensor, ...]"
    """Features of the student, from shallow to deep; the last are the input of the layer that
    computes the logits. See `denature.nets.activations.ActivationRecorder.stages`."""
    heads: "nn.Module"
    """The module that the objective's `heads` returned, in training mode."""


@runtime_checkable
class UsesFeatures(Protocol):
    """An objective that learns from the student's features, perhaps through heads of its own.

    The heads' parameters are trained, and saved in states, with the network's; a finished run has
    none of them.
    """

    def heads(self, shapes: "Sequence[tuple[int, ...]]", classes: int) -> "nn.Module":
        """Modules on top of the features, with random weights from torch's global generator.

        Args:
            shapes: of the features, without the batch, in the order of `BatchContext.features`.
            classes: number of logits.
        """

    def loss(self, batch: BatchContext) -> "PerExample":
        """The loss per example; takes the place of the call with logits alone in training."""


@runtime_checkable
class Diverging(Protocol):
    """An objective that pushes a network away from an adversary."""

    def divergence(self, logits: "Logits", answers: "Answers") -> "PerExample":
        """Divergence from the adversary's answers per example, in nats."""


@runtime_checkable
class Resolvable(Protocol):
    """An objective with optional fields whose defaults follow from other fields."""

    def resolved(self) -> Self:
        """The same objective with every field filled in."""
