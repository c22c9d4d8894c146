"""Configuration of hardening methods; imports nothing heavy."""

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
    """Hardening method and its hyperparameters."""

    method: HardeningMethodName = "defensive-distillation"
    """Hardening method; robust distillation has a student of an adversarially trained teacher."""
    temperature: float | None = None
    """Training temperature; by default 20 for defensive distillation, 4 for other distillation."""
    same_start: bool = False
    """For defensive distillation: teacher and student start from the weights after one epoch at
    temperature 1, as in the original. By default each starts from weights of its own."""
    generations: int = 1
    """Number of students, each distilled from the one before; the last is the result."""
    student: str | None = None
    """Network of the students, such as a smaller one; by default that of the teacher."""
    smoothing: float = 0.1
    """For label smoothing: the share of a label that is spread evenly over all classes."""
    norm: Norm = "linf"
    """For adversarial training: the norm of perturbations."""
    epsilon: float = 8 / 255
    """For adversarial training: the perturbation radius, also as a fraction: 8/255."""
    steps: int = 10
    """For adversarial training: PGD steps in each training step."""
    beta: float = 6.0
    """For TRADES: the weight of the divergence."""

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
                "same_start applies only to defensive distillation into the same network; leave "
                "it out."
            )
