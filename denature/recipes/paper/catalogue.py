"""The experiments of "Undistillable: Making A Nasty Teacher That CANNOT teach students" by name.

Ma et al., ICLR 2021, arXiv:2105.07381. Each is a function from an `ExperimentContext` to placed
orders: its runs, and their positions in a table or on a curve.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from denature.recipes.paper.config import DataName


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """One table or figure of the paper; functions are `module:name` of this package.

    They are imported when they are called: a list of experiments needs no torch.
    """

    about: str
    data: DataName
    placed_orders: str
    """Function from an `ExperimentContext` to orders with their places."""
    axis: str | None = None
    """Axis label of an ablation, with its unit; None for a table."""
    against: str = "alone"
    """Name of the baseline of students' differences."""
    decides: str = ""
    """Beginning of the rows that the verdict is about; all by default."""
    measured: str | None = None
    """Function that makes further runs of the trained networks, with their places."""
    analysis: str | None = None
    """Function that analyses the trained networks; if set, its figures and table are the result."""


DESIGNS: Mapping[str, Design] = {
    "cifar10-table": Design(
        about="CIFAR-10: students of a normal and of a nasty ResNet-18.",
        data="cifar10",
        placed_orders="tables:cifar10",
    ),
    "cifar100-table": Design(
        about="CIFAR-100: students of three networks, each a normal and a nasty teacher.",
        data="cifar100",
        placed_orders="tables:large",
    ),
    "tiny-imagenet-table": Design(
        about="Tiny-ImageNet: students of three networks, each a normal and a nasty teacher.",
        data="tiny-imagenet",
        placed_orders="tables:large",
    ),
    "nasty-thieves": Design(
        about="Students that choose their settings, and thieves across the wire, of a ResNet-18.",
        data="cifar10",
        placed_orders="thieves:thieves",
        decides="best",
        measured="thefts:thefts",
    ),
    "ablate-adversary": Design(
        about="A nasty ResNet-18 with a ResNet-18, a CNN or a ResNeXt-29 as adversary.",
        data="cifar10",
        placed_orders="tables:adversary",
    ),
    "ablate-omega": Design(
        about="The weight of the adversarial term in training the teacher, from 0.",
        data="cifar10",
        placed_orders="ablations:omega",
        axis="omega",
    ),
    "ablate-temperature": Design(
        about="The temperature at which students are distilled.",
        data="cifar10",
        placed_orders="ablations:temperature",
        axis="temperature tau_S",
    ),
    "ablate-alpha": Design(
        about="The weight of the teacher's term in the loss of students.",
        data="cifar10",
        placed_orders="ablations:alpha",
        axis="alpha",
    ),
    "ablate-samples": Design(
        about="The share of the training samples that students have.",
        data="cifar10",
        placed_orders="ablations:samples",
        axis="training samples, %",
    ),
    "dafl": Design(
        about="DAFL: a student from the weights of a normal or nasty ResNet-34, without data.",
        data="cifar10",
        placed_orders="analyses:dafl",
        against="the normal teacher's student",
        decides="of ",
    ),
    "dafl-cifar100": Design(
        about="DAFL on CIFAR-100: a student from the weights of a normal or nasty ResNet-34.",
        data="cifar100",
        placed_orders="analyses:dafl",
        against="the normal teacher's student",
        decides="of ",
    ),
    "deepinversion": Design(
        about="DeepInversion: images from a normal and a nasty ResNet-34, judged by another net.",
        data="cifar10",
        placed_orders="analyses:inverted",
        analysis="analyses:inversion",
    ),
    "logit-responses": Design(
        about="Outputs of a normal and a nasty ResNet-18 on the same test images.",
        data="cifar10",
        placed_orders="analyses:two_teachers",
        analysis="analyses:responses",
    ),
    "tsne": Design(
        about="Features and logits of a normal and a nasty ResNet-18 in two dimensions.",
        data="cifar10",
        placed_orders="analyses:two_teachers",
        analysis="analyses:tsne",
    ),
}
