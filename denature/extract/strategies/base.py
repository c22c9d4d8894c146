"""The interface of a strategy: a thief's whole way from a budget to a clone.

A strategy is a generator. It queries through its attempt, yields lessons, receives the runs that
they became, and returns the clone. So many strategies advance together, and their trainings go
through the one loop, in passes or in workers. A strategy knows the defense only as a function, and
imports no defense.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np

from denature.answers.kinds import AnswerKind
from denature.core.schema import encode
from denature.extract.config import Threat, thief_training
from denature.train.config import Training
from denature.train.objectives.base import Objective
from denature.train.objectives.cloned import Cloned

if TYPE_CHECKING:
    from torch import nn

    from denature.answers.answerer import Answers
    from denature.train.run import Run

Extra: TypeAlias = Literal["other", "backbone", "encoder"]
"""A pool of another domain, a pretrained network, the victim's public encoder."""

QuerySource: TypeAlias = Literal["random", "chosen", "own"]
"""Images that a thief queries: the first of the pool in random order, which all thieves share;
images of the pool that its clones choose; or images that are not in the pool."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """What is known before the first query, from which a strategy tells whether it applies."""

    threat: Threat
    kind: AnswerKind
    """Kind of the shown answers: logits, probabilities or label."""
    random: bool
    """Whether the defense answers the same image differently each time."""
    perturbs: bool
    """Whether the defense changes scores by more than their format."""
    classes: int
    net: str
    """Network of the clone."""
    budget: int
    labelled: int
    """Images with true labels that the thief owns; 0 for threat B."""
    backbone: str | None = None
    """A public network with pretrained layers that the thief may start from, for messages."""
    encoder: bool = False
    """Whether the victim is known to be a public frozen encoder with a private linear head."""
    other_pool: str | None = None
    """Name of a pool of another domain, where there is one."""


class LabelledImages(NamedTuple):
    """Images that the thief owns, with their true labels."""

    images: np.ndarray
    """uint8, n x channels x height x width."""
    labels: np.ndarray
    """int64, n."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Lesson:
    """One training of a thief's network, on images of its own with the answers that it received."""

    images: np.ndarray
    """uint8, n x channels x height x width."""
    answers: "Answers"
    """To these images, on the CPU: float32, n x classes, all finite, or int64, n, for labels."""
    labels: np.ndarray | None = None
    """int64, n; what the objective takes for true labels. The answers' classes by default."""
    objective: Objective = field(default_factory=Cloned)
    net: str | None = None
    """Another network than the clone's, such as that of a shadow model."""
    backbone: "Run | str | None" = None
    training: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `denature.train.Training` that differ from the attempt's."""
    length: float = 1.0
    """Share of a clone's epochs, see `denature.extract.config.thief_training`."""
    seed: int = 0
    """Added to the seed of the attempt, for several networks that differ."""

    def training_for(self, template: Training, *, net: str | None = None) -> Training:
        """The training of this lesson, from that of all clones and the clone's network.

        The rate of known networks was measured on clones that start from random weights, so a
        backbone keeps the usual one.
        """
        fresh = (self.net or net) if self.backbone is None else None
        usual = thief_training(len(self.images), template, net=fresh, length=self.length)
        return replace(usual, **self.training)

    def digest(self, seed: int) -> str:
        """Identity of the network that comes of the lesson, in an attempt with this seed."""
        settings = (
            *(encode(self.objective), self.objective.kind, self.net, str(self.backbone)),
            *(sorted(self.training.items()), self.length, self.seed, seed, self.answers.kind),
        )
        found = hashlib.sha256(repr(settings).encode())
        values = self.answers.values.numpy()
        for array in (self.images, values, self.labels):
            if array is not None:
                found.update(f"{array.dtype}{array.shape}".encode())
                found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()


class TrainedClone(NamedTuple):
    """What a strategy returns."""

    network: "nn.Module"
    """From pixels in [0, 1] to logits, in eval mode."""
    note: str = ""
    """A remark for the report, such as the setting that was chosen."""


Steps: TypeAlias = "Generator[Sequence[Lesson], Sequence[Run], TrainedClone]"
"""Lessons that can be learned at the same time go out, their runs come back in the same order."""


class Attempt(Protocol):
    """What a thief may use: one victim with its defense, one budget, one seed."""

    situation: Situation
    seed: int
    device: str
    """Device of the thief's own networks: auto, cpu, cuda or mps."""
    owned: LabelledImages | None
    """Labelled images of threat A, which count as pool images too; None for threat B."""
    encoder: "nn.Module | None"
    """The public encoder, from pixels to features, batch x d, where the situation names one."""
    backbone: "Run | str | None"
    """The pretrained network, where the situation names one."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""

    def pool(self, first: int, count: int, *, other: bool = False) -> np.ndarray:
        """Images of the pool, in an order that depends on the seed alone, without duplicates.

        Test images are not among them; owned images come first. `other` takes the other domain's.

        Returns:
            uint8, at most `count` x channels x height x width.
        """

    def pool_size(self, *, other: bool = False) -> int:
        """Number of images that `pool` can return."""

    def left(self) -> int:
        """Queries that the budget still allows."""

    def ask(self, images: np.ndarray) -> "Answers":
        """The shown answers to images, each of which costs one query, also when it is repeated.

        Hidden scores are NaN; see `shown_to_soft`.

        Raises:
            BudgetSpent: more images than queries are left; none is sent.
        """

    def simulate(self, answers: "Answers", images: np.ndarray) -> "Answers":
        """The defense as a function, on true answers to any images, without a query.

        Its random state is not the victim's, and another one in each call; other state, such as a
        codebook, begins anew.

        Args:
            answers: of the kind that the victim has before its defense.
            images: the images of these answers.
        """

    @property
    def true_kind(self) -> AnswerKind:
        """Kind of answers that `simulate` takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Strategy(ABC):
    """A thief of the catalogue; the fields of a subclass are its settings."""

    name: ClassVar[str]
    about: ClassVar[str]
    """What the thief does, in a sentence for reports."""
    source: ClassVar[str]
    """Paper, with what differs."""
    trainings: ClassVar[float] = 1
    """Trainings as long as the naive clone's that one clone takes at most; see `trained_images`."""
    threats: ClassVar[tuple[Threat, ...]] = ("B",)
    """Threats of a standard audit; ("A", "B") where owned images or labels
    change the clone."""
    queries: ClassVar[QuerySource] = "random"
    uses: ClassVar[tuple[Extra, ...]] = ()
    """What it takes besides the pool; its cells alone depend on it."""
    revision: ClassVar[int] = 1
    """Is raised after a change that moves the numbers of this strategy's cells alone."""
    whole_pool: ClassVar[bool] = False
    """Whether a clone learns from images that were not queried too, so that it costs as much at
    small budgets as at large ones."""

    def excluded(self, situation: Situation) -> str | None:
        """Why the strategy does not apply in this situation, as a sentence; None where it does."""
        return None

    def trained_images(self, budget: int, training: Training) -> float:
        """Images of all trainings of one clone, each counted once an epoch, at most.

        Args:
            budget: number of queries.
            training: of clones; see `denature.extract.config.thief_training`.
        """
        return self.trainings * images_of_training(budget, training)

    @abstractmethod
    def steps(self, attempt: Attempt) -> Steps:
        """Query, train, and return the clone."""


def images_of_training(count: int, training: Training, *, length: float = 1.0) -> float:
    """Images of one training on `count` images, each counted once an epoch."""
    return float(count * thief_training(count, training, length=length).epochs)
