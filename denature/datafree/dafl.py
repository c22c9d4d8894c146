"""DAFL: a student trained on a generator's images (Chen et al., ICCV 2019).

The generator learns to make images with confident answers of the teacher, balanced classes and
strong features; the student learns the teacher's answers to them. The thief needs no data, but
white-box access to the teacher: gradients go through its weights.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denature.answers.answerer import Answers
from denature.core.compute import Compute
from denature.core.errors import ConfigError
from denature.core.seeds import derive, seeded
from denature.core.types import Logits, Pixels
from denature.data.feed import Batch, steps_per_epoch
from denature.nets.activations import ActivationRecorder, scale_of
from denature.train.state import optimizer_tensors, restore_optimizer


@final
class Generator(nn.Module):
    """Maps noise vectors to images: a linear layer and three convolutions, upsampled twice.

    As released: batch norms between the layers, the last without weights, so that a batch has the
    mean and the standard deviation that the teacher's normalisation expects.
    """

    def __init__(self, latent: int, *, channels: int, image_size: int) -> None:
        super().__init__()
        if image_size % 4:
            raise ConfigError(f"DAFL makes images of a multiple of 4 pixels, not {image_size}.")
        self.side = image_size // 4
        self.first = nn.Linear(latent, 128 * self.side**2)
        self.norm0 = nn.BatchNorm2d(128)
        self.conv1 = nn.Conv2d(128, 128, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(128, 0.8)
        self.conv2 = nn.Conv2d(128, 64, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(64, 0.8)
        self.conv3 = nn.Conv2d(64, channels, 3, padding=1)
        self.norm3 = nn.BatchNorm2d(channels, affine=False)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.norm0(self.first(latent).view(-1, 128, self.side, self.side))
        x = F.leaky_relu(self.norm1(self.conv1(F.interpolate(x, scale_factor=2.0))), 0.2)
        x = F.leaky_relu(self.norm2(self.conv2(F.interpolate(x, scale_factor=2.0))), 0.2)
        images: Tensor = self.norm3(torch.tanh(self.conv3(x)))
        return images


def generator_loss(
    logits: Logits, features: Tensor, *, one_hot: float, entropy: float, activation: float
) -> Tensor:
    """The loss of the generator: DAFL's equations 3 to 6.

    Args:
        logits: the teacher's answers, batch x classes.
        features: the input of the teacher's last layer, batch x features.
        one_hot: weight of the cross-entropy against the teacher's own argmax.
        entropy: weight of minus the entropy of the mean answer, in units of log 10.
        activation: weight of minus the mean absolute value of the features.
    """
    sure = F.cross_entropy(logits, logits.argmax(1))
    mean = logits.softmax(1).mean(0)
    spread = (mean * torch.log10(mean.clamp_min(1e-12))).sum()
    moved = -features.abs().mean()
    return one_hot * sure + entropy * spread + activation * moved


GeneratorLoss: TypeAlias = Callable[[Logits, Tensor], Tensor]
"""From the teacher's answers and features to the loss of the generator."""


@final
class GeneratedData:
    """A generator that is trained while its images are used, as training images and answer source.

    The noise of batch number n is a function of seed and n alone, so a resumed run equals an
    uninterrupted one.
    """

    def __init__(
        self,
        teacher: nn.Module,
        *,
        loss: GeneratorLoss,
        latent: int,
        lr: float,
        images: int,
        channels: int,
        image_size: int,
        seed: int,
        compute: Compute,
    ) -> None:
        self.loss = loss
        self.latent = latent
        self.images = images
        self.seed = seed
        self.compute = compute
        self.teacher = compute.place(teacher).eval()
        with seeded(seed, "generator"):
            generator = Generator(latent, channels=channels, image_size=image_size)
        self.generator = compute.place(generator).train()
        self.optimizer = torch.optim.Adam(self.generator.parameters(), lr)
        # The generator's images are normalised; undoing the teacher's normalisation gives pixels.
        self.mean, self.std = scale_of(self.teacher)
        self._answers: dict[int, Logits] = {}

    def __len__(self) -> int:
        return self.images

    def epoch(
        self,
        epoch: int,
        *,
        view_seed: int,
        batch_size: int,
        first: int = 0,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """The epoch's batches from number `first` on, each after a step of the generator."""
        steps = steps_per_epoch(self.images, batch_size)
        for place in range(first, steps):
            number = (epoch - 1) * steps + place
            pixels, logits = self._dream(number, min(batch_size, self.images - place * batch_size))
            self._answers = {number: logits}
            names = torch.full((len(pixels),), number)
            yield Batch(names, torch.zeros_like(names), pixels, logits.argmax(1))

    def answered(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Answers]]:
        """The teacher's answers, which `epoch` computed together with the images."""
        for batch in batches:
            yield batch, Answers("logits", self._answers.pop(int(batch.samples[0])))

    def _dream(self, number: int, count: int) -> tuple[Pixels, Logits]:
        noise = torch.Generator().manual_seed(derive(self.seed, "latent", number))
        latent = torch.randn((count, self.latent), generator=noise)
        weights = list(self.generator.parameters())
        with ActivationRecorder(self.teacher) as insides:
            with self.compute.autocast():
                images = self.generator(latent.to(self.compute.device))
                pixels = images.float() * self.std + self.mean
                logits = insides.ask(pixels)
            loss = self.loss(logits, insides.features.float())
            # Gradients for the generator alone; the teacher's weights need none.
            gradients = torch.autograd.grad(loss, weights)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        self.optimizer.step()
        return pixels.detach(), logits.detach()

    def state(self) -> dict[str, Tensor]:
        """The generator's weights and the moments of its optimizer."""
        tensors = {f"generator/{k}": v for k, v in self.generator.state_dict().items()}
        moments = optimizer_tensors(self.optimizer)
        return tensors | {f"moments/{k}": v for k, v in moments.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""

        def of(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.generator.load_state_dict(of("generator/"))
        restore_optimizer(self.optimizer, of("moments/"))
