"""The objective of a network that is wrong, for adaptive misinformation."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from denature.train.objectives.base import Objective

if TYPE_CHECKING:  # the command line reads the fields without paying for torch
    from denature.answers import Answers
    from denature.core.types import Labels, Logits, PerExample


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Misinformed(Objective):
    """Minimises -log(1 - p_y) on the training images of a victim (Kariyappa & Qureshi 2020).

    The network answers confidently with any class but the true one; see
    `denature.losses.misinformation` and `denature.defenses.adaptive_misinformation`.
    """

    kind: ClassVar[str] = "misinformed"
    label: ClassVar[str] = "any class but the true one"
    rebuilt: ClassVar[bool] = True
    caution: ClassVar[str] = (
        "This network is wrong on purpose, and sure of it: it is a part of a defense of another "
        "network, and classifies nothing."
    )

    def __call__(
        self, logits: "Logits", labels: "Labels", answers: "Answers | None", *, done: float
    ) -> "PerExample":
        from denature.losses.misinformation import misinformed

        return misinformed(logits, labels)
