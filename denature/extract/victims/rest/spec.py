"""The description of an HTTP API, as its TOML file says it."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, final, get_args, get_origin, get_type_hints

from denature.answers.kinds import AnswerKind
from denature.answers.scaling import PixelScale
from denature.core.errors import ConfigError, unknown
from denature.core.schema import check_fields, decode
from denature.core.untrusted import read_toml

Form: TypeAlias = Literal["json", "multipart", "bytes"]
ImageFormat: TypeAlias = Literal["png", "jpeg", "numbers"]
Layout: TypeAlias = Literal["HWC", "CHW", "HW", "flat"]

IMAGE, IMAGES, EACH = "$image", "$images", "$each"
"""In a JSON body: one image, the list of all, and at the head of a list what repeats for each."""

VARIABLE = re.compile(r"\$\{(\w+)\}")
"""A variable of the environment, in the URL and in headers."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSpec:
    """How an image is written."""

    format: ImageFormat = "png"
    """A file, in base64 where the body is JSON; or numbers."""
    quality: int = 95
    """Of JPEG files."""
    layout: Layout = "HWC"
    """Nesting of numbers; flat ones are in the order channels, height, width, and "HW" is the rows
    of a grey image."""
    scale: float = 255
    """Largest number: 255 gives whole ones, other values floats."""
    mean: tuple[float, ...] = ()
    """For each channel, of values in [0, 1]: what is subtracted before the division by `std`."""
    std: tuple[float, ...] = ()
    size: int | None = None
    """Pixels a side that the API takes; any by default."""
    channels: int | None = None
    """1 or 3; any by default."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            {
                "quality": (1 <= self.quality <= 100, "from 1 to 100"),
                "scale": (self.scale > 0, "above 0"),
                "size": (self.size is None or 1 <= self.size <= 4096, "from 1 to 4096"),
                "channels": (self.channels in (None, 1, 3), "1 or 3"),
            },
        )
        if self.layout == "HW" and self.takes != 1:
            raise ConfigError(
                f"image.layout is HW, rows of one number a pixel, and image.channels is "
                f"{self.channels}; write channels = 1, or layout = 'HWC' or 'CHW'."
            )
        _ = self.pixels

    @property
    def takes(self) -> int | None:
        """Channels of the images that the API takes; None where it takes any."""
        return 1 if self.channels is None and self.layout == "HW" else self.channels

    @property
    def pixels(self) -> PixelScale:
        """Numbers in place of pixels in [0, 1]."""
        return PixelScale(scale=1 if self.mean else self.scale, mean=self.mean, std=self.std)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class RequestSpec:
    """The body of a request."""

    form: Form = "json"
    body: str = f'{{"image": "{IMAGE}"}}'
    """JSON in which "$image" stands for an image and "$images" for all, and a list that begins
    with "$each" repeats its second element for each image."""
    file: str = "file"
    """Field of the image in a multipart body."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Other fields of a multipart body."""
    batch: int = 1
    """Images in a request at most."""

    def __post_init__(self) -> None:
        check_fields(self, {"batch": (1 <= self.batch <= 65_536, "from 1 to 65,536")})
        if self.batch > 1 and self.form != "json":
            raise ConfigError(f"A {self.form} body holds one image; leave batch out.")


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ReplySpec:
    """Where an answer stands in the JSON of a reply, as JSONPath (RFC 9535)."""

    each: str | None = None
    """Matches one part of the reply for each image; the other paths then start there."""
    scores: str | None = None
    """Matches the scores of an image, in the order of `classes` or beside `names`."""
    names: str | None = None
    """Matches the names of the classes that the scores belong to."""
    label: str | None = None
    """Matches one class, by its name or its number."""
    kind: AnswerKind | None = None
    """Kind of the scores; probabilities by default."""
    classes: tuple[str, ...] = ()
    """Names of all classes; needed where the reply has names."""

    def __post_init__(self) -> None:
        check_fields(self, {})
        if self.scores is None and self.label is None and self.names is None:
            raise ConfigError("reply names neither scores nor label; one path is needed.")
        if self.label is not None and self.scores is not None:
            raise ConfigError("reply names scores and label; leave one of them out.")
        if self.names is not None and not self.classes:
            raise ConfigError("reply.names needs reply.classes, the names of all classes.")
        if len(set(self.classes)) < len(self.classes):
            raise ConfigError("reply.classes names a class twice.")

    @property
    def shown(self) -> AnswerKind:
        """Kind of the answers."""
        return "label" if self.scores is None else self.kind or "probabilities"


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class RetrySpec:
    """Which replies are asked for again, and which cost nothing."""

    statuses: tuple[int, ...] = (429, 500, 502, 503, 504)
    free: tuple[int, ...] = (400, 401, 403, 404, 413, 415, 422, 429)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class RestSpec:
    """An HTTP API that answers images with JSON."""

    url: str
    """Address of a request; ${NAME} stands for a variable of the environment."""
    method: Literal["POST", "PUT", "GET"] = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    """Further headers; ${NAME} stands for a variable of the environment, such as a key."""
    image: ImageSpec = ImageSpec()
    request: RequestSpec = RequestSpec()
    reply: ReplySpec
    retry: RetrySpec = RetrySpec()
    price_per_1000: float | None = None
    """Dollars for 1,000 images."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            {
                "url": (self.url.startswith(("http://", "https://")), "a URL of http or https"),
                "price_per_1000": (
                    self.price_per_1000 is None or self.price_per_1000 >= 0,
                    "at least 0",
                ),
            },
        )
        if self.request.batch > 1 and self.reply.each is None:
            raise ConfigError(
                f"request.batch is {self.request.batch}, and reply.each does not say which part of "
                "a reply belongs to which image; add it, or leave batch out."
            )

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables of the environment that a request needs."""
        return tuple(
            dict.fromkeys(
                name
                for text in (self.url, *self.headers.values())
                for name in VARIABLE.findall(text)
            )
        )


def read_spec(path: Path) -> RestSpec:
    """The description in a TOML file.

    Raises:
        ConfigError: the file cannot be read, or has an unknown key or a value that does not fit.
    """
    try:
        plain = read_toml(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from None
    _check_keys(plain, RestSpec, path, "", [*_keys(RestSpec)])
    return decode(RestSpec, plain, where=str(path))


def _keys(kind: Any, at: str = "") -> Iterator[str]:
    """All keys of a description, with the tables before them: `image.layout`."""
    for each in fields(kind):
        yield f"{at}{each.name}"
        if is_dataclass(of := get_type_hints(kind)[each.name]):
            yield from _keys(of, f"{at}{each.name}.")


def _check_keys(
    plain: Mapping[str, Any], kind: Any, path: Path, at: str, every: Sequence[str]
) -> None:
    known = {each.name: get_type_hints(kind)[each.name] for each in fields(kind)}
    for key, value in plain.items():
        if key not in known:
            # The same key of another table, or else the nearest one of this table.
            same = [name for name in every if name.rpartition(".")[2] == key]
            if same:
                raise ConfigError(
                    f"{path}: There is no key '{at}{key}'. Did you mean {' or '.join(same)}?"
                )
            error = unknown("key", f"{at}{key}", [f"{at}{name}" for name in known])
            raise ConfigError(f"{path}: {error}")
        if is_dataclass(known[key]) and isinstance(value, dict):
            _check_keys(value, known[key], path, f"{at}{key}.", every)
        elif (choices := _choices(known[key])) and value not in choices:
            raise ConfigError(
                f"{path}: {at}{key} is {value!r}; it must be one of {', '.join(choices)}."
            )


def _choices(kind: Any) -> tuple[str, ...]:
    """The values that a field allows, where it is a choice, perhaps beside None."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return next(filter(None, map(_choices, get_args(kind))), ())


def secrets_of(spec: RestSpec) -> dict[str, str]:
    """The values of the environment's variables that a description names.

    Raises:
        ConfigError: one is not set.
    """
    missing = [name for name in spec.variables if not os.environ.get(name)]
    if missing:
        raise ConfigError(
            f"The environment does not set {', '.join(missing)}, which the description names. Set "
            f"it: export {missing[0]}=VALUE."
        )
    return {name: os.environ[name] for name in spec.variables}


def filled(text: str, values: Mapping[str, str]) -> str:
    """Text with its ${NAME} replaced."""
    return VARIABLE.sub(lambda found: values[found[1]], text)
