"""The group of processes that train one network together, usually a single process.

`torchrun` or `accelerate launch` starts the processes and accelerate joins them.
DistributedDataParallel averages their gradients, or fully_shard divides weights, gradients and
moments among them. Each process takes its part of every global batch; only rank 0 writes files.
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

from denature.core.errors import ConfigError, DenatureError, MissingExtra, RunError
from denature.core.text import line_of

T = TypeVar("T")


@final
class ProcessGroup:
    """This process's rank among the processes that train together."""

    def __init__(self, rank: int = 0, size: int = 1, accelerator: Any = None) -> None:
        self.rank = rank
        self.size = size
        self._accelerator = accelerator

    @property
    def is_rank0(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def broadcast(self, value: T) -> T:
        """The value of rank 0, in all processes."""
        if self.size == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    def on_rank0(self, work: Callable[[], T]) -> T:
        """Call `work` in rank 0; all processes get its result or raise its error.

        Raises:
            DenatureError: that of `work`; another error, such as a full disk, as a RunError.
        """
        if self.size == 1:
            return work()
        outcome: tuple[str, Any] = ("none", None)
        if self.is_rank0:
            try:
                outcome = ("done", work())
            except DenatureError as error:
                outcome = ("failed", error)
            except Exception as error:  # the other processes would wait for ever
                outcome = ("failed", RunError(f"{type(error).__name__}: {line_of(error)}"))
        kind, value = self.broadcast(outcome)
        if kind == "failed":
            raise value
        result: T = value
        return result

    def share_buffers(self, network: nn.Module) -> None:
        """Copy the buffers of rank 0 to all processes."""
        if self.size > 1:
            for buffer in network.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def total(self, values: list[float]) -> list[float]:
        """Sums over all processes, in double precision."""
        if self.size == 1:
            return values
        device = self._accelerator.device
        sums = torch.tensor(values, dtype=torch.float64, device=device)
        torch.distributed.all_reduce(sums)
        return [float(value) for value in sums.tolist()]

    def spread(self, network: nn.Module, *, engine: str) -> nn.Module:
        """The module that this process trains as its part of a common `network`.

        Args:
            network: with the same weights in all processes, on its device.
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
    """The full tensor, gathered if sharded; all processes must call this."""
    if hasattr(tensor, "full_tensor"):
        full: Tensor = tensor.full_tensor()
        return full
    return tensor


def sharded_like(tensor: Tensor, model: Tensor) -> Tensor:
    """A full tensor in the memory layout of `model`, and sharded like it."""
    if hasattr(model, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        moved = tensor.to(device=model.device, dtype=tensor.dtype)
        return distribute_tensor(moved, model.device_mesh, model.placements)  # type: ignore[attr-defined]
    return torch.empty_like(model, dtype=tensor.dtype).copy_(tensor)


def join(device: str) -> ProcessGroup:
    """The group that a launcher started this process for; a group of one without a launcher.

    Args:
        device: device of the training.

    Raises:
        ConfigError: this machine has more processes than devices.
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
    # Compute sets the precision; a precision from the launcher would add a second autocast.
    accelerator = Accelerator(cpu=cpu, mixed_precision="no")
    atexit.register(_leave)
    return ProcessGroup(accelerator.process_index, accelerator.num_processes, accelerator)


def _leave() -> None:
    """Close the group; a process that exits with an open group sometimes aborts in its threads."""
    gc.collect()  # sharded networks hold the group too
    torch.distributed.destroy_process_group()
