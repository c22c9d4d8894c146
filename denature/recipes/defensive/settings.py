"""Scales of the defensive-distillation experiment: data, network, training and attacks."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from denature.core.errors import unknown
from denature.robust.config import GRADIENT, AttackConfig
from denature.train.config import Device, Precision, Training

TEMPERATURES = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """The experiment at one scale."""

    scale: str
    differs: str
    """Difference from the original experiment, in a sentence."""
    data: str
    """The data set: its name, or a folder under `--data-root`."""
    net: str
    training: Training
    epsilon: float
    """Linf radius in adversarial training of the reference network."""
    steps: int
    """PGD steps of that adversarial training."""
    attack_config: AttackConfig
    seeds: int
    """Number of repetitions, all attacked on the same samples."""
    same_start: bool = True
    """Teacher and student start from the weights after one epoch at temperature 1, as in the
    original."""
    temperatures: tuple[float, ...] = TEMPERATURES

    def on(self, device: Device, precision: Precision) -> "Setting":
        """Copy of this setting for another device and precision."""
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
        attack_config=AttackConfig(samples=100, linf=(0.03, 0.06, 0.1, 0.15, 0.2)),
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
        # Ten times as many networks as one call of `denature robustness`: minutes, not hours.
        attack_config=AttackConfig(
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
        attack_config=AttackConfig(effort="full"),
        seeds=3,
    ),
}


def setting(scale: str) -> Setting:
    """The setting of a scale.

    Raises:
        ConfigError: no setting has this name.
    """
    if scale not in SETTINGS:
        raise unknown("scale", scale, SETTINGS)
    return SETTINGS[scale]
