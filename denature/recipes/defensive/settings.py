"""The sizes at which defensive distillation is made and attacked."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from denature.core.errors import unknown
from denature.robust.config import GRADIENT, AttackConfig
from denature.train.config import Device, Precision, Training

TEMPERATURES = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One size."""

    scale: str
    differs: str
    """What a reader must know of it."""
    data: str
    """The data set, by its name or as `--data-root` has it."""
    net: str
    training: Training
    epsilon: float
    """Of the adversarially trained reference."""
    steps: int
    """Of its attack."""
    asked: AttackConfig
    seeds: int
    """How often all of it is repeated, on the same samples."""
    same_start: bool = True
    """Teacher and student start from the weights after one epoch at 1, as the original has it."""
    temperatures: tuple[float, ...] = TEMPERATURES

    def on(self, device: Device, precision: Precision) -> "Setting":
        """The same on another device."""
        return replace(self, training=replace(self.training, device=device, precision=precision))


SETTINGS: Mapping[str, Setting] = {
    "smoke": Setting(
        scale="smoke",
        differs="Digits of 8x8 pixels and a small network with batch norm.",
        data="digits",
        net="cnn",
        training=Training(epochs=15, batch_size=64),
        epsilon=0.1,
        steps=7,
        asked=AttackConfig(samples=100, linf=(0.03, 0.06, 0.1, 0.15, 0.2)),
        seeds=3,
    ),
    "cpu": Setting(
        scale="cpu",
        differs="A fifth of CIFAR-10's training images and 12 epochs, by Adam on one cycle.",
        data="cifar10",
        net="papernot@padding=0",
        training=Training(epochs=12, fraction=0.2, augment="none"),
        epsilon=8 / 255,
        steps=5,
        # Ten times as many networks as `denature robustness` usually has: minutes, not hours.
        asked=AttackConfig(
            effort="quick",
            samples=200,
            linf=(2 / 255, 4 / 255, 8 / 255),
            attacks=(*GRADIENT, "pgd-margin-restarts", "square", "carlini-wagner"),
        ),
        seeds=1,
    ),
    "paper": Setting(
        scale="paper",
        differs="As Carlini and Wagner's code has it, 50 epochs without augmentation, but Adam at "
        "0.001 for their SGD at 0.01.",
        data="cifar10",
        net="papernot@padding=0",
        training=Training(epochs=50, augment="none", schedule="constant"),
        epsilon=8 / 255,
        steps=10,
        asked=AttackConfig(effort="full"),
        seeds=3,
    ),
}


def setting(scale: str) -> Setting:
    """The setting of this name.

    Raises:
        ConfigError: there is none.
    """
    if scale not in SETTINGS:
        raise unknown("scale", scale, SETTINGS)
    return SETTINGS[scale]
