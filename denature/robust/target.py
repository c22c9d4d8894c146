"""The model under attack: its logits for any kind of output, and its known properties."""

from collections.abc import Iterable
from functools import cached_property
from typing import Literal, Protocol, TypeAlias, final

import torch
from torch import nn

from denature.core.compute import resolve
from denature.core.errors import ConfigError
from denature.core.record import Record
from denature.core.types import Labels, Logits, Pixels
from denature.train.objectives.catalogue import OBJECTIVES
from denature.train.run import Run

PROBE = 64
"""Images whose answers show a network's kind of output, its randomness and its logit gap."""

AccessLevel: TypeAlias = Literal["labels", "scores", "gradients"]
"""Outputs that a model under attack shows, each level with those before it: the predicted class, a
score for each class, and gradients with respect to the image."""

ACCESS_LEVELS: tuple[AccessLevel, ...] = ("labels", "scores", "gradients")


class Attacked(Protocol):
    """A model under attack; maps images in [0, 1] to logits."""

    name: str
    net: str
    """The network's name, where known."""
    kind: str
    """Kind of training, where known."""
    digest: str
    """Digest of the weights; of a black box, digest of its name."""
    device: torch.device
    shows: AccessLevel
    shows_probabilities: bool
    """Whether outputs are probabilities; unusual for a network, so reports say so."""
    is_random: bool
    """Whether the same image gets different answers."""
    gap: float
    """Median of the largest logit less the second; 0 for a black box that shows labels only."""
    trained_at: float
    """The temperature that it was trained at, by its record; 1 for most."""
    chosen_on_test: bool
    """Whether its epoch was chosen by the test images, so that it is too good on them."""

    @property
    def temperature(self) -> float:
        """Divisor of the logits in an attack that takes the temperature into account."""

    def __call__(self, pixels: Pixels) -> Logits:
        """Answer images in [0, 1]."""

    def says(self, pixels: Pixels) -> Labels:
        """Predicted classes."""

    def as_sent(self, pixels: Pixels) -> Pixels:
        """Images as the model receives them."""


def allows(target: Attacked, needs: AccessLevel) -> bool:
    """Whether a target shows the outputs that an attack needs."""
    return ACCESS_LEVELS.index(needs) <= ACCESS_LEVELS.index(target.shows)


def gap_of(logits: Iterable[Logits]) -> float:
    """Median of the largest logit less the second."""
    largest = torch.cat([batch.topk(2, dim=1).values for batch in logits])
    return float((largest[:, 0] - largest[:, 1]).median())


@final
class Target(nn.Module):
    """A run's network in fp32, frozen, from images in [0, 1] to logits.

    If a network returns probabilities, their logarithms are attacked, which are logits of the same
    answers. A softmax of probabilities would be flat, with gradients close to zero.

    Args:
        run: the run of the network.
        images: a few images of the run's data, batch x channels x height x width, in [0, 1].
        device: device of the computation.
        name: as a caller names it; by default the run's folder.

    Raises:
        ConfigError: the network predicts landmarks, not classes.
    """

    shows: AccessLevel = "gradients"

    def __init__(self, run: Run, images: Pixels, *, device: str = "auto", name: str = "") -> None:
        super().__init__()
        if run.record.landmarks:
            raise ConfigError(f"{run.folder} predicts landmarks; attacks here change classes.")
        record, folder = run.record, run.folder
        self.name = name or (str(folder) if folder is not None else record.net.name)
        self.net, self.kind, self.digest = record.net.name, record.kind, run.digest
        self.trained_at = _trained_at(record)
        self.chosen_on_test = record.chosen_on == "test"
        compute = resolve(run.network, device=device, precision="fp32")
        self.device = compute.device
        self.network = compute.place(run.network).eval().requires_grad_(False)
        self.eval()
        images = images[:PROBE].to(self.device)
        with torch.no_grad():
            first, again = self.network(images), self.network(images)
            self.shows_probabilities = _are_probabilities(first)
            self.is_random = not torch.allclose(first, again, rtol=1e-4, atol=1e-5)
            self.gap = gap_of([self(images)])

    def forward(self, pixels: Pixels) -> Logits:
        outputs: Logits = self.network(pixels).float()
        if self.shows_probabilities:
            return outputs.clamp_min(torch.finfo(torch.float32).tiny).log()
        return outputs

    @cached_property
    def temperature(self) -> float:
        """Divisor of the logits in an attack that takes the temperature into account.

        The training temperature, if it is above 1. Otherwise the divisor that brings half of the
        gaps between the two largest logits below 5, where a softmax still has gradients; at least
        1.
        """
        return self.trained_at if self.trained_at > 1 else max(1.0, self.gap / 5)

    @torch.no_grad()
    def says(self, pixels: Pixels) -> Labels:
        """Predicted classes."""
        labels: Labels = self(pixels.to(self.device)).argmax(dim=1)
        return labels

    def as_sent(self, pixels: Pixels) -> Pixels:
        return pixels


def _trained_at(record: Record) -> float:
    kind = OBJECTIVES.get(record.kind)
    if kind is None or not kind.softened:
        return 1.0
    return float(record.config.get("objective", {}).get("temperature", 1.0))


def _are_probabilities(outputs: torch.Tensor) -> bool:
    if outputs.ndim != 2 or not bool(outputs.isfinite().all()):
        raise ConfigError(
            f"The network returns outputs of shape {tuple(outputs.shape)} that are not finite, or "
            "not one number for each class; attacks need finite outputs, batch x classes."
        )
    in_range = bool(((outputs >= 0) & (outputs <= 1)).all())
    return in_range and bool(((outputs.sum(dim=1) - 1).abs() < 1e-3).all())
