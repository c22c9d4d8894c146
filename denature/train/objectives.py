"""What makes a normal, a nasty and a distilled network out of the one training loop.

An objective is a value: its fields are what the record keeps, and calling it gives the loss.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    Protocol,
    TypeAlias,
    final,
    runtime_checkable,
)

from denature.core.schema import check_fields

if TYPE_CHECKING:  # the command line reads the fields without paying for torch
    from torch import Tensor, nn

    from denature.answers import Answers
    from denature.core.compute import Compute
    from denature.core.types import Labels, Logits, PerExample
    from denature.data.feed import Batch

AnswerForm: TypeAlias = Literal["soft", "labels"]


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


class Dreamer(Images, Protocol):
    """Images that are made up and answered on the way, in the place of training images."""

    def answered(self, batches: "Iterable[Batch]") -> "Iterator[tuple[Batch, Answers]]":
        """Each batch with its answers."""

    def state(self) -> "dict[str, Tensor]":
        """All that is needed to go on."""

    def restore(self, tensors: "dict[str, Tensor]") -> None:
        """Go back to what `state` gave."""


@runtime_checkable
class Dreaming(Protocol):
    """An objective that brings its own images."""

    def dreamer(
        self,
        teacher: "nn.Module",
        *,
        images: int,
        channels: int,
        image_size: int,
        seed: int,
        compute: "Compute",
    ) -> Dreamer:
        """Who makes them."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Normal:
    """Cross-entropy against the true labels."""

    kind: ClassVar[str] = "normal"
    asks: ClassVar[None] = None

    def __call__(
        self, logits: "Logits", labels: "Labels", answers: "Answers | None", *, done: float
    ) -> "PerExample":
        from torch.nn import functional as F

        return F.cross_entropy(logits, labels, reduction="none")


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Nasty:
    """Right on top and misleading below: the self-undermining loss against a frozen adversary."""

    kind: ClassVar[str] = "nasty"
    asks: ClassVar[str] = "adversary"

    temperature: float = 4.0
    """tau at which nasty teacher and adversary are pushed apart; the paper: 4 on CIFAR-10, 20 on
    CIFAR-100 and Tiny-ImageNet."""
    omega: float = 0.04
    """Weight of the push; 0.04 is what the released CIFAR-10 code uses, its text is recalled to
    say 0.004."""
    warmup: float = 0.0
    """Share of the steps over which omega rises from 0; tames big networks, 0 in the paper."""
    cap: float | None = None
    """Push no example's tau^2 KL beyond this many nats; tames big networks, off in the paper."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            {
                "temperature": (self.temperature > 0, "above 0"),
                "omega": (self.omega >= 0, "at least 0"),
                "warmup": (0 <= self.warmup <= 1, "a share of the steps, in [0, 1]"),
                "cap": (self.cap is None or self.cap > 0, "above 0"),
            },
        )

    def __call__(
        self, logits: "Logits", labels: "Labels", answers: "Answers | None", *, done: float
    ) -> "PerExample":
        from denature.losses import self_undermining

        assert answers is not None
        assert answers.kind == "logits"
        omega = self.omega * min(1.0, done / self.warmup) if self.warmup else self.omega
        return self_undermining(
            logits,
            answers.values,
            labels,
            temperature=self.temperature,
            omega=omega,
            cap=self.cap,
        )


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Distilled:
    """A student that learns from a teacher's answers, whatever their kind."""

    kind: ClassVar[str] = "distilled"
    asks: ClassVar[str] = "teacher"

    temperature: float = 4.0
    """tau at which teacher and student are compared; means nothing for labels."""
    alpha: float | None = None
    """Share of the teacher's term, the rest goes to the true labels; 0.9 for soft answers, and 1
    for labels, whose thief has no others."""
    answers: AnswerForm = "soft"
    """What the teacher shows: everything, or its most probable class only."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            {
                "temperature": (self.temperature > 0, "above 0"),
                "alpha": (self.alpha is None or 0 <= self.alpha <= 1, "a share in [0, 1]"),
            },
        )

    def settled(self) -> "Distilled":
        """The same with alpha filled in."""
        usual = 1.0 if self.answers == "labels" else 0.9
        return self if self.alpha is not None else replace(self, alpha=usual)

    def __call__(
        self, logits: "Logits", labels: "Labels", answers: "Answers | None", *, done: float
    ) -> "PerExample":
        from denature.losses import distillation, hard_distillation
        from denature.losses.soft import log_probabilities

        assert answers is not None
        alpha = self.settled().alpha
        assert alpha is not None
        values = answers.values
        if answers.kind == "label":
            return hard_distillation(logits, values, labels, alpha=alpha)
        if self.answers == "labels":
            return hard_distillation(logits, values.argmax(-1), labels, alpha=alpha)
        if answers.kind == "probabilities":
            values = log_probabilities(values)
        return distillation(logits, values, labels, temperature=self.temperature, alpha=alpha)


AnyObjective: TypeAlias = Normal | Nasty | Distilled
