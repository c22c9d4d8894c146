"""Internal activations of a network: its features by stage, and batch norm statistics."""

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
        network: any network with a linear layer or convolution; its parameters are not changed.
        norms: also record the input statistics of every 2-D batch norm.
        stages: also record the features of each stage; their tensors stay in memory.

    Raises:
        ConfigError: the network has no linear layer and no convolution.
    """

    def __init__(self, network: nn.Module, *, norms: bool = False, stages: bool = False) -> None:
        self.network = network
        self._last_input: Tensor = torch.empty(0, 0)
        self.norms = (
            [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)] if norms else []
        )
        self.statistics: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        """Mean and variance over the batch of each norm's input, by the norm: the order of calls
        may differ from the order of the modules. Of a norm that is called more than once, the last
        call counts."""
        self._by_stage: dict[tuple[int, ...], Tensor] | None = {} if stages else None
        self._calls = 0
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

    @property
    def stages(self) -> tuple[Tensor, ...]:
        """Features before `features`, from shallow to deep.

        Of feature maps, batch x channels x height x width, the input of the last layer at each
        resolution: in a residual network the output of a stage of blocks. Of other features the
        input of each layer. The pixels are no features.
        """
        found = (self._by_stage or {}).values()
        return tuple(stage for stage in found if stage is not self._last_input)

    def ask(self, pixels: Pixels) -> Tensor:
        """The network's logits as float32, with gradients to the pixels."""
        self.statistics.clear()
        self._calls = 0
        if self._by_stage is not None:
            self._by_stage.clear()
        logits: Tensor = self.network(pixels)
        return logits.float()

    def _record_input(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._last_input = values = inputs[0]
        self._calls += 1
        if self._by_stage is not None and self._calls > 1:
            resolution = tuple(values.shape[2:]) if values.ndim == 4 else (self._calls,)
            self._by_stage[resolution] = values

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
