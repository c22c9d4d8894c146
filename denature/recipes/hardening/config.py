"""How a network is hardened; imports nothing heavy."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from denature.attacks.config import Norm
from denature.core.errors import ConfigError
from denature.core.schema import check_fields

HardeningMethodName: TypeAlias = Literal[
    "defensive-distillation",
    "label-smoothing",
    "self-distillation",
    "adversarial",
    "trades",
    "robust-distillation",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardening:
    """How a network is hardened."""

    method: HardeningMethodName = "defensive-distillation"
    """In which way; robust distillation has a student of an adversarially trained teacher."""
    temperature: float | None = None
    """T in training; 20 for defensive distillation, 4 for other distillation by default."""
    same_start: bool = False
    """Of defensive distillation: teacher and student start from the weights after one epoch at
    temperature 1, as the original has it; they start apart by default."""
    generations: int = 1
    """Students that learn one from the other; the last is the result."""
    student: str | None = None
    """The students' network, such as a smaller one; the teacher's by default."""
    smoothing: float = 0.1
    """Of label smoothing: the share of a label that goes to all classes alike."""
    norm: Norm = "linf"
    """Of adversarial training."""
    epsilon: float = 8 / 255
    """Of adversarial training: how far an image may be changed."""
    steps: int = 10
    """Of adversarial training: PGD's, in each training step."""
    beta: float = 6.0
    """Of trades: the weight of the divergence."""

    def __post_init__(self) -> None:
        rules = {
            "temperature": (self.temperature is None or self.temperature > 0, "above 0"),
            "generations": (self.generations >= 1, "at least 1"),
        }
        check_fields(self, rules)
        if self.same_start and (
            self.method != "defensive-distillation" or self.student is not None
        ):
            raise ConfigError(
                "same_start is of defensive distillation into the same network; leave it out."
            )
