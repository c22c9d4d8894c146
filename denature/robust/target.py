"""The network that is attacked: its logits, whatever it puts out, and what is known of it."""

from functools import cached_property
from typing import final

import torch
from torch import nn

from denature.core.compute import settle
from denature.core.errors import ConfigError
from denature.core.types import Labels, Logits, Pixels
from denature.train.run import Run

PROBE = 64
"""Images by whose answers is judged what a network puts out."""


@final
class Target(nn.Module):
    """A run's network in fp32, frozen, from images in [0, 1] to logits.

    A network whose outputs are probabilities is seen through: their logarithms are logits of the
    same answers. A softmax of probabilities would be flat, and its gradients next to nothing.

    Args:
        run: whose network it is.
        images: some images of its data, batch x channels x height x width, in [0, 1].
        device: where to compute.

    Raises:
        ConfigError: it says where things are, and no classes.
    """

    def __init__(self, run: Run, images: Pixels, *, device: str = "auto") -> None:
        super().__init__()
        if run.record.landmarks:
            raise ConfigError(f"{run.folder} says where things are; attacks here change classes.")
        self.run = run
        compute = settle(run.network, device=device, precision="fp32")
        self.device = compute.device
        self.network = compute.place(run.network).eval().requires_grad_(False)
        self.eval()
        images = images[:PROBE].to(self.device)
        with torch.no_grad():
            shown, again = self.network(images), self.network(images)
        self.shows_probabilities = _are_probabilities(shown)
        """Whether its outputs are, which is unusual, and told."""
        self.is_random = not torch.allclose(shown, again, rtol=1e-4, atol=1e-5)
        """Whether it answers the same image in several ways."""
        margins = self(images).topk(2, dim=1).values
        self.gap = float((margins[:, 0] - margins[:, 1]).median())
        """Median of the largest logit less the second."""

    def forward(self, pixels: Pixels) -> Logits:
        shown: Logits = self.network(pixels).float()
        if self.shows_probabilities:
            return shown.clamp_min(torch.finfo(torch.float32).tiny).log()
        return shown

    @property
    def trained_at(self) -> float:
        """The temperature that it was trained at, by its record; 1 for most."""
        record = self.run.record
        if record.kind not in ("normal", "hardened"):
            return 1.0
        return float(record.config.get("objective", {}).get("temperature", 1.0))

    @cached_property
    def temperature(self) -> float:
        """What an attack that knows of temperatures divides logits by.

        The one that it was trained at; of others what brings half of the gaps between the two
        largest logits below 5, where a softmax still has gradients, if they are larger.
        """
        return self.trained_at if self.trained_at > 1 else max(1.0, self.gap / 5)

    @property
    def name(self) -> str:
        folder = self.run.folder
        return str(folder) if folder is not None else self.run.record.net.name

    @torch.no_grad()
    def says(self, pixels: Pixels) -> Labels:
        """The classes that it answers."""
        said: Labels = self(pixels.to(self.device)).argmax(dim=1)
        return said


def _are_probabilities(shown: torch.Tensor) -> bool:
    if shown.ndim != 2 or not bool(shown.isfinite().all()):
        raise ConfigError(
            f"The network answers {tuple(shown.shape)} with numbers that are not finite, or not "
            "one for each class; it cannot be attacked."
        )
    in_range = bool(((shown >= 0) & (shown <= 1)).all())
    return in_range and bool(((shown.sum(dim=1) - 1).abs() < 1e-3).all())
