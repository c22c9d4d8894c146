"""Auxiliary classifiers on a network's features, for training; they are dropped at inference."""

from torch import nn

SMALLEST = 4
"""Pixels a side to which feature maps are reduced before the mean over positions."""


def auxiliary_head(shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """A classifier on features of a shape without the batch.

    Feature maps, channels x side x side, pass separable convolutions that halve the side and double
    the channels, then the mean and a linear layer, as in self-distillation (Zhang et al. 2019,
    arXiv:1905.08094) without its attention. Other features pass a linear layer, after the mean over
    tokens if they are tokens x features.
    """
    if len(shape) != 3:
        pool = [nn.AdaptiveAvgPool2d((1, None)), nn.Flatten()] if len(shape) == 2 else []
        return nn.Sequential(*pool, nn.Linear(shape[-1], classes))
    channels, side = shape[0], shape[-1]
    layers: list[nn.Module] = []
    while side > SMALLEST:
        layers += _halving(channels)
        channels, side = 2 * channels, -(-side // 2)
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
    return nn.Sequential(*layers, *pooled)


def _halving(channels: int) -> list[nn.Module]:
    """Two separable convolutions; the first halves the side, the second doubles the channels."""
    return [
        nn.Conv2d(channels, channels, 3, 2, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, 2 * channels, 1, bias=False),
        nn.BatchNorm2d(2 * channels),
        nn.ReLU(),
    ]
