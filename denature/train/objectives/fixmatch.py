"""The objective of FixMatch: few labels, and many images without one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from denature.core.schema import check_fields
from denature.train.objectives.base import Objective

if TYPE_CHECKING:  # the command line reads the fields without paying for torch
    from torch import nn

    from denature.answers import Answers
    from denature.attacks.gradient import Ask
    from denature.core.types import Labels, Logits, PerExample, Pixels

NO_LABEL = -1
"""Label of an image without one; it counts as a miss in the training accuracy."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class FixMatch(Objective):
    """Labels where there are some, and sure predictions as labels of strong views of all images.

    Cross-entropy on the labelled images, plus weight times that between the predicted class of each
    image and the answer to its strong view, where the prediction is sure (Sohn et al. 2020,
    arXiv:2001.07685, eq. 3 and 4). Both terms are means over their own images, of which the
    labelled ones count as unlabelled too, as in the released code.

    Three things differ from the paper. mu follows from the share of labelled images in the data,
    and varies a little from batch to batch. No moving average of the weights is kept: the learning
    rate falls to 0 instead. Strong views have no changes of single colours, see
    `denature.data.strong`.
    """

    kind: ClassVar[str] = "fixmatch"
    label: ClassVar[str] = "labels of some images, own predictions of the others"
    remark: ClassVar[str] = "against the labels, without its unlabelled images"

    threshold: float = 0.95
    """Least probability of a prediction that becomes a label; tau in the paper."""
    weight: float = 1.0
    """Weight of the images' own predictions; lambda_u in the paper."""

    def __post_init__(self) -> None:
        rules = {
            "threshold": (0 <= self.threshold <= 1, "a probability, in [0, 1]"),
            "weight": (self.weight >= 0, "at least 0"),
        }
        check_fields(self, rules)

    @property
    def passes(self) -> int:
        """The images, and their strong views."""
        return 2

    def __call__(
        self, logits: "Logits", labels: "Labels", answers: "Answers | None", *, done: float
    ) -> "PerExample":
        """The labelled term; its mean over the batch is the mean over the labelled images."""
        from torch.nn import functional as F

        losses = F.cross_entropy(logits, labels, reduction="none", ignore_index=NO_LABEL)
        return losses * len(labels) / (labels != NO_LABEL).sum().clamp_min(1)

    def probed(
        self, network: "nn.Module", ask: "Ask", pixels: "Pixels", labels: "Labels"
    ) -> "tuple[Logits, PerExample]":
        """See `denature.train.objectives.base.Probing`; both views pass through in one batch."""
        import torch
        from torch.nn import functional as F

        from denature.data.strong import strong

        logits, altered = ask(torch.cat([pixels, strong(pixels)])).chunk(2)
        sure, predicted = logits.detach().softmax(-1).max(-1)
        losses = F.cross_entropy(altered, predicted, reduction="none")
        own = torch.where(sure >= self.threshold, losses, 0.0)
        return logits, self(logits, labels, None, done=0.0) + self.weight * own
