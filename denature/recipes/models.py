"""Models by name: runs, weights, files, functions and services."""

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from denature.answers.kinds import AnswerKind
from denature.core.errors import ConfigError
from denature.core.names import WEIGHT_SUFFIXES, library_of, own_module
from denature.core.record import RECORD, read_record
from denature.remote.config import RequestConfig
from denature.remote.key import key_of

if TYPE_CHECKING:
    from denature.extract.victims.base import Victim
    from denature.train.run import Run


class ImageShape(NamedTuple):
    """Shape of the images that weights are asked about."""

    channels: int
    image_size: int
    classes: int | None = None
    """Number of classes of their labels, if known."""


@dataclass(frozen=True, kw_only=True)
class WeightsOptions:
    """What weights without a record do not state themselves."""

    net: str | None = None
    """Network of a file of weights: a name from `denature nets`, timm:NAME, torchvision:NAME, or
    package.module:factory for a module of your own."""
    classes: int | None = None
    """Number of classes of these weights, where neither their shapes nor the data say it."""
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
    model: str | None = None
    """Name of the server's model; by default the only model."""
    output: str | None = None
    """Name of the model's output; by default the only output."""
    kind: AnswerKind | None = None
    """Kind of the answers, where the server's metadata does not declare it."""
    key_file: Path | None = None
    """A file with the server's key; the environment variable DENATURE_KEY by default."""


OF_WEIGHTS = ("net", "classes", "entry", "mean", "std")
OF_LIBRARIES = ("mean", "std")
OF_FUNCTIONS = ("scale", "mean", "std", "kind")
OF_OTHERS = (*OF_FUNCTIONS, "model", "output")


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

    See `open_run` and `denature.extract.victims.find.find` for the arguments.
    """
    from denature.answers.scaling import PixelScale
    from denature.extract.victims.find import REKOGNITION, find

    check_options({name: {*options_of(name)}}, options, among=("net", "classes", "entry"))
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

    check_network(name, options)
    normalised: dict[str, Any] = {"mean": options.mean or None, "std": options.std or None}
    if _is_published(name):
        folder = Path(name.removeprefix("hf:"))
        library = f"hf:{_relative(folder)}" if folder.is_dir() else name
        size = None if library.startswith("hf:") else images().image_size
        run = import_published(library, image_size=size, trust=trust, **normalised)
    elif is_weights(name):
        assert options.net is not None
        shape, own = images(), own_module(options.net) is not None
        run = import_run(
            options.net,
            name,
            # Of other networks the weights tell both.
            classes=options.classes or (shape.classes if own else None),
            channels=shape.channels if own else None,
            image_size=shape.image_size,
            entry=options.entry,
            **normalised,
        )
    else:
        return load_run(Path(name), trust=trust)
    net = re.sub(r"[^\w.-]+", "-", run.record.net.name).strip("-")
    folder = Path("runs") / f"imported-{net[-40:]}-{run.digest[:8]}"
    return keep_run(run, folder)


def check_network(name: str, options: WeightsOptions) -> None:
    """Check that there is such a network, before data are decoded for its shape.

    Raises:
        ConfigError: the name is none of a network, or the network of weights is not named.
        RunError: there is no such run, or no such file.
    """
    from denature.core.weights import check_there
    from denature.nets import check_name
    from denature.nets.published import check_backbone

    if not is_network(name):
        raise ConfigError(
            f"{name!r} is no network: wanted is a run's folder, a file of weights with --net, or "
            "hf:, timm: or torchvision:NAME."
        )
    if _is_published(name):
        if library_of(name) is not None:
            check_backbone(name)
    elif not is_weights(name):
        read_record(Path(name))
    elif options.net is None:
        raise ConfigError(
            f"{name} holds weights without their network. Name it with --net: an entry of "
            "`denature nets`, timm:NAME, torchvision:NAME or package.module:factory."
        )
    else:
        check_name(options.net)
        check_there(Path(name))


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
    return _is_published(name) or (path.suffix in WEIGHT_SUFFIXES and not path.is_dir())


def price_of(model: object, per_1000: float | None) -> float | None:
    """Dollars for 1,000 queries: as given, or as the description of an HTTP API says.

    Raises:
        ConfigError: the price is below 0, or not finite.
    """
    from denature.extract.asking.pricing import check_price
    from denature.extract.victims.find import REST

    if per_1000 is not None:
        check_price(per_1000)
        return per_1000
    if not isinstance(model, str | Path) or Path(model).suffix != REST:
        return None
    from denature.extract.victims.rest.spec import read_spec

    return read_spec(Path(model)).price_per_1000


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


def check_options(
    useful: Mapping[str, Collection[str]],
    options: WeightsOptions,
    among: Collection[str] | None = None,
) -> None:
    """Check that each option that was given, `among` these, describes one of the models.

    Args:
        useful: options that each model can use, by its name.
        options: as given.
        among: names of the options to check; by default all.

    Raises:
        ConfigError: none of the models can use an option.
    """
    given = [
        field.name
        for field in fields(options)
        if (among is None or field.name in among) and getattr(options, field.name) != field.default
    ]
    usable, names = {option for known in useful.values() for option in known}, [*useful]
    unused = [f"--{name.replace('_', '-')}" for name in given if name not in usable]
    if names and unused:
        raise ConfigError(
            f"{names[0]} states what {' and '.join(unused)} would say; leave "
            f"{'it' if len(unused) == 1 else 'them'} out. The network of clones is --student."
            if unused == ["--net"]
            else f"{' and '.join(unused)} {'does' if len(unused) == 1 else 'do'} not apply to "
            f"{', '.join(names)}; leave {'it' if len(unused) == 1 else 'them'} out."
        )


def options_of(name: str) -> Iterator[str]:
    """Options that can describe a model of this name."""
    if not is_network(name):
        yield from OF_OTHERS
        if is_url(name):
            yield "key_file"
    elif _is_published(name):
        yield from OF_LIBRARIES
    elif is_weights(name):
        yield from OF_WEIGHTS


def served_options_of(name: str) -> Collection[str]:
    """Options that can describe a served model of this name."""
    if not is_network(name):
        return (*OF_FUNCTIONS, "classes", "channels", "image_size")
    known = (*options_of(name),)
    return (*known, "channels", "image_size") if known else ()


def options_for(name: str, options: ModelOptions) -> ModelOptions:
    """The options that can describe a model of this name; those of another model are left out."""
    return ModelOptions(**{option: getattr(options, option) for option in options_of(name)})


def folder_of(backbone: str | None) -> Path | None:
    """A backbone's folder; None for a network of a library, or where no backbone is given."""
    return None if backbone is None or library_of(backbone) is not None else Path(backbone)
