"""Answers of networks: folded, asked in chunks, compiled, and depending on one image alone."""

import copy
import math
from functools import lru_cache

import pytest
import torch
from torch import nn

from denature.answers import Inference, InferenceConfig
from denature.answers.coding import Coding
from denature.answers.inference import BF16_TOLERANCE, FOLD_TOLERANCE, fold
from denature.answers.opening import live
from denature.core.compute import Compute
from denature.core.errors import ConfigError
from denature.nets import create
from tests.networks import NETWORKS

SHAPE = (3, 32, 32)


SMALL = (3, 8, 8)
"""For networks that take long on larger images."""

LIGHT = ("mlp", "cnn", "resnetc20")


def shape_for(net: str) -> tuple[int, int, int]:
    return SHAPE if net in LIGHT else SMALL


def compute(precision: str, net: str = "cnn") -> Compute:
    return Compute(torch.device("cpu"), precision, channels_last=net != "mlp")


@lru_cache(maxsize=1)
def lived_in(net: str) -> nn.Module:
    """A network whose batch norms have seen something."""
    torch.manual_seed(0)
    network = create(net, classes=10, image_size=shape_for(net)[-1])
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_()
    return network.eval()


def inference_of(network: nn.Module, net: str, precision: str) -> tuple[Inference, Compute]:
    """In small chunks where a network is slow: bf16 is emulated on many processors."""
    settled = compute(precision, net)
    inference = Inference(network, settled, InferenceConfig(), shape=shape_for(net))
    if net not in LIGHT:
        inference.chunk = 16
    return inference, settled


def images(count: int, shape: tuple[int, int, int] = SHAPE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)


# Inference


@pytest.mark.parametrize("net", NETWORKS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_answers_are_near_those_of_the_plain_network_in_fp32(net: str, precision: str) -> None:
    plain = lived_in(net)
    state_before = {k: v.clone() for k, v in plain.state_dict().items()}
    reference = copy.deepcopy(plain)
    inference, settled = inference_of(plain, net, precision)
    shown = images(inference.chunk // 4 * 3, shape_for(net))
    with torch.no_grad():
        expected = reference(shown.float() / 255)
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    assert inference.folded == any(isinstance(module, norms) for module in reference.modules())
    spread = float(expected.max() - expected.min())
    apart = float((inference(settled.pixels(shown)) - expected).abs().max()) / spread
    assert apart <= (FOLD_TOLERANCE if precision == "fp32" else BF16_TOLERANCE)
    assert all(torch.equal(v, state_before[k]) for k, v in plain.state_dict().items())
    assert all(v.dtype != torch.bfloat16 for v in plain.state_dict().values())


@pytest.mark.parametrize("net", NETWORKS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_answer_depends_on_its_image_alone(net: str, precision: str) -> None:
    """Bit for bit, whatever it is asked together with, in whatever order and number."""
    inference, settled = inference_of(lived_in(net), net, precision)
    count = inference.chunk * 3 // 2
    pixels = settled.pixels(images(count, shape_for(net)))
    together = inference(pixels)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    assert torch.equal(inference(pixels[order]), together[order])
    assert torch.equal(inference(pixels[7:10]), together[7:10])
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert torch.equal(inference(pixels[: inference.chunk]), together[: inference.chunk])
    finally:
        torch.set_num_threads(threads)


class Shared(nn.Module):
    """One convolution under two batch norms: folding either would change the other."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(3)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm in self.norms:
            x = norm(self.conv(x))
        return x.mean((2, 3))


class Undecided(nn.Module):
    """Looks at its input: cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        return x.mean((2, 3)) if bool(x.sum() > 0) else x.amax((2, 3))


def hooked() -> nn.Module:
    network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Flatten())
    network[1].register_forward_hook(lambda module, given, found: found * 2)
    return network


class Counting(nn.Module):
    """Another answer every time, which a trace would freeze."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))
        self.asked = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        found: torch.Tensor = self.body(x).mean((2, 3)) * self.asked
        return found


class ByName(nn.Module):
    """Calls a layer by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.norm(input=self.conv(input=x)).mean((2, 3))
        return found


def test_a_layer_that_is_called_by_keyword_is_left_alone() -> None:
    network = ByName().eval()
    inference = Inference(network, compute("fp32"), InferenceConfig(), shape=SHAPE)
    pixels = compute("fp32").pixels(images(4))
    with torch.no_grad():
        torch.testing.assert_close(inference(pixels), network(pixels))


@pytest.mark.parametrize("network", [Shared(), Undecided(), hooked(), Counting()])
def test_what_cannot_be_folded_with_certainty_is_asked_as_it_is(network: nn.Module) -> None:
    inference = Inference(network, compute("fp32"), InferenceConfig(), shape=SHAPE)
    assert not inference.folded
    assert inference.network is network


def test_folding_removes_batch_norms_and_can_be_left_out() -> None:
    network = lived_in("resnet18")
    folded = fold(network)
    assert folded is not None
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    asked = Inference(network, compute("fp32"), InferenceConfig(fold=False), shape=SHAPE)
    assert asked.network is network
    assert not asked.form["folded"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
def test_a_compiled_network_answers_within_the_tolerance() -> None:
    settled = compute("fp32")
    pixels = settled.pixels(images(70))
    plain = Inference(lived_in("cnn"), settled, InferenceConfig(), shape=SHAPE)
    compiled = Inference(lived_in("cnn"), settled, InferenceConfig(compile=True), shape=SHAPE)
    expected = plain(pixels)
    spread = float(expected.max() - expected.min())
    assert float((compiled(pixels) - expected).abs().max()) <= FOLD_TOLERANCE * spread
    assert compiled.form["compiled"]
    # Code that another processor compiled into a shared folder is not taken.
    assert torch.backends.cpu.get_cpu_capability() in torch.compiler.config.cache_key_tag.split()


@pytest.mark.parametrize("wrong", [1e36, 1.0, math.nan])
def test_a_compiled_network_with_other_answers_is_refused(
    wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch 2.13 made one on a processor that was held to AVX2."""

    class Compiled(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            answers: torch.Tensor = self.network(pixels)
            return answers + wrong if len(pixels) == 1 else answers

    monkeypatch.setattr(torch, "compile", lambda network, dynamic: Compiled(network))
    made = Inference(lived_in("mlp"), compute("fp32"), InferenceConfig(compile=True), shape=SHAPE)
    pixels = compute("fp32").pixels(images(70))
    made(pixels)
    with pytest.raises(ConfigError, match=r"changes the answers.*Leave out --compile"):
        made.low_latency(pixels[:1])


def test_a_live_answer_is_what_would_be_stored() -> None:
    settled = compute("fp32")
    inference = Inference(lived_in("cnn"), settled, InferenceConfig(), shape=SHAPE)
    pixels = settled.pixels(images(5))
    for storage in ("exact", "fp16", "top-2"):
        source = live(inference, storage, classes=10)
        kept: Coding = source.coding
        answers = source.ask(pixels)
        assert kept.decode(kept.encode(answers.numpy())).tobytes() == answers.numpy().tobytes()
