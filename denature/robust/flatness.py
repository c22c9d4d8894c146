"""Flatness of the minimum that a training ended in, and sensitivity of answers to the image.

Flat minima are the usual reason given for why distillation should protect. A minimum is one of the
training loss: weights are moved under that loss, on training images. The sensitivity to the image
is measured on test images. Weights are changed by filter-normalised random directions (Li et al.
2018, arXiv:1712.09913), so that networks of other scales can be compared; batch norm's weights and
biases stay.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp

from denature.core.progress import SILENT, Progress
from denature.core.seeds import derive
from denature.core.stats import Estimate, mean_over_images, pooled, proportion
from denature.core.threads import computing
from denature.core.types import Labels, Logits, PerExample, Pixels
from denature.robust.target import Target


class Loss(Protocol):
    """A training loss as a function of the logits of fixed images, in their order."""

    def __call__(self, logits: Logits) -> PerExample: ...

    def part(self, rows: slice) -> "Loss":
        """The loss on some of these images."""


SIZES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
"""Lengths of a change, as shares of each filter's own length."""

STEPS = 30
"""Steps of the power iteration, at most."""

AT_ONCE = 64
"""Images whose second derivatives are computed at once: those of `resnet18` take 16 MiB each."""

SETTLED = 1e-3
"""Relative change of the eigenvalue at which the power iteration ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Flatness:
    """Flatness and sensitivity of one network."""

    run: str
    trained_at: float
    """The training temperature."""
    loss_is: str
    """Name of the training loss that was measured."""
    weights_split: str
    """The split of the images on which weights were changed."""
    images_split: str
    """The split of the images that were changed themselves."""
    sizes: tuple[float, ...]
    accuracy: tuple[Estimate, ...]
    """At each size, over random directions, which are its seeds, and images."""
    loss: tuple[Estimate, ...]
    """Mean training loss at each size, in nats, over random directions and images."""
    curvature: float
    """Largest eigenvalue of the Hessian of the mean training loss with respect to the weights."""
    curvature_moved: float
    """Relative change of the curvature in the last step of the power iteration: its convergence."""
    sensitivity: Estimate
    """Mean Frobenius norm of the Jacobian of the logits with respect to the image."""
    confidence_sensitivity: Estimate
    """The same of the probabilities at temperature 1, whose scale is the same for all networks."""
    samples: int
    """Samples of each of the two splits."""
    directions: int
    seed: int
    classes: int = 0
    """Number of classes, whose chance is no accuracy; 0 in results of an earlier version."""

    def advantage(self, size: int) -> Estimate:
        """Training accuracy above chance at a size, by its place, as a share of that at size 0.

        Differences of accuracy itself would call a network flat that fits its images badly, since
        it has less to lose. Of the accuracy at size 0 the value is taken, without its interval.
        """
        chance = 1 / self.classes if self.classes else 0.0
        whole, found = self.accuracy[0].value - chance, self.accuracy[size]
        if whole <= 0:
            return replace(found, value=0.0, low=0.0, high=1.0)
        value, low, high = ((x - chance) / whole for x in (found.value, found.low, found.high))
        return replace(found, value=value, low=low, high=high)

    @property
    def kept(self) -> Estimate:
        """`advantage` under changes of the middle size: the larger, the flatter the minimum."""
        return self.advantage(len(self.sizes) // 2)

    def to_json(self) -> str:
        return json.dumps(asdict(self), allow_nan=False)


@computing()
def flatness(
    target: Target,
    images: Pixels,
    labels: Labels,
    loss: Loss,
    *,
    loss_is: str,
    tested: Pixels,
    least: float = 0.0,
    sizes: Sequence[float] = SIZES,
    directions: int = 10,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Flatness:
    """Measure flatness around the weights on training images, and sensitivity on test images.

    Args:
        target: the network, in fp32.
        images: training images, batch x channels x height x width, in [0, 1].
        labels: labels of the training images.
        loss: the training loss, of the logits of these images.
        loss_is: name of the loss.
        tested: test images, for the sensitivity.
        least: least value that the loss can take, at which intervals of its mean end.
        sizes: lengths of the changes, as shares of each filter's length.
        directions: number of random directions, over which intervals are taken.
        seed: seed of the directions; one seed gives networks of one shape the same directions.
        progress: display of the measured directions.
    """
    images, labels = images.to(target.device), labels.to(target.device)
    hits: dict[float, list[Estimate]] = {size: [] for size in sizes}
    losses: dict[float, list[Estimate]] = {size: [] for size in sizes}
    with progress.task(f"looking around {target.name}", directions, "directions") as task:
        for number in range(directions):
            direction = filter_normalised(target.network, derive(seed, "direction", number))
            for size in sizes:
                logits = moved(target, direction, size, images)
                if size or not hits[size]:  # without a change all directions are one
                    right = int((logits.argmax(1) == labels).sum())
                    hits[size].append(proportion(right, len(labels)))
                    losses[size].append(mean_over_images(loss(logits).tolist(), least=least))
            task.advance(1)
    value, change = largest_curvature(target, images, loss, seed=seed)
    of_logits, of_probabilities = jacobian_norms(target, tested.to(target.device))
    return Flatness(
        run=target.name,
        trained_at=target.trained_at,
        loss_is=loss_is,
        weights_split="train",
        images_split="test",
        sizes=tuple(sizes),
        accuracy=tuple(pooled(hits[size]) for size in sizes),
        loss=tuple(pooled(losses[size], bounds=(least, math.inf)) for size in sizes),
        curvature=value,
        curvature_moved=change,
        sensitivity=mean_over_images(of_logits),
        confidence_sensitivity=mean_over_images(of_probabilities),
        samples=len(images),
        directions=directions,
        seed=seed,
        classes=logits.shape[1],
    )


def filter_normalised(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """A random direction in which each filter is as long as the network's own.

    A filter holds the weights of one output of a convolution or a linear layer. Biases and scales
    of norms stay, as in Li et al.
    """
    random = torch.Generator().manual_seed(seed)
    direction: dict[str, Tensor] = {}
    for name, weight in network.named_parameters():
        if weight.ndim < 2:
            continue
        noise = torch.randn(weight.shape, generator=random).to(weight)
        wanted, drawn = weight.detach().flatten(1).norm(dim=1), noise.flatten(1).norm(dim=1)
        scale = (wanted / drawn.clamp_min(torch.finfo(drawn.dtype).tiny)).view(
            -1, *[1] * (weight.ndim - 1)
        )
        direction[name] = noise * scale
    return direction


@torch.no_grad()
def moved(target: Target, direction: dict[str, Tensor], size: float, images: Pixels) -> Tensor:
    """The logits of the network with its weights changed."""
    weights = dict(target.network.named_parameters())
    changed = {f"network.{name}": weights[name] + size * step for name, step in direction.items()}
    parts = [functional_call(target, changed, (batch,)) for batch in images.split(256)]
    return torch.cat(parts)


def largest_curvature(
    target: Target, images: Pixels, loss: Loss, *, seed: int, steps: int = STEPS
) -> tuple[float, float]:
    """The Hessian's eigenvalue of largest size by power iteration, and its last relative change.

    The Hessian is that of the mean training loss with respect to all weights.
    """
    weights = {f"network.{n}": p.detach() for n, p in target.network.named_parameters()}
    sizes = [weight.numel() for weight in weights.values()]
    start = torch.cat([weight.flatten() for weight in weights.values()])

    def loss_of(rows: slice, flat: Tensor) -> Tensor:
        parts = zip(weights.items(), flat.split(sizes), strict=True)
        changed = {name: part.view_as(weight) for (name, weight), part in parts}
        return loss.part(rows)(functional_call(target, changed, (images[rows],))).sum()

    def times_hessian(vector: Tensor) -> Tensor:
        total = torch.zeros_like(vector)
        for first in range(0, len(images), AT_ONCE):
            rows = slice(first, first + AT_ONCE)
            _, times = vjp(grad(partial(loss_of, rows)), start)  # type: ignore[misc]
            total += times(vector)[0].detach()
        return total / len(images)

    random = torch.Generator().manual_seed(derive(seed, "power"))
    vector = torch.randn(start.shape, generator=random).to(start)
    value = change = 0.0
    for _ in range(steps):
        vector = vector / vector.norm().clamp_min(torch.finfo(vector.dtype).tiny)
        product = times_hessian(vector)
        before, value = value, float(vector @ product)
        change = abs(value - before) / max(abs(value), 1e-12)
        vector = product
        if change < SETTLED:
            break
    return value, change


def jacobian_norms(target: Target, images: Pixels) -> tuple[list[float], list[float]]:
    """Frobenius norms of d logits / d image and d probabilities / d image, for each image."""
    of_logits: list[float] = []
    of_probabilities: list[float] = []
    for batch in images.split(64):
        for norms, softened in ((of_logits, False), (of_probabilities, True)):
            at = batch.clone().requires_grad_()
            with torch.enable_grad():
                answers = target(at)
                answers = answers.softmax(1) if softened else answers
                squares = torch.zeros(len(at), device=at.device)
                for place in range(answers.shape[1]):
                    [gradient] = torch.autograd.grad(answers[:, place].sum(), at, retain_graph=True)
                    squares += gradient.flatten(1).square().sum(1)
            norms += squares.sqrt().tolist()
    return of_logits, of_probabilities


@torch.no_grad()
def surface(
    target: Target,
    images: Pixels,
    loss: Loss,
    *,
    seed: int = 0,
    reach: float = 1.0,
    points: int = 21,
) -> tuple[np.ndarray, np.ndarray]:
    """The mean training loss on a plane through the weights, spanned by two directions.

    Returns:
        Places along each axis, and the losses, points x points.
    """
    first = filter_normalised(target.network, derive(seed, "direction", 0))
    second = filter_normalised(target.network, derive(seed, "direction", 1))
    places = np.linspace(-reach, reach, points)
    losses = np.empty((points, points))
    for row, y in enumerate(places):
        for column, x in enumerate(places):
            both = {name: float(x) * first[name] + float(y) * second[name] for name in first}
            losses[row, column] = float(loss(moved(target, both, 1.0, images)).mean())
    return places, losses
