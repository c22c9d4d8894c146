"""The generator of a random defense, whose state can be saved."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, final

from denature.core.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor


@final
class Randomness:
    """A NumPy generator; rows drawn in one batch are those drawn one after another."""

    def __init__(self, seed: int, name: str) -> None:
        from denature.core.seeds import generator

        self.generator = generator(seed, "defense", name)

    def state(self) -> "dict[str, Tensor]":
        import torch

        state = json.dumps(self.generator.bit_generator.state, default=lambda array: array.tolist())
        return {"generator": torch.tensor(list(state.encode()), dtype=torch.uint8)}

    def restore(self, tensors: "Mapping[str, Tensor]") -> None:
        try:
            state = json.loads(bytes(tensors["generator"].tolist()))
            self.generator.bit_generator.state = state
        except (KeyError, ValueError, TypeError) as error:
            raise RunError(f"The state of a random defense is damaged: {error}.") from None
