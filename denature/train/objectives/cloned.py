"""The objective of a clone: a student whose teacher is a victim behind a wire."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from denature.core.schema import check_fields
from denature.train.objectives.base import Objective

if TYPE_CHECKING:  # the command line reads the fields without paying for torch
    from denature.answers import Answers
    from denature.core.types import Labels, Logits, PerExample


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Cloned(Objective):
    """A clone that learns from a victim's answers alone; its thief has no true labels.

    At temperature 1 the loss is the cross-entropy against the victim's answers, as in Knockoff Nets
    (Orekondy et al. 2019, arXiv:1812.02766), minus the entropy of these answers.
    """

    kind: ClassVar[str] = "cloned"
    asks: ClassVar[str] = "victim"
    label: ClassVar[str] = "a victim's {answers}"
    caution: ClassVar[str] = (
        "This is a clone: it learned from what another model answered. The terms of that model may "
        "limit what may be done with it."
    )
    landmarks: ClassVar[bool] = True
    remark: ClassVar[str] = (
        "against the labels, since its victim's answers are not stored in the run"
    )

    temperature: float = 1.0
    """tau at which victim and clone are compared; without effect for labels."""

    def __post_init__(self) -> None:
        check_fields(self, {"temperature": (self.temperature > 0, "above 0")})

    def __call__(
        self, logits: "Logits", labels: "Labels", answers: "Answers | None", *, done: float
    ) -> "PerExample":
        from denature.losses.landmarks import coordinate_error
        from denature.losses.soft import distillation, hard_distillation, log_probabilities

        assert answers is not None
        values = answers.values
        if answers.kind == "landmarks":
            return coordinate_error(logits, values)
        if answers.kind == "label":
            return hard_distillation(logits, values, labels, alpha=1.0)
        if answers.kind == "probabilities":
            values = log_probabilities(values)
        return distillation(logits, values, labels, temperature=self.temperature, alpha=1.0)
