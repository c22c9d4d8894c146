"""How far an image may be changed; imports nothing heavy."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, final

from denature.core.errors import ConfigError
from denature.core.schema import check_fields

Norm: TypeAlias = Literal["linf", "l2"]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Ball:
    """Images within a distance of another, of values in [0, 1]."""

    norm: Norm = "linf"
    """linf bounds the change of each value, l2 its Euclidean length over the image."""
    epsilon: float = 8 / 255
    """The distance."""

    def __post_init__(self) -> None:
        check_fields(self, {"epsilon": (self.epsilon >= 0, "at least 0")})
        if self.norm == "linf" and self.epsilon > 1:
            raise ConfigError(
                f"epsilon is {self.epsilon} in linf, where 1 already allows any image: values lie "
                f"in [0, 1]. Pixels of 0 to 255 are meant as {self.epsilon:g}/255."
            )
