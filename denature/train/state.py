"""A learner's unfinished state on disk: one safetensors file, replaced atomically.

Tensors are stored as tensors, all else as JSON in the file's metadata, so reading executes no code.
The file holds no generator states: order, views and dropout are functions of seed and position.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from denature.core.checkpoints import open_safetensors
from denature.core.errors import RunError
from denature.core.files import atomic_path
from denature.core.untrusted import parse_json
from denature.train.team import gathered, sharded_like

STATE = "state.safetensors"


def write_state(path: Path, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    """Write a state; afterwards the file is either the complete new state or the old one.

    Raises:
        OSError: the file could not be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # Two names may share memory, which safetensors rejects: every tensor is copied.
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(copies, temporary, metadata={"plain": json.dumps(plain)})
        except SafetensorError as error:
            raise OSError(str(error)) from None


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and plain values of a state.

    Raises:
        RunError: the file is damaged.
    """
    from safetensors import SafetensorError

    try:
        with open_safetensors(path) as file:
            plain = parse_json(file.metadata()["plain"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"The state {path} is damaged: {error}. Delete it to start again.") from None
    return tensors, plain


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state tensors of an optimizer, by parameter number and name."""
    return {
        f"{number}.{name}": gathered(value)
        for number, kept in optimizer.state_dict()["state"].items()
        for name, value in kept.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore the tensors of `optimizer_tensors`, in the memory layout of the parameters.

    The fused kernels iterate over memory: moments in another layout than their parameter's would
    silently be paired with the wrong weights.
    """
    groups = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        parameter = parameters[int(number)].detach()
        if value.shape == parameter.shape:
            value = sharded_like(value, parameter)
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})
