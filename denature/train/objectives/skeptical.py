"""The objective of a skeptical student, which distils from a teacher that may be nasty."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from denature.core.errors import ConfigError
from denature.core.schema import check_fields
from denature.train.objectives.base import Objective
from denature.train.objectives.distilled import Distilled

if TYPE_CHECKING:  # the command line reads the fields without paying for torch
    from torch import nn

    from denature.answers import Answers
    from denature.core.types import Labels, Logits, PerExample
    from denature.train.objectives.base import BatchContext


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Skeptical(Objective):
    """A student whose own output never meets the teacher (Kundu et al., NeurIPS 2021).

    An auxiliary head on a shallow stage distils from the teacher: alpha tau^2 KL + (1 - alpha) CE.
    One on a deep stage distils from the student's own output without a factor tau^2: beta KL +
    (1 - beta) CE. The output learns from the true labels alone. The heads are dropped after
    training. Stages: see `denature.nets.activations.ActivationRecorder.stages`.
    """

    kind: ClassVar[str] = "skeptical"
    asks: ClassVar[str] = "teacher"
    label: ClassVar[str] = "{teacher} teacher, {answers} to an auxiliary head"
    remark: ClassVar[str] = "against the labels, since its features are not measured"

    temperature: float = 4.0
    """tau of both distillations."""
    alpha: float = 0.9
    """Weight of the teacher's term at the shallow head, the rest goes to the true labels; stated
    in no file of the released code."""
    beta: float = 0.3
    """Weight of the student's own output at the deep head, the rest goes to the true labels."""
    shallow: int = 1
    """Stage of the head that learns from the teacher, from 1; stated in no file of the released
    code."""
    deep: int = 3
    """Stage of the head that learns from the student's output, or the deepest stage before."""
    delay: float = 0.0
    """Share of the steps before the heads learn, and shape the network with it."""
    coupled: bool = False
    """Let the output learn from its term at the deep head too, as in the released code; otherwise
    the output is detached there, as the paper describes."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            {
                "temperature": (self.temperature > 0, "above 0"),
                "alpha": (0 <= self.alpha <= 1, "a share in [0, 1]"),
                "beta": (0 <= self.beta <= 1, "a share in [0, 1]"),
                "shallow": (1 <= self.shallow <= self.deep, "from 1 to deep"),
                "delay": (0 <= self.delay < 1, "a share of the steps, in [0, 1)"),
            },
        )

    def __call__(
        self, logits: "Logits", labels: "Labels", answers: "Answers | None", *, done: float
    ) -> "PerExample":
        """The loss of the output alone, without heads."""
        from torch.nn import functional as F

        return F.cross_entropy(logits, labels, reduction="none")

    def heads(self, shapes: "Sequence[tuple[int, ...]]", classes: int) -> "nn.Module":
        """The shallow and the deep head, see `denature.train.objectives.base.UsesFeatures`."""
        from torch import nn

        from denature.nets.auxiliary import auxiliary_head

        places = self._places(shapes)
        return nn.ModuleList(auxiliary_head(shapes[place], classes) for place in places)

    def loss(self, batch: "BatchContext") -> "PerExample":
        """See the class."""
        from denature.losses.soft import softened_divergence

        loss = self(batch.logits, batch.labels, batch.answers, done=batch.done)
        if batch.done < self.delay:
            return loss
        heads = zip(batch.heads.children(), self._places(batch.features), strict=True)
        shallow, deep = (head(batch.features[place]).float() for head, place in heads)
        teacher = Distilled(temperature=self.temperature, alpha=self.alpha)
        loss = loss + teacher(shallow, batch.labels, batch.answers, done=batch.done)
        own = batch.logits if self.coupled else batch.logits.detach()
        # The released code has no factor tau^2 in this term.
        apart = softened_divergence(own, deep, temperature=self.temperature) / self.temperature**2
        labelled = self(deep, batch.labels, None, done=batch.done)
        return loss + self.beta * apart + (1 - self.beta) * labelled

    def _places(self, features: "Sequence[object]") -> tuple[int, int]:
        """Positions of the two stages; the last features, of the output itself, are no stage.

        Raises:
            ConfigError: the network has fewer stages.
        """
        stages = len(features) - 1
        if self.shallow > stages:
            raise ConfigError(
                f"shallow is {self.shallow}, and the network has {stages} stages before its last "
                "features; take a smaller number or a deeper network."
            )
        return self.shallow - 1, min(self.deep, stages) - 1
