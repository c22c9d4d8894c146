"""Internal activations of a network: the last features, and batch norm statistics."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, final

import torch
from torch import Tensor, nn

from denature.core.errors import ConfigError
from denature.core.types import Pixels
from denature.nets.normalize import Normalized


@final
class ActivationRecorder:
    """Records activations by hooks; use as a context manager, and read the fields after each call.

    Args:
        network: any network of the catalogue; its parameters are not changed.
        norms: also record the input statistics of every 2-D batch norm.

    Raises:
        ConfigError: norms are to be recorded, and the network has none.
    """

    def __init__(self, network: nn.Module, *, norms: bool = False) -> None:
        self.network = network
        self._last_input: Tensor = torch.empty(0, 0)
        self.norms = (
            [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)] if norms else []
        )
        if norms and not any(norm.running_mean is not None for norm in self.norms):
            raise ConfigError(
                "This network has no 2-D batch norm with running statistics, and DeepInversion "
                "needs them. Take a network that has them, or DAFL."
            )
        self.statistics: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        """Mean and variance over the batch of each norm's input, by the norm: the order of calls
        may differ from the order of the modules. Of a norm that is called more than once, the last
        call counts."""
        self._hooks: list[Any] = []

    def __enter__(self) -> "ActivationRecorder":
        for layer in _weighted_layers(self.network):
            self._hooks.append(layer.register_forward_pre_hook(self._record_input))
        for norm in self.norms:
            self._hooks.append(norm.register_forward_pre_hook(self._record_norm))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    @property
    def features(self) -> Tensor:
        """Input of the layer that computes the logits, batch x features.

        This layer is the last one called, wherever it stands among the network's modules.
        """
        return self._last_input.flatten(1)

    def ask(self, pixels: Pixels) -> Tensor:
        """The network's logits as float32, with gradients to the pixels."""
        self.statistics.clear()
        logits: Tensor = self.network(pixels)
        return logits.float()

    def _record_input(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._last_input = inputs[0]

    def _record_norm(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].float()
        self.statistics[module] = values.mean((0, 2, 3)), values.var((0, 2, 3), unbiased=False)


def _weighted_layers(network: nn.Module) -> Sequence[nn.Module]:
    """The linear layers and convolutions, one of which computes the logits."""
    if layers := [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]:
        return layers
    raise ConfigError("This network has no linear layer or convolution that computes its logits.")


def scale_of(network: nn.Module) -> tuple[Tensor | float, Tensor | float]:
    """Mean and standard deviation of a network's normalisation; 0.5 and 0.25 where it has none."""
    if isinstance(network, Normalized):
        return network.mean, network.std
    return 0.5, 0.25
