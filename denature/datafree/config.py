"""Settings of data-free attacks; imports nothing heavy."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, final

from denature.core.schema import check_fields
from denature.train.objectives.base import Objective

if TYPE_CHECKING:
    from torch import nn

    from denature.answers import Answers
    from denature.core.compute import Compute
    from denature.core.types import Labels, Logits, PerExample
    from denature.datafree.dafl import GeneratedData


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Dafl(Objective):
    """Data-free learning: a student by distillation at alpha 1, from a generator's images.

    All fields but the temperature concern the generator. Defaults are those of the released code on
    MNIST, except the generator's rate: 1e-3 as in later benchmarks, where the released code has
    0.2, with Adam too.
    """

    kind: ClassVar[str] = "dafl"
    asks: ClassVar[str] = "teacher"
    label: ClassVar[str] = "{teacher} teacher, {answers}"
    answers_shown: ClassVar[str] = "synthetic"
    rebuilt: ClassVar[bool] = True
    remark: ClassVar[str] = "on real images, not on generated ones"

    temperature: float = 1.0
    """tau of the distillation loss."""
    one_hot: float = 1.0
    """Weight of the teacher's cross-entropy against its own argmax."""
    entropy: float = 5.0
    """Weight of minus the entropy of the batch's mean answer, in units of log 10, as released."""
    activation: float = 0.1
    """Weight of minus the mean absolute value of the teacher's features."""
    latent: int = 100
    """Dimension of the generator's noise vector."""
    generator_lr: float = 1e-3
    """Adam's learning rate for the generator; 0 leaves it untrained, as a control."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            {
                "temperature": (self.temperature > 0, "above 0"),
                "one_hot": (self.one_hot >= 0, "at least 0"),
                "entropy": (self.entropy >= 0, "at least 0"),
                "activation": (self.activation >= 0, "at least 0"),
                "latent": (self.latent >= 1, "at least 1"),
                "generator_lr": (self.generator_lr >= 0, "at least 0"),
            },
        )

    def __call__(
        self, logits: "Logits", labels: "Labels", answers: "Answers | None", *, done: float
    ) -> "PerExample":
        from denature.losses import softened_divergence

        assert answers is not None
        return softened_divergence(answers.values, logits, temperature=self.temperature)

    def synthetic_data(
        self,
        teacher: "nn.Module",
        *,
        images: int,
        channels: int,
        image_size: int,
        seed: int,
        compute: "Compute",
    ) -> "GeneratedData":
        """The generator of `images` images an epoch, with the teacher's answers to them."""
        from denature.datafree.dafl import GeneratedData, generator_loss

        return GeneratedData(
            teacher,
            loss=partial(
                generator_loss,
                one_hot=self.one_hot,
                entropy=self.entropy,
                activation=self.activation,
            ),
            latent=self.latent,
            lr=self.generator_lr,
            images=images,
            channels=channels,
            image_size=image_size,
            seed=seed,
            compute=compute,
        )


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Inversion:
    """Settings of DeepInversion.

    Weights of the terms are those of the released CIFAR-10 script, except `l2_weight`, which is
    0 there and the paper's value here. That script also runs Adam with its defaults. Schedule,
    betas and clamp come from the released ImageNet script; see `denature.datafree.deepinversion`.
    """

    steps: int = 2000
    """Steps of Adam on the pixels."""
    lr: float = 0.05
    """Adam's learning rate, in units of the network's normalisation."""
    bn_weight: float = 10.0
    """Weight of the term of batch norm statistics."""
    tv_weight: float = 2.5e-5
    """Weight of the total variation, the differences between neighbouring pixels."""
    l2_weight: float = 3e-8
    """Weight of the images' L2 norm."""
    compete_weight: float = 0.0
    """Weight of the adaptive term, which favours images on which a student disagrees."""
    compete_temperature: float = 3.0
    """tau of the adaptive term."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            {
                "steps": (self.steps >= 1, "at least 1"),
                "lr": (self.lr > 0, "above 0"),
                "bn_weight": (self.bn_weight >= 0, "at least 0"),
                "tv_weight": (self.tv_weight >= 0, "at least 0"),
                "l2_weight": (self.l2_weight >= 0, "at least 0"),
                "compete_weight": (self.compete_weight >= 0, "at least 0"),
                "compete_temperature": (self.compete_temperature > 0, "above 0"),
            },
        )
