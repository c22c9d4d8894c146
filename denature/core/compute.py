"""Device, precision and memory layout of a network's computations."""

import os
import platform
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from denature.core.errors import ConfigError
from denature.core.types import Logits, Pixels

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True, slots=True)
class Compute:
    """A device, a precision and a memory layout, with `auto` resolved."""

    device: torch.device
    precision: str
    """`fp32`, or `bf16` for autocast with weights kept in fp32."""
    channels_last: bool

    def autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def place(self, network: nn.Module) -> nn.Module:
        layout = torch.channels_last if self.channels_last else torch.preserve_format
        return network.to(self.device, memory_format=layout)  # type: ignore[call-overload,no-any-return]

    def pixels(self, images: torch.Tensor) -> Pixels:
        """Convert uint8 images on the device to float32 in [0, 1], in this memory layout."""
        if self.channels_last:
            # Rearranging bytes takes half the time of rearranging floats.
            images = torch.stack(images.unbind(1), dim=-1).permute(0, 3, 1, 2)
        return images.to(torch.float32).div_(255)

    @torch.no_grad()
    def answer(self, network: nn.Module, pixels: Pixels) -> Logits:
        """The logits of a network in eval mode, as float32."""
        with self.autocast():
            logits: Logits = network(pixels)
        return logits.float()

    @property
    def hardware(self) -> str:
        """Model name of the device; on another model the last bits of a result may differ."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return _cpu_name()

    def describe(self) -> str:
        """Model name of the device, and on a CPU the number of threads."""
        number = torch.get_num_threads()
        threads = (
            f", {number} thread{'' if number == 1 else 's'}" if self.device.type == "cpu" else ""
        )
        return self.hardware + threads


def resolve(network: nn.Module, *, device: str, precision: str) -> Compute:
    """Resolve `auto` for this network on this machine; the result is always the same.

    bf16 is chosen on CUDA, and on a CPU with AVX512-BF16 that oneDNN may use, unless the network
    has grouped convolutions, which were slower in bf16 there. Channels last is chosen for every
    network with convolutions. On two such cores both together made a step of `cnn` 2.1 to 2.8 times
    as fast at 3x32x32 and 2.1 times at 1x8x8, and a step of `mlp` 2.1 times. The rule is explained
    in docs/decisions/0004-bf16-by-default.md.

    Raises:
        ConfigError: an unknown device or precision, or a device that is absent here.
    """
    if device not in DEVICES or precision not in PRECISIONS:
        raise ConfigError(
            f"Device {device!r} in precision {precision!r} was requested; devices are "
            f"{', '.join(DEVICES)}, precisions {', '.join(PRECISIONS)}."
        )
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        device = next((name for name, usable in available.items() if usable), "cpu")
    elif not available.get(device, True):
        raise ConfigError(
            f"The device {device!r} was requested, but torch {torch.__version__} finds none here. "
            "Use --device auto, or install a torch build that supports the device."
        )
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    if precision == "auto":
        dense = all(m.groups == 1 for m in convolutions)
        gains = device == "cuda" or (device == "cpu" and dense and _cpu_multiplies_bf16())
        precision = "bf16" if gains else "fp32"
    return Compute(torch.device(device), precision, channels_last=bool(convolutions))


def _cpu_multiplies_bf16() -> bool:
    """Whether the processor has bf16 units and oneDNN may use them (ONEDNN_MAX_CPU_ISA)."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    return bool(capabilities.get("avx512_bf16", False)) and bool(supported())


@cache
def _cpu_name() -> str:
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
