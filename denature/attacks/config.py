"""Bounds of adversarial perturbations; imports nothing heavy."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, final

from denature.core.errors import ConfigError
from denature.core.schema import check_fields

Norm: TypeAlias = Literal["linf", "l2"]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Ball:
    """The set of images within a distance of an image; values lie in [0, 1]."""

    norm: Norm = "linf"
    """linf bounds the change of each value, l2 the Euclidean norm of the change of the image."""
    epsilon: float = 8 / 255
    """Radius of the ball."""

    def __post_init__(self) -> None:
        check_fields(self, {"epsilon": (self.epsilon >= 0, "at least 0")})
        if self.norm == "linf" and self.epsilon > 1:
            raise ConfigError(
                f"epsilon is {self.epsilon} in linf, where 1 already allows any image: values lie "
                f"in [0, 1]. For pixels of 0 to 255 give {self.epsilon:g}/255."
            )
