"""Models that the command line names: runs, weights, files, functions and services."""

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

from cyclopts import Group, Parameter

from denature.answers.kinds import AnswerKind
from denature.cli.options import key_of
from denature.core.errors import ConfigError
from denature.core.names import library_of, own_module
from denature.core.record import RECORD
from denature.data.config import DataConfig
from denature.remote.config import RequestConfig

if TYPE_CHECKING:
    from denature.extract.victims.base import Victim
    from denature.train.run import Run

MODEL = Group("Model", sort_key=1)

WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".tar")
"""Suffixes of files that hold weights without their network."""


class ImageShape(NamedTuple):
    """Shape of the images that weights are asked about."""

    channels: int
    image_size: int


@dataclass(frozen=True, kw_only=True)
class WeightsOptions:
    """What weights without a record do not state themselves."""

    net: str | None = None
    """Network of a file of weights: a name from `denature nets`, timm:NAME, torchvision:NAME, or
    package.module:factory for a module of your own."""
    classes: int | None = None
    """Number of classes of these weights, where it does not follow from their shapes."""
    entry: str | None = None
    """Weights to take from a file that holds several sets, such as state_dict_ema."""
    mean: tuple[float, ...] = ()
    """Mean of each channel by which images are normalised, of images in [0, 1]."""
    std: tuple[float, ...] = ()
    """Standard deviation of each channel by which images are normalised."""


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(WeightsOptions):
    """The same for commands without data."""

    image_size: int = 32
    """Pixels a side of the images of a file of weights."""
    channels: int = 3
    """Channels of these images, for a module of your own; otherwise the weights say it."""

    def images(self) -> "ImageShape":
        return ImageShape(self.channels, self.image_size)


@dataclass(frozen=True, kw_only=True)
class ServedOptions(NetworkOptions):
    """The same, and what a function or a file does not state."""

    scale: float = 1.0
    """Largest number of what a function or a file takes: 255 in place of 1."""
    kind: AnswerKind | None = None
    """Kind of the answers of a function or a file; by default as their values look."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions(WeightsOptions):
    """The same, and what a service, a function or a file does not state."""

    scale: float = 1.0
    """Largest number of what a service, a function or a file takes: 255 in place of 1."""
    model: Annotated[str | None, Parameter(name=("--model", "--service-model"))] = None
    """Name of the server's model; by default the only model."""
    output: str | None = None
    """Name of the model's output; by default the only output."""
    kind: AnswerKind | None = None
    """Kind of the answers, where the server's metadata does not declare it."""
    key_file: Path | None = None
    """A file with the server's key; the environment variable DENATURE_KEY by default."""


NetworkFlags: TypeAlias = Annotated[NetworkOptions, Parameter(name="*", group=MODEL)]
ServedFlags: TypeAlias = Annotated[ServedOptions, Parameter(name="*", group=MODEL)]
ModelFlags: TypeAlias = Annotated[ModelOptions, Parameter(name="*", group=MODEL)]

OF_WEIGHTS = ("net", "classes", "entry", "mean", "std")
OF_LIBRARIES = ("mean", "std")
OF_OTHERS = ("scale", "mean", "std", "model", "output", "kind")


def open_models(
    names: Sequence[str],
    options: ModelOptions,
    *,
    images: Callable[[], ImageShape],
    pace: RequestConfig,
    trust: tuple[str, ...],
) -> "list[Run | Victim]":
    """Runs by their folders, weights as runs, and other models as victims.

    Args:
        names: see `denature.extract.victims.find.find` and `open_run`.
        options: what a model does not state itself.
        images: shape of the data's images, called for weights alone.
        pace: rate and retries of requests.
        trust: modules and files that may execute code.

    Raises:
        ConfigError: an option applies to none of the models.
    """
    _check_options(names, options)
    return [
        open_run(name, options, images=images, trust=trust)
        if is_network(name)
        else open_victim(name, options, images=images, pace=pace, trust=trust)
        for name in names
    ]


def open_victim(
    name: str,
    options: ModelOptions,
    *,
    images: Callable[[], ImageShape],
    top: int = 0,
    endpoint_url: str | None = None,
    values: Sequence[str] = (),
    pace: RequestConfig,
    trust: tuple[str, ...],
) -> "Victim":
    """Any model as a victim; a network answers in this process, without a wire.

    See `open_models` and `denature.extract.victims.find.find` for the arguments.
    """
    from denature.answers.scaling import PixelScale
    from denature.extract.victims.find import REKOGNITION, find

    _check_options([name], options, among=("net", "classes", "entry"))
    pixels = PixelScale(scale=options.scale, mean=options.mean, std=options.std)
    target, key = name, options.key_file is not None or is_url(name)
    if is_weights(name):
        pixels = PixelScale()
        target = str(open_run(name, options, images=images, trust=trust).folder)
    return find(
        target,
        model=options.model,
        output=options.output,
        kind=options.kind,
        top=top,
        key=key_of(options.key_file) if key else None,
        endpoint_url=endpoint_url,
        values=values if name == REKOGNITION else (),
        pixels=pixels,
        pace=pace,
        trust=trusted(options, trust),
    )


def images_of(data: DataConfig) -> Callable[[], ImageShape]:
    """Reads a data set for the shape of its images."""

    def shape() -> ImageShape:
        from denature.core.progress import SILENT
        from denature.data import load

        dataset = load(data, progress=SILENT)
        return ImageShape(dataset.channels, dataset.image_size)

    return shape


def open_run(
    name: str,
    options: WeightsOptions,
    *,
    images: Callable[[], ImageShape],
    trust: Collection[str] = (),
) -> "Run":
    """A network as a run: its folder, weights, or a model of a library.

    Weights become a run under runs/, named after their digest, as `denature import` makes it.

    Raises:
        ConfigError: the name is none of them, or the network of weights is not named.
        RunError: there is no such run, or the weights do not fit the network.
    """
    from denature.train.importing import import_published, import_run
    from denature.train.run import keep_run, load_run

    if not is_network(name):
        raise ConfigError(
            f"{name!r} is no network: wanted is a run's folder, a file of weights with --net, or "
            "hf:, timm: or torchvision:NAME."
        )
    normalised: dict[str, Any] = {"mean": options.mean or None, "std": options.std or None}
    if _is_published(name):
        folder = Path(name.removeprefix("hf:"))
        library = f"hf:{_relative(folder)}" if folder.is_dir() else name
        size = None if library.startswith("hf:") else images().image_size
        run = import_published(library, image_size=size, trust=trust, **normalised)
    elif is_weights(name):
        if options.net is None:
            raise ConfigError(
                f"{name} holds weights without their network. Name it with --net: an entry of "
                "`denature nets`, timm:NAME, torchvision:NAME or package.module:factory."
            )
        shape = images()
        run = import_run(
            options.net,
            name,
            classes=options.classes,
            # Of other networks the weights tell it.
            channels=shape.channels if own_module(options.net) else None,
            image_size=shape.image_size,
            entry=options.entry,
            **normalised,
        )
    else:
        return load_run(Path(name), trust=trust)
    net = re.sub(r"[^\w.-]+", "-", run.record.net.name).strip("-")
    folder = Path("runs") / f"imported-{net[-40:]}-{run.digest[:8]}"
    return keep_run(run, folder)


def trusted(options: WeightsOptions, trust: tuple[str, ...]) -> tuple[str, ...]:
    """Modules that may be imported: those named, and that of a network that was named."""
    module = None if options.net is None else own_module(options.net)
    return trust if module is None else (*trust, module)


def is_network(name: str) -> bool:
    """Whether a name is that of a network: a folder, which need not exist, or weights."""
    path = Path(name)
    return path.is_dir() or is_weights(name) or not (":" in name or path.suffix)


def is_weights(name: str) -> bool:
    """Whether a name is that of weights without a record: a file, or a model of a library."""
    path = Path(name)
    return _is_published(name) or (path.suffix in WEIGHTS and not path.is_dir())


def price_of(name: str, given: float | None) -> float | None:
    """Dollars for 1,000 queries: as given, or as the description of an HTTP API says."""
    from denature.extract.victims.find import REST

    if given is not None or Path(name).suffix != REST:
        return given
    from denature.extract.victims.rest.spec import read_spec

    return read_spec(Path(name)).price_per_1000


def is_url(name: str) -> bool:
    return re.match(r"https?://", name) is not None


def _relative(folder: Path) -> str:
    """A model's folder as a record may name it: from the working directory on."""
    path = Path(os.path.relpath(folder)).as_posix()
    return path if path.startswith("../") else f"./{path}"


def _is_published(name: str) -> bool:
    """Whether a name is a model of a library, or a folder that save_pretrained wrote."""
    folder = Path(name)
    if folder.is_dir():
        return (folder / "config.json").is_file() and not (folder / RECORD).exists()
    return name.partition(":")[0] in ("hf", "timm", "torchvision") and library_of(name) is not None


def _check_options(
    names: Sequence[str], options: ModelOptions, among: Collection[str] | None = None
) -> None:
    """Check that each option that was given, `among` these, describes one of the models.

    Raises:
        ConfigError: none of them can use it.
    """
    useful = {option for name in names for option in _options_of(name)}
    given = [
        field.name
        for field in fields(options)
        if (among is None or field.name in among) and getattr(options, field.name) != field.default
    ]
    if unused := [f"--{name.replace('_', '-')}" for name in given if name not in useful]:
        raise ConfigError(
            f"{names[0]} states what {' and '.join(unused)} would say; leave "
            f"{'it' if len(unused) == 1 else 'them'} out. The network of clones is --student."
            if unused == ["--net"]
            else f"{' and '.join(unused)} {'does' if len(unused) == 1 else 'do'} not apply to "
            f"{', '.join(names)}; leave {'it' if len(unused) == 1 else 'them'} out."
        )


def _options_of(name: str) -> Iterator[str]:
    if not is_network(name):
        yield from OF_OTHERS
        if is_url(name):
            yield "key_file"
    elif _is_published(name):
        yield from OF_LIBRARIES
    elif is_weights(name):
        yield from OF_WEIGHTS
