"""The objective of a nasty teacher."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from denature.core.schema import check_fields
from denature.train.objectives.base import Objective

if TYPE_CHECKING:  # the command line reads the fields without paying for torch
    from denature.answers import Answers
    from denature.core.types import Labels, Logits, PerExample


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Nasty(Objective):
    """Correct top class and misleading other scores: the self-undermining loss (Ma et al. 2021)."""

    kind: ClassVar[str] = "nasty"
    asks: ClassVar[str] = "adversary"
    needs_logits: ClassVar[bool] = True
    label: ClassVar[str] = "true labels, away from an adversary"
    rebuilt: ClassVar[bool] = True
    remedies: ClassVar[str] = ", --warmup 0.1 or --cap"
    least: ClassVar[float] = -math.inf
    """The divergence is subtracted."""
    schedule: ClassVar[str] = "step"
    """Meaning of `auto`: under one-cycle the usual omega has almost no effect."""
    caution: ClassVar[str] = (
        "This is a nasty teacher (Ma et al., ICLR 2021): its predicted class is meant to be right, "
        "and its other scores are made to mislead. A student that imitates its probabilities or "
        "logits may end far below the same network trained alone, so do not distil from them, and "
        "do not read them as confidence. On digits, students of its predicted classes alone lost "
        "no accuracy, and other temperatures and learning rates were enough to learn from such a "
        "teacher; other data were not measured."
    )

    temperature: float = 4.0
    """tau at which nasty teacher and adversary are pushed apart; the paper: 4 on CIFAR-10, 20 on
    CIFAR-100 and Tiny-ImageNet."""
    omega: float = 0.04
    """Weight of the divergence; the released CIFAR-10 code uses 0.04, the paper's text is recalled
    to say 0.004."""
    warmup: float = 0.0
    """Share of the steps over which omega rises from 0; helps large networks, 0 in the paper."""
    cap: float | None = None
    """tau^2 KL, in nats, above which an example is pushed no further; helps large networks, off in
    the paper."""

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
        from denature.losses.nasty import self_undermining

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

    def divergence(self, logits: "Logits", answers: "Answers") -> "PerExample":
        """tau^2 KL from the adversary, see `denature.train.objectives.base.Diverging`."""
        from denature.losses.soft import softened_divergence

        return softened_divergence(logits, answers.values, temperature=self.temperature)
