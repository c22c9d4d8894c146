"""What happens inside a network while it answers: its last features, and what its norms see."""

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
    """Watches a network; use it as a context, and look after each answer.

    Args:
        network: any of ours; its parameters are not touched.
        norms: also watch every 2-D batch norm.

    Raises:
        ConfigError: norms are wanted and there are none.
    """

    def __init__(self, network: nn.Module, *, norms: bool = False) -> None:
        self.network = network
        self._given: Tensor = torch.empty(0, 0)
        self.norms = (
            [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)] if norms else []
        )
        if norms and not any(norm.running_mean is not None for norm in self.norms):
            raise ConfigError(
                "This network has no 2-D batch norm with running statistics, and DeepInversion "
                "needs them; take one that has, or DAFL."
            )
        self.statistics: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        """Mean and variance over the batch of what each norm was given, by the norm: networks need
        not use their layers in the order in which they were made. Of a norm that is used more than
        once, the last use counts."""
        self._hooks: list[Any] = []

    def __enter__(self) -> "ActivationRecorder":
        for layer in _weighing(self.network):
            self._hooks.append(layer.register_forward_pre_hook(self._see_given))
        for norm in self.norms:
            self._hooks.append(norm.register_forward_pre_hook(self._see_norm))
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
        """What the layer that gives the logits was given, batch x features.

        It is the one that is used last, wherever it stands among the network's modules.
        """
        return self._given.flatten(1)

    def ask(self, pixels: Pixels) -> Tensor:
        """Its logits as float32, with gradients to the pixels."""
        self.statistics.clear()
        logits: Tensor = self.network(pixels)
        return logits.float()

    def _see_given(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        self._given = given[0]

    def _see_norm(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen = given[0].float()
        self.statistics[module] = seen.mean((0, 2, 3)), seen.var((0, 2, 3), unbiased=False)


def _weighing(network: nn.Module) -> Sequence[nn.Module]:
    """Its linear layers and convolutions, one of which gives the logits."""
    if layers := [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]:
        return layers
    raise ConfigError("This network has no linear layer or convolution that gives its logits.")


def scale_of(network: nn.Module) -> tuple[Tensor | float, Tensor | float]:
    """Mean and spread of the pixels that a network was trained on, as far as it knows them."""
    if isinstance(network, Normalized):
        return network.mean, network.std
    return 0.5, 0.25
