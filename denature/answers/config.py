"""How a network is asked; imports nothing heavy, so that the command line can show it."""

import re
from dataclasses import dataclass

from denature.core.schema import check_fields


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceConfig:
    """In which form a network in this process answers, and how exactly answers are kept."""

    storage: str = "exact"
    """`exact` keeps answers bit for bit; `fp16` within 2^-11 of each logit; `top-5` the 5 largest,
    exactly, and the total weight of the others. What a student learns from is what is kept, whether
    it comes from a store or not."""
    fold: bool = True
    """Fold batch norms into the convolutions and linear layers before them."""
    compile: bool = False
    """Ask through torch.compile; pays off after minutes, and needs a C++ compiler on a CPU."""

    def __post_init__(self) -> None:
        good = self.storage in ("exact", "fp16") or re.fullmatch(r"top-[1-9]\d*", self.storage)
        check_fields(self, {"storage": (bool(good), "exact, fp16 or top-K, such as top-5")})
