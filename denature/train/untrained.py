"""Networks with random weights, of a run's architecture."""

from torch import nn

from denature.core.seeds import seeded
from denature.nets import create
from denature.nets.normalize import Normalized
from denature.train.run import Run


def untrained(run: Run) -> nn.Module:
    """A network of a run's architecture and normalisation, its weights random with a fixed seed.

    A defense that looks at such a network changes answers alike in a service and in an audit.
    """
    net = run.record.net
    with seeded(0, "untrained"):
        network = create(
            net.name, classes=net.classes, channels=net.channels, image_size=net.image_size
        )
    if isinstance(network, Normalized) and isinstance(run.network, Normalized):
        network.mean.copy_(run.network.mean)
        network.std.copy_(run.network.std)
    return network.eval()
