"""Settings of inference; imports nothing heavy, so that the command line can show them."""

import re
from dataclasses import dataclass

from denature.core.schema import check_fields


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceConfig:
    """How a network in this process computes its answers, and how exactly they are stored."""

    storage: str = "exact"
    """`exact` keeps answers bit for bit; `fp16` within 2^-11 of each logit; `top-5` the 5 largest,
    exactly, and the total weight of the others. A student learns from the rounded answers, with or
    without a store."""
    fold: bool = True
    """Fold batch norms into the convolutions and linear layers before them."""
    compile: bool = False
    """Answer through torch.compile; pays off after minutes, and needs a C++ compiler on a CPU."""

    def __post_init__(self) -> None:
        good = self.storage in ("exact", "fp16") or re.fullmatch(r"top-[1-9]\d*", self.storage)
        check_fields(self, {"storage": (bool(good), "exact, fp16 or top-K, such as top-5")})
