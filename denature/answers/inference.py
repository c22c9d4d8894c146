"""Inference: a network in eval mode, folded and cast, that answers in chunks of one size."""

import copy
import math
from collections import Counter
from typing import Any, final

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from denature.answers.config import InferenceConfig
from denature.core.compute import Compute
from denature.core.errors import ConfigError
from denature.core.text import line_of
from denature.core.types import Logits, Pixels

CHUNK_ON_CPU, CHUNK = 64, 256
"""Images per forward pass. The last bits of an answer may depend on the batch size, never on its
neighbours or its place in the batch: tests verify this for the catalogue."""

FOLD_TOLERANCE = 1e-4
"""Largest accepted distance of a folded network's fp32 logits, as a share of their spread."""

BF16_TOLERANCE = 0.05
"""The same for logits in bf16 against the plain network's in fp32. Measured on the catalogue with
random statistics: 0.003 to 0.005."""


@final
class Inference:
    """Answers of a network, each a function of its image alone.

    Args:
        network: is put in eval mode and on the device; its weights are not changed.
        compute: device, precision and memory layout.
        config: whether to fold and to compile.
        shape: of one image, channels x height x width; a few random images test whether folding
            changed the logits.
    """

    def __init__(
        self,
        network: nn.Module,
        compute: Compute,
        config: InferenceConfig,
        *,
        shape: tuple[int, int, int],
    ) -> None:
        self.compute = compute
        self.chunk = CHUNK_ON_CPU if compute.device.type == "cpu" else CHUNK
        self.network = compute.place(network).eval()
        generator = torch.Generator().manual_seed(0)
        probe = torch.randint(0, 256, (8, *shape), generator=generator, dtype=torch.uint8)
        pixels = compute.pixels(probe.to(compute.device))
        self.mixes = any(
            isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is None
            for module in self.network.modules()
        )
        """Whether a batch norm uses batch statistics: answers then depend on their neighbours."""
        self.folded = False
        if config.fold and (folded := fold(self.network)) is not None:
            self.folded = _folding_error(self.network, folded, pixels) <= FOLD_TOLERANCE
            if self.folded:
                self.network = compute.place(folded)
        if compute.precision == "bf16":
            if not self.folded:
                self.network = copy.deepcopy(self.network)
            for module in self.network.modules():
                # Autocast would cast these weights for every chunk: 20 % of the time of `cnn`.
                if type(module) in (nn.Conv2d, nn.Linear):
                    module.to(torch.bfloat16)
        with torch.no_grad(), compute.autocast():
            self.dtype: torch.dtype = self.network(pixels).dtype
        self.compiled = config.compile
        self._uncompiled = self.network
        self._compared: set[int] = set()
        if self.compiled:
            _tell_processor_to_cache()
            # torch.compile has no types.
            self.network = torch.compile(self.network, dynamic=False)  # type: ignore[assignment]

    @property
    def form(self) -> dict[str, Any]:
        """All settings that may change the last bits of an answer."""
        return {
            "device": self.compute.device.type,
            "hardware": self.compute.hardware,
            "precision": self.compute.precision,
            "channels_last": self.compute.channels_last,
            "folded": self.folded,
            "compiled": self.compiled,
            "chunk": self.chunk,
            "torch": torch.__version__,
        }

    def __call__(self, pixels: Pixels) -> Logits:
        """Logits as float32, batch x classes, computed in chunks of one size."""
        return torch.cat([self._ask(part, self.chunk) for part in pixels.split(self.chunk)])

    def low_latency(self, pixels: Pixels) -> Logits:
        """The same logits with low latency, in chunks of three sizes.

        Last bits may then depend on the number of images. On two cores a single image so takes
        `cnn` 0.4 ms and `resnet18` 13 ms, instead of 9.8 and 529.
        """
        whole = len(pixels) - len(pixels) % self.chunk
        parts = [(part, self.chunk) for part in pixels[:whole].split(self.chunk)] if whole else []
        rest = pixels[whole:]
        small = self.chunk // 8 if len(rest) > 1 else 1
        parts += [(part, small) for part in rest.split(small)] if len(rest) else []
        return torch.cat([self._ask(*part) for part in parts])

    def _ask(self, pixels: Pixels, chunk: int) -> Logits:
        count = len(pixels)
        if count < chunk:
            filler = pixels[:1].expand(chunk - count, -1, -1, -1)
            pixels = torch.cat([pixels, filler])
            if self.compute.channels_last:
                pixels = pixels.contiguous(memory_format=torch.channels_last)
        answers = (
            self._compiled(pixels) if self.compiled else self.compute.answer(self.network, pixels)
        )
        return answers[:count]

    def _compiled(self, pixels: Pixels) -> Logits:
        """Answers of the compiled network; its first ones in a chunk of this size are compared."""
        try:
            answers = self.compute.answer(self.network, pixels)
        except Exception as error:
            raise ConfigError(
                f"torch.compile failed on this network: {line_of(error)}. Leave out --compile."
            ) from error
        if len(pixels) not in self._compared:
            apart = _apart(self.compute.answer(self._uncompiled, pixels), answers)
            if apart > (FOLD_TOLERANCE if self.compute.precision == "fp32" else BF16_TOLERANCE):
                raise ConfigError(
                    f"torch.compile changes the answers of this network: logits are {apart:.2g} of "
                    "their spread away. Leave out --compile."
                )
            self._compared.add(len(pixels))
        return answers


def _tell_processor_to_cache() -> None:
    """Put the processor's features into the key of torch.compile's cache on disk.

    torch 2.13 leaves them out: what it had compiled with AVX512 answered 1e36 on a processor with
    AVX2 alone that shared the folder.
    """
    features, tag = torch.backends.cpu.get_cpu_capability(), torch.compiler.config.cache_key_tag
    if features not in tag.split():
        torch.compiler.config.cache_key_tag = f"{tag} {features}".strip()


def fold(network: nn.Module) -> nn.Module | None:
    """A copy of `network` in eval mode, its batch norms folded into the linear maps before them.

    None where folding is not certain to be right: the network has no batch norm, cannot be traced,
    has hooks, or calls one layer more than once.
    """
    from torch.fx import GraphModule, Node, symbolic_trace

    if not any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in network.modules()):
        return None
    if any(m._forward_hooks or m._forward_pre_hooks for m in network.modules()):
        return None
    try:
        traced: GraphModule = symbolic_trace(copy.deepcopy(network).eval())
    except Exception:  # tracing runs a user's forward with proxies instead of tensors
        return None
    layers = dict(traced.named_modules())
    nodes = [node for node in traced.graph.nodes if node.op == "call_module"]
    if any(count > 1 for count in Counter(node.target for node in nodes).values()):
        return None
    for node in nodes:
        before = node.args[0] if node.args else None
        if not isinstance(before, Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        linear, norm = layers[str(before.target)], layers[node.target]
        if getattr(norm, "running_mean", None) is None:
            continue
        if type(linear) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
            fused: nn.Module = fuse_conv_bn_eval(linear, norm)
        elif type(linear) is nn.Linear and type(norm) is nn.BatchNorm1d:
            fused = fuse_linear_bn_eval(linear, norm)
        else:
            continue
        traced.set_submodule(str(before.target), fused)
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
        traced.delete_submodule(node.target)
    traced.recompile()
    return traced


@torch.no_grad()
def _folding_error(plain: nn.Module, folded: nn.Module, pixels: Pixels) -> float:
    """The largest difference of two networks' logits, as a share of their spread.

    The images are passed in two halves: a trace freezes state that changes from call to call, and
    the second half shows the difference.
    """
    try:
        a, b = (torch.cat([net(part) for part in pixels.chunk(2)]) for net in (plain, folded))
    except Exception:  # the trace may have frozen a value that is not constant, such as a shape
        return math.inf
    return _apart(a, b)


def _apart(expected: Logits, found: Logits) -> float:
    """The largest difference of logits, as a share of their spread; infinite where one is NaN."""
    spread = float(expected.max() - expected.min()) or 1.0
    apart = float((expected - found).abs().max()) / spread
    return math.inf if math.isnan(apart) else apart
