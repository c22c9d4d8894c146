"""Scales of the nose experiment: data, networks, training and rounding.

The seeds of a setting are the clones of each kind and of each precision.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from denature.data.landmarks import PLACES
from denature.recipes.experiment import Setting
from denature.train.config import Training

VALUES = ("brightness", "sharpness", *PLACES)
"""The values read from an answer of the service."""

TARGETS: Mapping[str, tuple[str, ...]] = {
    "nose": ("nose",),
    "eyes and nose": ("eyeLeft", "eyeRight", "nose"),
    "six values": ("brightness", "sharpness", "eyeLeft", "eyeRight"),
}
"""Values that clones predict; the last are those of the original's script."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoseSetting(Setting):
    """Data, networks, training and rounding at one scale."""

    source: str | None
    """Default data set of faces with landmarks."""
    image_size: int
    """Side of the pictures in pixels, for victim and clones."""
    victim: str
    teacher_training: Training
    """Training of the victim."""
    student: str
    student_training: Training
    """Training of the clones, at their largest learning rate."""
    rates: tuple[float, ...] = (1.0, 0.3, 0.1)
    """Shares of that rate, of which each start takes the one that validates best."""
    precisions: tuple[int, ...] = (-1, 0, 1, 2, 3, 4, 5, 6, 7, 8)
    """Decimals of the rounded answers."""
    fidelity: int = 1000
    """Number of test pictures sent to the service."""


SETTINGS: Mapping[str, NoseSetting] = {
    "smoke": NoseSetting(
        scale="smoke",
        differs="Cartoons of faces, few epochs, one trial: only to see that it runs.",
        source="drawn-faces",
        image_size=32,
        victim="cnn@dropout=0",
        teacher_training=Training(epochs=6, batch_size=32),
        student="sepcnn@width=16",
        student_training=Training(
            optimizer="adam", epochs=5, batch_size=32, lr=6e-3, evaluate_every=1
        ),
        rates=(1.0, 0.3),
        seeds=1,
        precisions=(-1, 0, 1, 2, 8),
        fidelity=150,
    ),
    "cpu": NoseSetting(
        scale="cpu",
        differs="Photographs at 64 pixels a side, small networks, short trainings.",
        source=None,
        image_size=64,
        victim="cnn@dropout=0",
        teacher_training=Training(epochs=40, batch_size=32),
        student="sepcnn@width=16",
        student_training=Training(
            optimizer="adam", epochs=20, batch_size=32, lr=6e-3, evaluate_every=2
        ),
        seeds=3,
    ),
    "paper": NoseSetting(
        scale="paper",
        differs="Photographs at 128 pixels a side, a ResNet-18 as victim, long trainings: for a "
        "GPU. The original's sizes are not published; these are ours.",
        source=None,
        image_size=128,
        victim="resnet18",
        teacher_training=Training(epochs=100, batch_size=64, lr=0.05, evaluate_every=10),
        student="sepcnn",
        student_training=Training(
            optimizer="adam", epochs=100, batch_size=32, lr=3e-3, evaluate_every=5
        ),
        seeds=10,
    ),
}
