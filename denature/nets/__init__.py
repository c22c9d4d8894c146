"""Networks: plain torch modules from images in [0, 1] to logits, and the catalogue of their names.

A name is an entry of `NETS`, optionally with options, as in `cnn@width=64`; a network of a library,
as in `timm:resnet26`; or `package.module:factory` for a module of the user's own, which is called
with those of `classes`, `channels` and `image_size` that it has parameters for, and owns its
normalisation.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from denature.core.errors import ConfigError, unknown
from denature.core.names import import_named, library_of, own_module, with_options
from denature.nets import libraries
from denature.nets.cnn import CNN
from denature.nets.densenet import densenet121
from denature.nets.mlp import MLP
from denature.nets.mobilenetv2 import MobileNetV2
from denature.nets.normalize import Normalized, check_normalisation
from denature.nets.papernot import Papernot
from denature.nets.resnet import resnet18, resnet34, resnet50
from denature.nets.resnetc import resnetc20, resnetc32, resnetc44, resnetc56, resnetc110
from denature.nets.resnext import ResNeXt29
from denature.nets.sepcnn import SepCNN
from denature.nets.shufflenetv2 import ShuffleNetV2

INITIALISERS = {"normal_", "uniform_", "fill_", "zero_", "bernoulli_", "exponential_"}
"""Methods of tensors that set values in place."""

Factory: TypeAlias = Callable[..., nn.Module]


@dataclass(frozen=True, slots=True)
class Net:
    """One entry of the catalogue."""

    factory: Factory
    about: str
    minimum: int = 8
    """Smallest image side that the network takes, in pixels."""
    optimizer: str = "sgd"
    """Optimizer that `auto` stands for, as in the paper."""
    options: Mapping[str, "Option"] = field(default_factory=dict)
    """Options that may follow the name."""


@dataclass(frozen=True, slots=True)
class Option:
    """A number that a factory takes besides the shape."""

    kind: type[int] | type[float]
    low: float
    high: float


CELLS = {"cells": Option(int, 1, 16)}
"""Of networks that average their last maps: the parts along a side that are averaged apart."""

NETS: Mapping[str, Net] = {
    "mlp": Net(MLP, "two hidden layers of 512", minimum=1, optimizer="adam"),
    "cnn": Net(
        CNN,
        "five layers: convolutions of 32, 64, 128 and two linear",
        optimizer="adam",
        options={"width": Option(int, 1, 4096), "dropout": Option(float, 0, 0.99)},
    ),
    "sepcnn": Net(
        SepCNN,
        "four separable convolutions of 32 to 256 and two linear",
        optimizer="adam",
        options={"width": Option(int, 1, 4096)},
    ),
    "papernot": Net(
        Papernot,
        "of defensive distillation: convolutions of 64, 64, 128, 128 and three linear",
        optimizer="adam",
        options={"padding": Option(int, 0, 1), "dropout": Option(float, 0, 0.99)},
    ),
    "resnetc20": Net(
        resnetc20, "pre-activation ResNet for CIFAR, 20 layers of 16, 32, 64", options=CELLS
    ),
    "resnetc32": Net(
        resnetc32, "pre-activation ResNet for CIFAR, 32 layers of 16, 32, 64", options=CELLS
    ),
    "resnetc44": Net(resnetc44, "the same with bottlenecks, 21 blocks", options=CELLS),
    "resnetc56": Net(resnetc56, "the same with bottlenecks, 27 blocks", options=CELLS),
    "resnetc110": Net(resnetc110, "the same with bottlenecks, 54 blocks", options=CELLS),
    "resnet18": Net(resnet18, "ResNet-18 with a 3x3 stem, 64 to 512 channels", options=CELLS),
    "resnet34": Net(resnet34, "ResNet-34 with a 3x3 stem, 64 to 512 channels", options=CELLS),
    "resnet50": Net(resnet50, "ResNet-50 with a 3x3 stem, 256 to 2048 channels", options=CELLS),
    "resnext29": Net(ResNeXt29, "ResNeXt-29, 8 groups, widened 4 times"),
    "mobilenetv2": Net(MobileNetV2, "MobileNetV2 for small images"),
    "shufflenetv2": Net(ShuffleNetV2, "ShuffleNetV2 1x for small images"),
    "densenet121": Net(densenet121, "DenseNet-121 with a 3x3 stem, growth 32"),
}


def create(
    name: str,
    *,
    classes: int,
    channels: int = 3,
    image_size: int = 32,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> nn.Module:
    """Build a network by name, with random weights from torch's global generator.

    Args:
        name: an entry of `NETS`, optionally with options; `timm:NAME` or `torchvision:NAME`; or
            `package.module:factory`, which imports that module.
        classes: number of logits.
        channels: 1 or 3.
        image_size: side of the square images, in pixels.
        mean: per channel, subtracted inside the network; not for modules of the user's own.
        std: per channel, divided by inside the network; not for modules of the user's own.

    Raises:
        ConfigError: unknown name or option, or a shape that the network cannot take.
        MissingExtra: the named library is not installed.
    """
    if not 2 <= classes <= 100_000 or channels not in (1, 3) or not 1 <= image_size <= 4096:
        raise ConfigError(
            f"A network for {classes} classes and {channels} channels of {image_size} pixels a "
            "side was requested; wanted are 2 to 100,000 classes, 1 or 3 channels and 1 to 4096 "
            "pixels."
        )
    if own_module(name) is not None:
        return _own(name, classes=classes, channels=channels, image_size=image_size)
    for what, values in (("mean", mean), ("std", std)):
        if values is not None:
            check_normalisation(what, values, channels)
    if (named := library_of(name)) is not None:
        body = libraries.create(*named, classes=classes, channels=channels, image_size=image_size)
    else:
        body = _listed(name, classes=classes, channels=channels, image_size=image_size)
    return Normalized(body, mean=mean or (0.0,) * channels, std=std or (1.0,) * channels)


class _NoValues(TorchFunctionMode):
    """Leaves out initial values of weights, for which the device meta loads code for seconds."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") in INITIALISERS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def outline_of(name: str, *, classes: int, channels: int, image_size: int) -> nn.Module | None:
    """A network on the device meta, where weights have shapes and take no memory.

    Returns:
        The network; None where its code is the user's own, or a library's that needs memory.

    Raises:
        ConfigError: see `create`.
    """
    if own_module(name) is not None:
        return None
    try:
        with torch.device("meta"), _NoValues():
            return create(name, classes=classes, channels=channels, image_size=image_size)
    except ConfigError:
        if library_of(name) is None:
            raise
        return None


def check_name(name: str) -> None:
    """Check that there is such a network, before the shape of its images is known.

    A module of the user's own is imported, and not called.

    Raises:
        ConfigError: unknown name or option.
        MissingExtra: the named library is not installed.
    """
    if own_module(name) is not None:
        _imported(name)
    elif (named := library_of(name)) is not None:
        libraries.check_name(*named)
    else:
        _entry(name)


def optimizer_for(name: str) -> str:
    """Optimizer that `auto` stands for; adam for networks outside the catalogue."""
    net = NETS.get(with_options(name)[0])
    return "adam" if net is None else net.optimizer


def _listed(name: str, *, classes: int, channels: int, image_size: int) -> nn.Module:
    net, options = _entry(name)
    if image_size < net.minimum:
        raise ConfigError(
            f"{with_options(name)[0]} takes images of {net.minimum} pixels a side and more, these "
            f"have {image_size}. Pass --image-size {net.minimum} to enlarge them."
        )
    return net.factory(classes=classes, channels=channels, image_size=image_size, **options)


def _entry(name: str) -> tuple[Net, dict[str, int | float]]:
    """An entry of the catalogue, and the options behind its name."""
    base, given = with_options(name)
    if base not in NETS:
        own = "A class or factory of your own is named package.module:name."
        raise ConfigError(f"{unknown('network', base, NETS)} {own}")
    net = NETS[base]
    options: dict[str, int | float] = {}
    for key, text in given.items():
        if key not in net.options:
            raise unknown(f"option of {base}", key, net.options)
        option = net.options[key]
        try:
            options[key] = option.kind(text)
        except ValueError:
            options[key] = math.nan
        if not option.low <= options[key] <= option.high:
            raise ConfigError(
                f"{name}: {key} is {text}; wanted is {option.kind.__name__} from {option.low:g} to "
                f"{option.high:g}."
            )
    return net, options


def _imported(name: str) -> Factory:
    """The user's own factory; called only with a name that the user gave or trusts."""
    try:
        found: Factory = import_named(name)
    except Exception as error:  # a user's module may fail in any way
        raise ConfigError(
            f"The network {name!r} cannot be imported: {error}. Wanted is package.module:factory, "
            "importable from here; factory(classes=, channels=, image_size=) must return a module, "
            "and may leave parameters out."
        ) from error
    return found


def _own(name: str, **shape: int) -> nn.Module:
    factory = _imported(name)
    given = _taken(factory, shape)
    try:
        network = factory(**given)
    except Exception as error:
        raise ConfigError(
            f"The network {name!r} cannot be built: {error}. The factory was called with "
            f"{', '.join(f'{key}={value}' for key, value in given.items()) or 'no argument'}; of "
            f"{', '.join(shape)} it gets those that it names as parameters."
        ) from error
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{name} returned {type(network).__name__}, wanted is a torch module.")
    return network


def _taken(factory: Callable[..., Any], shape: Mapping[str, int]) -> dict[str, int]:
    """The arguments that a factory has parameters for; a network of one shape has none."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # of code that is not Python
        return dict(shape)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(shape)
    return {key: value for key, value in shape.items() if key in parameters}


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


__all__ = ["NETS", "Net", "check_name", "create", "optimizer_for", "outline_of", "parameter_count"]
