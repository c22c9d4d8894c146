"""Answers, their source for given pixels, and changes of answers."""

from typing import Any, NamedTuple, Protocol

from torch import Tensor

from denature.answers.kinds import AnswerKind
from denature.core.types import Pixels


class Answers(NamedTuple):
    """Answers to one batch with their kind, so that logits never pass for probabilities."""

    kind: AnswerKind
    values: Tensor
    """float32 or float64, batch x classes, NaN where a value is hidden; for labels int64, batch."""


class Answerer(Protocol):
    """A model in this process that answers images, each as a function of that image alone."""

    @property
    def kind(self) -> AnswerKind:
        """Kind of the answers."""

    @property
    def digest(self) -> str:
        """Identity of the answers, 16 hex digits: answerers of one digest and kind answer alike."""

    def __call__(self, pixels: Pixels) -> Answers:
        """Answers to images in [0, 1]."""


class AnswerChange(Protocol):
    """A change of answers, such as a defense; answers of one image never depend on another's."""

    @property
    def settings(self) -> dict[str, Any]:
        """Identity of the change as plain values, a part of the plans of clones."""

    def kind(self, kind: AnswerKind) -> AnswerKind:
        """Kind of the changed answers to answers of `kind`.

        Raises:
            ConfigError: answers of `kind` cannot be changed.
        """

    def __call__(self, answers: Answers) -> Answers:
        """The changed answers."""
