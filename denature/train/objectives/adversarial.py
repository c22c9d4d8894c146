"""Adversarial training, the reference for other defenses against adversarial examples."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, final

from denature.attacks.config import Ball
from denature.core.schema import check_fields
from denature.train.objectives.base import Objective

if TYPE_CHECKING:  # the command line reads the fields without paying for torch
    from torch import nn

    from denature.answers import Answers
    from denature.attacks.gradient import Ask
    from denature.attacks.losses import Goal
    from denature.core.types import Labels, Logits, PerExample, Pixels

Method: TypeAlias = Literal["pgd", "trades"]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Adversarial(Objective):
    """Learns from adversarial examples near the training images.

    pgd: the cross-entropy on PGD's adversarial examples (Madry et al. 2018, arXiv:1706.06083).
    trades: the cross-entropy on the image, plus beta times the divergence between the answers to
    the image and to its adversarial example (Zhang et al. 2019, arXiv:1901.08573). The network is
    in eval mode during the attack.
    """

    kind: ClassVar[str] = "adversarial"
    label: ClassVar[str] = "true labels of attacked images"
    rebuilt: ClassVar[bool] = True
    remark: ClassVar[str] = "on clean images, so without its attack"

    method: Method = "pgd"
    """Loss of the training: pgd, or trades."""
    ball: Ball = field(default_factory=Ball)
    """Bound of the perturbation."""
    steps: int = 10
    """Attack steps in each training step."""
    beta: float = 6.0
    """Weight of the divergence in trades."""

    def __post_init__(self) -> None:
        rules = {"steps": (self.steps >= 1, "at least 1"), "beta": (self.beta >= 0, "at least 0")}
        check_fields(self, rules)

    @property
    def passes(self) -> int:
        """The attack's steps, the example, and in trades the image itself."""
        return self.steps + (1 if self.method == "pgd" else 2)

    def __call__(
        self, logits: "Logits", labels: "Labels", answers: "Answers | None", *, done: float
    ) -> "PerExample":
        from torch.nn import functional as F

        return F.cross_entropy(logits, labels, reduction="none")

    def probed(
        self, network: "nn.Module", ask: "Ask", pixels: "Pixels", labels: "Labels"
    ) -> "tuple[Logits, PerExample]":
        """See `denature.train.objectives.base.Probing`."""
        import torch
        from torch.nn import functional as F

        from denature.attacks.gradient import pgd
        from denature.attacks.losses import cross_entropy

        goal: Goal = cross_entropy
        modes = {module: module.training for module in network.modules()}
        network.eval()
        if self.method == "trades":
            with torch.no_grad():
                target = network(pixels).float().softmax(-1)

            def goal(logits: "Logits", labels: "Labels") -> "PerExample":
                return F.kl_div(logits.log_softmax(-1), target, reduction="none").sum(-1)

        near = pgd(network, pixels, labels, self.ball, steps=self.steps, goal=goal)
        for module, training in modes.items():
            module.training = training
        if self.method == "pgd":
            logits = ask(near)
            return logits, self(logits, labels, None, done=0.0)
        logits, moved = ask(pixels), ask(near)
        apart = F.kl_div(
            moved.log_softmax(-1), logits.log_softmax(-1), log_target=True, reduction="none"
        )
        return logits, self(logits, labels, None, done=0.0) + self.beta * apart.sum(-1)
