"""Runs from weights of other programs: checkpoints, and models that libraries publish."""

import datetime
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from denature.core.errors import ConfigError
from denature.core.names import library_of, own_module
from denature.core.record import NetRecord, Record, environment
from denature.core.weights import digest, fit_weights, read_weights, unwrapped
from denature.nets import check_name, create, hub, libraries, outline_of, parameter_count
from denature.nets.normalize import Normalized, check_normalisation
from denature.train.hub import is_run, pull
from denature.train.identity import plan_id, plan_of
from denature.train.run import CLASS_NAMES, Run, keep_run, network_of

TRIED = (3, 5)
"""Numbers of classes of the two networks whose sizes of weights are compared."""


def import_run(
    net: str,
    weights: str | Path,
    *,
    classes: int | None = None,
    channels: int | None = None,
    image_size: int = 32,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    entry: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> Run:
    """Make a run from a file of weights that another program trained.

    The file may hold all of a catalogue network, or only its body, as other code saves it; then
    `mean` and `std` give the normalisation of its images. `entry` selects one of several sets of
    weights in a checkpoint. Numbers of classes and channels follow from the shapes of the weights,
    where they are not given; a network of the user's own, whose code is run to tell the classes,
    needs the channels where these are not three, and must give that number of logits.

    Raises:
        RunError: the weights cannot be read or do not fit.
        ConfigError: unknown network, a shape that the network cannot take, no number of classes,
            one of mean and std without the other, or both where the file contains its own.
    """
    began = time.time()
    path = Path(weights)
    tensors = read_weights(path, entry)
    found = Shape()
    if own_module(net) is not None:
        check_name(net)
        known = classes or _own_classes(net, tensors, channels or found.channels, image_size)
        found = Shape(known, outlined=False)
    elif None in (classes, channels):
        found = Shape.of(net, tensors, image_size)
    classes = found.classes if classes is None else classes
    if classes is None and found.outlined:
        classes = 2  # the weights are of another network, and the error lists how they differ
    if classes is None:
        raise ConfigError(
            f"The number of classes of {net} does not follow from {path}; say it with --classes."
        )
    shape = {"classes": classes, "channels": channels or found.channels, "image_size": image_size}
    network = create(net, **shape, mean=mean, std=std)
    _check_normalisation(network, net, mean, std)
    target = network
    if isinstance(network, Normalized):
        names = {*network.state_dict(), *network.body.state_dict()}
        tensors = unwrapped(tensors, names)
        if not {"mean", "std"} <= tensors.keys():
            target = network.body
        elif mean or std:
            raise ConfigError(f"{path} contains its own normalisation; leave out mean and std.")
    fit_weights(target, tensors, where=f"in {path}")
    if own_module(net) is not None:
        _check_outputs(network, net, **shape)
    given = {"weights": str(weights), "mean": mean, "std": std}
    given |= {} if entry is None else {"entry": entry}
    run = _run(network, net=net, shape=shape, given=given, began=began)
    return run if out is None else keep_run(run, Path(out), overwrite=overwrite)


def import_published(
    name: str,
    *,
    image_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    trust: Collection[str] = (),
    out: str | Path | None = None,
    overwrite: bool = False,
) -> Run:
    """Make a run from a model with weights that a library has, without executing anything in it.

    Args:
        name: `hf:owner/name` or `hf:FOLDER`, an image classifier of transformers with safetensors;
            `hf:owner/name` of a run that denature pushed; `timm:NAME` or `torchvision:NAME`, with
            the weights that the library fetches.
        image_size: pixels a side; by default what the model states.
        mean: of the images that the model was trained on, where the library states none.
        std: likewise.
        trust: modules that the record of a pushed run may name as its network's factory.
        out: folder of the run; in memory without it.
        overwrite: replace another run in that folder.

    Raises:
        ConfigError: no such model, or one that takes no square images.
        MissingExtra: the library is not installed.
        RunError: the weights do not fit the model's configuration.
    """
    began = time.time()
    _check_both(mean, std)
    named = library_of(name)
    if named is None:
        raise ConfigError(f"{name!r} names no library; wanted is hf:, timm: or torchvision:NAME.")
    if named[0] == "hf" and is_run(named[1]):
        if any(given is not None for given in (image_size, mean, std)):
            raise ConfigError(
                f"{name} is a run, which states the size and normalisation of its images; leave "
                "out image_size, mean and std."
            )
        return pull(named[1], trust=trust, out=out, overwrite=overwrite)
    size = image_size or hub.USUAL_SIDE
    classes, channels, names = None, 3, None
    if named[0] == "hf":
        about = hub.describe(named[1], fetch=True)
        size = image_size or about.image_size
        classes, channels, names = about.classes, about.channels, about.class_names
        if about.mean is None and mean is None:
            raise ConfigError(
                f"{name} has no {hub.PREPROCESSOR}, which says how images are normalised; pass "
                "--mean and --std, 0 and 1 where they are not."
            )
    tensors = libraries.published(*named, channels=channels, image_size=size)
    for key, values in (("mean", mean), ("std", std)):
        if values is not None:
            each = values * channels if len(values) == 1 else values
            check_normalisation(key, each, channels)
            tensors[key] = torch.tensor(each).reshape(-1, 1, 1).clone()
    classes = classes or Shape.of(name, tensors, size).classes
    assert classes is not None
    network = network_of(name, (classes, channels, size), tensors, where=f"of {name}")
    given: dict[str, Any] = {"weights": name, "mean": mean, "std": std}
    if names:
        given[CLASS_NAMES] = list(names)
    shape = {"classes": classes, "channels": channels, "image_size": size}
    run = _run(network, net=name, shape=shape, given=given, began=began)
    return run if out is None else keep_run(run, Path(out), overwrite=overwrite)


def _check_outputs(
    network: nn.Module, net: str, *, classes: int, channels: int, image_size: int
) -> None:
    """Let a network of the user's own answer one image."""
    image = torch.zeros(1, channels, image_size, image_size)
    try:
        with torch.inference_mode():
            answer = network.eval()(image)
    except Exception as error:  # a user's module may fail in any way
        raise ConfigError(
            f"{net} does not take an image of {channels}x{image_size}x{image_size}: {error}. "
            "Wanted is a module from images in [0, 1], batch x channels x height x width, to "
            "logits, batch x classes."
        ) from error
    found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
    if found != (1, classes):
        raise ConfigError(
            f"{net} answers one image with {found}; wanted are logits of shape (1, {classes}). "
            "Name another number of classes with --classes."
        )


@dataclass(frozen=True, slots=True)
class Shape:
    """Numbers of classes and channels that follow from the shapes of weights."""

    classes: int | None = None
    channels: int = 3
    outlined: bool = True
    """Whether the network can be outlined, which one of the user's own cannot."""

    @staticmethod
    def of(net: str, tensors: Mapping[str, Tensor], image_size: int) -> "Shape":
        """The shape of a network with these weights.

        Sizes of weights are linear in both numbers: two outlines of the network tell which sizes
        depend on which number, and how.

        Args:
            net: name of the network, which is not of the user's own.
            tensors: its weights, with or without prefixes of wrappers.
            image_size: pixels a side.
        """
        channels = _number(net, tensors, image_size, "channels", (1, 3))
        channels = channels if channels in (1, 3) else 3
        return Shape(_number(net, tensors, image_size, "classes", TRIED), channels)


def _own_classes(
    net: str, tensors: Mapping[str, Tensor], channels: int, image_size: int
) -> int | None:
    """Classes of a network of the user's own, whose factory may take their number or fix it."""

    def made(number: int) -> nn.Module:
        return create(net, classes=number, channels=channels, image_size=image_size)

    try:
        small, large = (made(number).state_dict() for number in TRIED)
        if (number := _fitting(tensors, small, large, TRIED)) is not None:
            return number
        with torch.inference_mode():
            answer = made(TRIED[0]).eval()(torch.zeros(1, channels, image_size, image_size))
        return int(answer.shape[1])
    except Exception:  # a user's module may fail in any way; then the number is to be given
        return None


def _number(
    net: str, tensors: Mapping[str, Tensor], image_size: int, what: str, tried: tuple[int, int]
) -> int | None:
    """The number of classes or channels; None where no size in the weights depends on it."""
    outlines = []
    for number in tried:
        shape = {"classes": 3, "channels": 3, "image_size": image_size, what: number}
        try:
            outline = outline_of(net, **shape)
        except ConfigError:  # torchvision has no networks for one channel
            if library_of(net) is None:
                raise
            return None
        if outline is None:
            return None
        body = outline.body if isinstance(outline, Normalized) else outline
        outlines.append(body.state_dict())
    small, large = outlines
    return _fitting(tensors, small, large, tried)


def _fitting(
    tensors: Mapping[str, Tensor],
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    tried: tuple[int, int],
) -> int | None:
    """The number at which a network has weights of these sizes, from its weights at two."""
    found = unwrapped(tensors, {*first, *(f"body.{name}" for name in first)})
    for name, low in first.items():
        tensor = found.get(name, found.get(f"body.{name}"))
        if tensor is None or tensor.is_nested or tensor.dim() != low.dim():
            continue
        for size, a, b in zip(tensor.shape, low.shape, second[name].shape, strict=True):
            slope, rest = divmod(b - a, tried[1] - tried[0])
            if slope and not rest and (size - a) % slope == 0:
                return int(tried[0] + (size - a) // slope)
    return None


def _run(
    network: nn.Module,
    *,
    net: str,
    shape: Mapping[str, int],
    given: Mapping[str, Any],
    began: float,
) -> Run:
    """A run in memory of a network with imported weights; `began` is a POSIX time."""
    if isinstance(network, Normalized):
        for name, values in (("mean", network.mean), ("std", network.std)):
            what = f"{name} of {given['weights']}"
            check_normalisation(what, values.flatten().tolist(), values.numel())
    network.eval()
    own_digest = digest(network)
    record = Record(
        kind="imported",
        id="",
        recipe="",
        net=NetRecord(
            name=net,
            parameters=parameter_count(network),
            initial=own_digest,
            digest=own_digest,
            **shape,
        ),
        data=None,
        given=dict(given),
        config={},
        accuracy=None,
        chosen_on="unknown",
        chosen_epoch=None,
        seconds=time.time() - began,
        images_per_second=None,
        started=datetime.datetime.fromtimestamp(began, datetime.UTC).isoformat(timespec="seconds"),
        environment=environment(),
    )
    plan = plan_of(record)
    return Run(replace(record, id=plan_id(plan), recipe=plan_id(plan)), network)


def _check_both(mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> None:
    if (mean is None) != (std is None):
        given, absent = ("mean", "std") if std is None else ("std", "mean")
        raise ConfigError(
            f"{given} is given and {absent} is not; wanted are both, or neither. Where images were "
            "only shifted std is 1, where they were only divided mean is 0, for each channel."
        )


def _check_normalisation(
    network: nn.Module, net: str, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> None:
    """Check that mean and std are given together, and that the network takes them.

    Raises:
        ConfigError: only one is given, or the network normalises its own input.
    """
    _check_both(mean, std)
    if (mean or std) and not isinstance(network, Normalized):
        raise ConfigError(f"{net} owns its normalisation; leave out mean and std.")
