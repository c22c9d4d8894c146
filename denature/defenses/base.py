"""The interface of a defense, and an answerer with a defense."""

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from denature.answers.kinds import AnswerKind
from denature.core.errors import ConfigError
from denature.core.schema import encode

if TYPE_CHECKING:  # settings of a server name defenses without paying for torch
    from torch import Tensor

    from denature.answers.answerer import Answerer, Answers
    from denature.core.types import Pixels


@dataclass(frozen=True, kw_only=True)
class Defense(ABC):
    """A change of answers before they are shown; the fields of a subclass are its options.

    A defense keeps the dtype of scores, and changes each answer without regard to others.
    """

    name: ClassVar[str]
    """Name in the catalogue."""
    takes: ClassVar[tuple[AnswerKind, ...]]
    """Kinds of answers that can be defended."""
    gives: ClassVar[AnswerKind | None] = None
    """Kind of the defended answers; None for the kind that was taken."""
    keeps_top: ClassVar[bool]
    """Whether the predicted class keeps the largest value, alone or with others."""

    @property
    def settings(self) -> dict[str, Any]:
        """Name and options, as digests and the plans of clones state them."""
        return {"defense": {"name": self.name, **encode(self)}}

    def kind(self, kind: AnswerKind) -> AnswerKind:
        """Kind of the defended answers to answers of `kind`.

        Raises:
            ConfigError: the defense does not take this kind.
        """
        if kind not in self.takes:
            raise ConfigError(
                f"The defense {self.name} takes {', '.join(self.takes)}, not {kind}; show another "
                "kind of answers or leave it out."
            )
        return self.gives or kind

    def __call__(self, answers: "Answers") -> "Answers":
        """The defended answers.

        Raises:
            ConfigError: the defense does not take answers of this kind.
        """
        kind = self.kind(answers.kind)
        return answers._replace(kind=kind, values=self._change(answers.values, answers.kind))

    @abstractmethod
    def _change(self, values: "Tensor", kind: AnswerKind) -> "Tensor":
        """The defended values; see `Answers.values`."""


@final
@dataclass(frozen=True, slots=True)
class Defended:
    """An answerer whose answers pass through a defense.

    Raises:
        ConfigError: the defense does not take the answerer's kind of answers.
    """

    answerer: "Answerer"
    defense: Defense

    def __post_init__(self) -> None:
        self.defense.kind(self.answerer.kind)

    @property
    def kind(self) -> AnswerKind:
        return self.defense.kind(self.answerer.kind)

    @property
    def digest(self) -> str:
        settings = json.dumps(self.defense.settings, sort_keys=True)
        text = f"{self.answerer.digest} {self.answerer.kind} {settings}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __call__(self, pixels: "Pixels") -> "Answers":
        return self.defense(self.answerer(pixels))
