"""Who is attacked: logits, whatever is put out, and what is known of it."""

from collections.abc import Iterable
from functools import cached_property
from typing import Literal, Protocol, TypeAlias, final

import torch
from torch import nn

from denature.core.compute import settle
from denature.core.errors import ConfigError
from denature.core.record import Record
from denature.core.types import Labels, Logits, Pixels
from denature.train.run import Run

PROBE = 64
"""Images by whose answers is judged what a network puts out."""

Shows: TypeAlias = Literal["labels", "scores", "gradients"]
"""What can be had of somebody, each with all before it: the answered class, a number for each
class, and how those follow the image."""

SHOWS: tuple[Shows, ...] = ("labels", "scores", "gradients")


class Attacked(Protocol):
    """Somebody who is attacked; called with images in [0, 1] for logits."""

    name: str
    net: str
    """The network's name, where it is known."""
    kind: str
    """How it was trained, where that is known."""
    digest: str
    """Of the weights; of a black box, of its name."""
    device: torch.device
    shows: Shows
    shows_probabilities: bool
    """Whether its outputs are, which is unusual of a network, and told."""
    is_random: bool
    """Whether it answers the same image in several ways."""
    gap: float
    """Median of the largest logit less the second; of a black box that shows labels only, 0."""
    trained_at: float
    """The temperature that it was trained at, by its record; 1 for most."""
    chosen_on_test: bool
    """Whether its epoch was chosen by the test images, so that it is too good on them."""

    @property
    def temperature(self) -> float:
        """What an attack that knows of temperatures divides logits by."""

    def __call__(self, pixels: Pixels) -> Logits:
        """Answer images in [0, 1]."""

    def says(self, pixels: Pixels) -> Labels:
        """The classes that it answers."""

    def as_sent(self, pixels: Pixels) -> Pixels:
        """Images as they arrive there."""


def allows(target: Attacked, needs: Shows) -> bool:
    """Whether somebody shows what an attack needs."""
    return SHOWS.index(needs) <= SHOWS.index(target.shows)


def gap_of(logits: Iterable[Logits]) -> float:
    """Median of the largest logit less the second."""
    largest = torch.cat([it.topk(2, dim=1).values for it in logits])
    return float((largest[:, 0] - largest[:, 1]).median())


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

    shows: Shows = "gradients"

    def __init__(self, run: Run, images: Pixels, *, device: str = "auto") -> None:
        super().__init__()
        if run.record.landmarks:
            raise ConfigError(f"{run.folder} says where things are; attacks here change classes.")
        record, folder = run.record, run.folder
        self.name = str(folder) if folder is not None else record.net.name
        self.net, self.kind, self.digest = record.net.name, record.kind, run.digest
        self.trained_at = _trained_at(record)
        self.chosen_on_test = record.chosen_on == "test"
        compute = settle(run.network, device=device, precision="fp32")
        self.device = compute.device
        self.network = compute.place(run.network).eval().requires_grad_(False)
        self.eval()
        images = images[:PROBE].to(self.device)
        with torch.no_grad():
            shown, again = self.network(images), self.network(images)
            self.shows_probabilities = _are_probabilities(shown)
            self.is_random = not torch.allclose(shown, again, rtol=1e-4, atol=1e-5)
            self.gap = gap_of([self(images)])

    def forward(self, pixels: Pixels) -> Logits:
        shown: Logits = self.network(pixels).float()
        if self.shows_probabilities:
            return shown.clamp_min(torch.finfo(torch.float32).tiny).log()
        return shown

    @cached_property
    def temperature(self) -> float:
        """What an attack that knows of temperatures divides logits by.

        The one that it was trained at; of others what brings half of the gaps between the two
        largest logits below 5, where a softmax still has gradients, if they are larger.
        """
        return self.trained_at if self.trained_at > 1 else max(1.0, self.gap / 5)

    @torch.no_grad()
    def says(self, pixels: Pixels) -> Labels:
        """The classes that it answers."""
        said: Labels = self(pixels.to(self.device)).argmax(dim=1)
        return said

    def as_sent(self, pixels: Pixels) -> Pixels:
        return pixels


def _trained_at(record: Record) -> float:
    if record.kind not in ("normal", "hardened"):
        return 1.0
    return float(record.config.get("objective", {}).get("temperature", 1.0))


def _are_probabilities(shown: torch.Tensor) -> bool:
    if shown.ndim != 2 or not bool(shown.isfinite().all()):
        raise ConfigError(
            f"The network answers {tuple(shown.shape)} with numbers that are not finite, or not "
            "one for each class; it cannot be attacked."
        )
    in_range = bool(((shown >= 0) & (shown <= 1)).all())
    return in_range and bool(((shown.sum(dim=1) - 1).abs() < 1e-3).all())
