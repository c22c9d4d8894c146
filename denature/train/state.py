"""A learner's unfinished state on disk: one sealed file, replaced atomically, and the one before.

Tensors are stored as tensors, all else as JSON in the file's metadata, so reading executes no code.
The file holds no generator states: order, views and dropout are functions of seed and position.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from denature.core.errors import RunError
from denature.core.sealed import read_tensors, write_tensors
from denature.train.team import gathered, sharded_like

STATE = "state.safetensors"

FORMER = "state-before.safetensors"
"""The state before the last one, from which a run goes on where the last one is damaged."""


ADVICE = "Delete it to start again."


def write_state(path: Path, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    """Write a state; the one before stays beside it as `FORMER`.

    A kill at any time leaves at least one complete state.

    Raises:
        OSError: the file could not be written.
    """
    metadata = {"plain": json.dumps(plain)}
    write_tensors(path, tensors, metadata, former=path.with_name(FORMER))


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and plain values of a state.

    Raises:
        RunError: the file is damaged.
    """
    from safetensors import SafetensorError

    try:
        tensors, metadata = read_tensors(path)
        return tensors, json.loads(metadata["plain"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"The state {path} is damaged: {error}. {ADVICE}") from None


def recover_state(path: Path, say: Callable[[str], None]) -> None:
    """Put the state before the last in the place of a last one that is damaged or missing.

    Args:
        path: of the last state.
        say: receives a line where a damaged state is dropped.

    Raises:
        RunError: there is no state that is not damaged, and at least one that is.
    """
    former, damage = path.with_name(FORMER), ""
    if path.exists():
        try:
            read_state(path)
            return
        except RunError as error:
            damage = str(error)
    if former.exists():
        try:
            read_state(former)
        except RunError as error:
            raise RunError(damage or str(error)) from None
        if damage:  # otherwise a kill came where a file has one name; see `atomic_path`
            say(f"{damage.removesuffix(ADVICE)}The run goes on from the state before it.")
        os.replace(former, path)
    elif damage:
        raise RunError(damage)


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
