"""DeepInversion: images from a network's weights alone (Yin et al., CVPR 2020, arXiv:1912.08795).

Pixels are optimised until the network predicts the target classes, the batch norm statistics match
those of its training, and neighbouring pixels differ little.

Weights of the terms are those of the command for CIFAR-10 in the released code's README, "with
parameters from the paper"; the script's own defaults differ. The optimisation follows the ImageNet
script: Adam's betas, a learning rate that falls as a cosine, pixels clamped to the range of an
image. The CIFAR-10 script has none of these, and 0 where the paper has the L2 norm's weight.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denature.core.compute import Compute
from denature.core.errors import ConfigError, Stopped
from denature.core.progress import SILENT, Progress
from denature.core.seeds import derive
from denature.core.stats import Estimate, proportion
from denature.core.stopping import Stopper
from denature.core.types import Labels, Logits, Pixels
from denature.datafree.config import Inversion
from denature.nets.activations import ActivationRecorder, scale_of

SAY_EVERY = 50
"""Steps between progress reports; each report waits for the device."""


def invert(
    network: nn.Module,
    targets: Labels,
    config: Inversion,
    *,
    channels: int,
    image_size: int,
    compute: Compute,
    seed: int = 0,
    student: nn.Module | None = None,
    stopper: Stopper | None = None,
    progress: Progress = SILENT,
) -> Pixels:
    """Images that `network` classifies as `targets`; float32 in [0, 1], on the CPU.

    Args:
        network: any network of the catalogue with 2-D batch norms; its weights are not changed.
        targets: the class of each image, int64.
        config: steps, learning rate and weights of the terms.
        channels: of the images.
        image_size: side of an image, in pixels.
        compute: the device; images are optimised in fp32.
        seed: determines the initial noise and the shifts.
        student: the network that should disagree, where `config.compete_weight` is above 0.
        stopper: checked before each step.
        progress: receives the number of steps done.

    Raises:
        Stopped: the stopper asked for a stop; nothing is kept of these images.
        ConfigError: the network has no batch norm, or the adaptive term has no student.
    """
    if config.compete_weight and student is None:
        raise ConfigError(
            f"compete_weight is {config.compete_weight}, which needs a student that disagrees."
        )
    network = compute.place(network).eval()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if not any(norm.running_mean is not None for norm in norms):
        raise ConfigError(
            "This network has no 2-D batch norm with running statistics, and DeepInversion needs "
            "them. Take a network that has them, or DAFL."
        )
    if student is not None:
        student = compute.place(student).eval()
    draw = torch.Generator().manual_seed(derive(seed, "inversion"))
    shape = (len(targets), channels, image_size, image_size)
    images = torch.randn(shape, generator=draw).to(compute.device).requires_grad_()
    mean, std = scale_of(network)
    targets = targets.to(compute.device)
    # Betas of the ImageNet script: the statistics term changes with every step of the images.
    optimizer = torch.optim.Adam([images], config.lr, betas=(0.5, 0.9))
    far = image_size // 16
    shifts = torch.randint(-far, far + 1, (config.steps, 2), generator=draw).tolist()
    with (
        ActivationRecorder(network, norms=True) as insides,
        progress.task("inverting", config.steps, "steps") as task,
    ):
        for step, shift in enumerate(shifts, 1):
            if stopper is not None and (reason := stopper.reason):
                raise Stopped(
                    reason,
                    f"Stopped by {reason} at step {step - 1} of {config.steps} of an inversion, "
                    "which the same command begins anew.",
                )
            rate = 0.5 * config.lr * (1 + torch.cos(torch.tensor(torch.pi * step / config.steps)))
            optimizer.param_groups[0]["lr"] = float(rate)
            moved = images.roll(tuple(shift), (2, 3))
            pixels = moved * std + mean
            logits = insides.ask(pixels)
            loss = F.cross_entropy(logits, targets)
            loss = loss + config.bn_weight * statistics_loss(insides)
            loss = loss + config.tv_weight * total_variation(moved)
            loss = loss + config.l2_weight * moved.norm()
            if student is not None and config.compete_weight:
                student_logits = student(pixels)
                gap = disagreement(student_logits, logits, temperature=config.compete_temperature)
                loss = loss + config.compete_weight * (1 - gap.clamp(0, 1))
            [gradient] = torch.autograd.grad(loss, [images])
            images.grad = gradient
            optimizer.step()
            with torch.no_grad():  # pixels stay in [0, 1], the range of an image file
                images.copy_(((images * std + mean).clamp(0, 1) - mean) / std)
            if step % SAY_EVERY == 0 or step == config.steps:
                steps = step % SAY_EVERY or SAY_EVERY
                task.advance(steps, f"loss {float(loss.detach()):.3f}")
    return (images.detach() * std + mean).clamp(0, 1).cpu()


def statistics_loss(insides: ActivationRecorder) -> Tensor:
    """Distance of batch statistics from running statistics: two L2 norms for each batch norm."""
    total = torch.zeros(())
    for norm in insides.norms:
        if norm.running_mean is None or norm.running_var is None or norm not in insides.statistics:
            continue
        mean, variance = insides.statistics[norm]
        apart = (mean - norm.running_mean).norm() + (variance - norm.running_var).norm()
        total = total.to(apart.device) + apart
    return total


def total_variation(images: Tensor) -> Tensor:
    """L2 norms of the differences to four neighbours: right, down and the two diagonals."""
    total: Tensor = (
        (images[..., :, :-1] - images[..., :, 1:]).norm()
        + (images[..., :-1, :] - images[..., 1:, :]).norm()
        + (images[..., :-1, :-1] - images[..., 1:, 1:]).norm()
        + (images[..., 1:, :-1] - images[..., :-1, 1:]).norm()
    )
    return total


def disagreement(a: Logits, b: Logits, *, temperature: float) -> Tensor:
    """The released code's "JS": half KL(M || P) and half KL(M || Q) with M their mean.

    The Jensen-Shannon divergence has the arguments the other way round. As in the released code,
    all three are clamped to [0.01, 0.99] after the mean is taken.
    """
    p, q = ((x / temperature).softmax(1) for x in (a, b))
    p, q, m = (x.clamp(0.01, 0.99) for x in (p, q, 0.5 * (p + q)))
    either = torch.stack([(m * (m.log() - x.log())).sum(1).mean() for x in (p, q)])
    mean: Tensor = either.mean()
    return mean


@torch.no_grad()
def agreement(network: nn.Module, pixels: Pixels, targets: Labels, compute: Compute) -> Estimate:
    """Share of images that an independent network classifies as their target."""
    network = compute.place(network).eval()
    logits = compute.answer(network, pixels.to(compute.device))
    return proportion(int((logits.argmax(1).cpu() == targets.cpu()).sum()), len(targets))
