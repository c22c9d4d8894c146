"""The processes that train one network together; usually there is one.

Who starts them is `torchrun` or `accelerate launch`; accelerate joins them, DistributedDataParallel
averages their gradients, or fully_shard divides weights, gradients and moments among them. Each
process takes its part of every global batch, and the first alone writes.
"""

import atexit
import copy
import gc
import os
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, final

import torch
from torch import Tensor, nn

from denature.core.errors import ConfigError, DenatureError, MissingExtra

T = TypeVar("T")


@final
class ProcessGroup:
    """This process's place among those that train together."""

    def __init__(self, rank: int = 0, size: int = 1, accelerator: Any = None) -> None:
        self.rank = rank
        self.size = size
        self._accelerator = accelerator

    @property
    def is_rank0(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def broadcast(self, value: T) -> T:
        """The first process's value, in all of them."""
        if self.size == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    def on_rank0(self, work: Callable[[], T]) -> T:
        """Do something in the first process; its result, or its error, goes to all."""
        if self.size == 1:
            return work()
        outcome: tuple[str, Any] = ("none", None)
        if self.is_rank0:
            try:
                outcome = ("done", work())
            except DenatureError as error:
                outcome = ("failed", error)
        kind, value = self.broadcast(outcome)
        if kind == "failed":
            raise value
        found: T = value
        return found

    def share_buffers(self, network: nn.Module) -> None:
        """Give the first process's buffers to all."""
        if self.size > 1:
            for buffer in network.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def total(self, values: list[float]) -> list[float]:
        """The sums over all processes, of doubles."""
        if self.size == 1:
            return values
        device = self._accelerator.device
        sums = torch.tensor(values, dtype=torch.float64, device=device)
        torch.distributed.all_reduce(sums)
        return [float(value) for value in sums.tolist()]

    def spread(self, network: nn.Module, *, engine: str) -> nn.Module:
        """The module to train in this process, for `network` in all of them.

        Args:
            network: with the same weights everywhere, on its device.
            engine: `ddp` or `fsdp`.
        """
        if self.size == 1:
            return network
        if engine == "ddp":
            wrapped: nn.Module = self._accelerator.prepare_model(network)
            return wrapped
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        sharded = copy.deepcopy(network)
        mesh = init_device_mesh(self._accelerator.device.type, (self.size,))
        fully_shard(sharded, mesh=mesh)
        return sharded


SINGLE_PROCESS = ProcessGroup()


def gathered(tensor: Tensor) -> Tensor:
    """All of a tensor that may be divided among processes; all of them must ask."""
    if hasattr(tensor, "full_tensor"):
        full: Tensor = tensor.full_tensor()
        return full
    return tensor


def sharded_like(tensor: Tensor, model: Tensor) -> Tensor:
    """A whole tensor in the memory layout of `model`, and divided as it is."""
    if hasattr(model, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        there = tensor.to(device=model.device, dtype=tensor.dtype)
        return distribute_tensor(there, model.device_mesh, model.placements)  # type: ignore[attr-defined]
    return torch.empty_like(model, dtype=tensor.dtype).copy_(tensor)


def join(device: str) -> ProcessGroup:
    """The team that a launcher started this process for; this process alone without one.

    Args:
        device: where the team will train.

    Raises:
        ConfigError: there are more processes on this machine than devices.
        MissingExtra: accelerate is not installed.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return SINGLE_PROCESS
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    if cuda and here > torch.cuda.device_count():
        raise ConfigError(
            f"{here} processes were started on this machine, which has "
            f"{torch.cuda.device_count()} CUDA devices. Start one for each device "
            "(--nproc-per-node), or train with --device cpu."
        )
    return _joined(not cuda)


@cache
def _joined(cpu: bool) -> ProcessGroup:
    try:
        from accelerate import Accelerator
    except ImportError:
        raise MissingExtra("accelerate", "parallel", "Training in several processes") from None
    # Precision is ours; a launcher's wish for another would be a second autocast.
    accelerator = Accelerator(cpu=cpu, mixed_precision="no")
    atexit.register(_leave)
    return ProcessGroup(accelerator.process_index, accelerator.num_processes, accelerator)


def _leave() -> None:
    """Close the group; a process that exits with it open aborts now and then, in its threads."""
    gc.collect()  # sharded networks hold the group too
    torch.distributed.destroy_process_group()
