"""From images to the body of a request."""

import base64
import io
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from denature.core.errors import ConfigError
from denature.core.untrusted import parse_json
from denature.extract.victims.rest.spec import EACH, IMAGE, IMAGES, ImageSpec, RequestSpec

JSON_TYPE = "application/json"


class Body(NamedTuple):
    """The body of a request and its content type."""

    content: bytes
    type: str


def check_template(request: RequestSpec) -> None:
    """Check that a JSON body says where images go.

    Raises:
        ConfigError: it is no JSON, or does not.
    """
    if request.form != "json":
        return
    try:
        template = parse_json(request.body)
    except ValueError as error:
        raise ConfigError(f"request.body is no JSON: {error}.") from None
    found = {place for place in _places(template) if place in (IMAGE, IMAGES, EACH)}
    if not found & {IMAGE, IMAGES}:
        raise ConfigError(f"request.body says nowhere where an image goes; write {IMAGE!r} there.")
    if _places(template).count(EACH) != _repeated(template):
        raise ConfigError(
            f"request.body has {EACH!r} in another place than the first of two elements of a list, "
            "the second of which repeats."
        )
    if request.batch > 1 and not found & {IMAGES, EACH}:
        raise ConfigError(
            f"request.body has room for one image, and batch is {request.batch}; write {IMAGES!r}, "
            f'or ["{EACH}", ...] for a list that repeats.'
        )


def _repeated(template: Any) -> int:
    """Number of lists whose second element repeats for each image."""
    inner = template.values() if isinstance(template, dict) else template
    if not isinstance(template, dict | list):
        return 0
    repeats = isinstance(template, list) and len(template) == 2 and template[0] == EACH
    return repeats + sum(map(_repeated, inner))


def _places(template: Any) -> list[str]:
    if isinstance(template, str):
        return [template]
    inner = template.values() if isinstance(template, dict) else template
    if not isinstance(template, dict | list):
        return []
    return [place for value in inner for place in _places(value)]


def body_of(images: np.ndarray, image: ImageSpec, request: RequestSpec) -> Body:
    """The body for images of uint8, batch x channels x height x width."""
    if request.form == "json":
        written = [_in_json(each, image) for each in images]
        return Body(json.dumps(_fill(parse_json(request.body), written)).encode(), JSON_TYPE)
    [one] = images
    content, kind = _file(one, image)
    if request.form == "bytes":
        return Body(content, kind)
    return _multipart(content, kind, request.file, request.fields)


def _fill(template: Any, images: Sequence[Any]) -> Any:
    if template == IMAGE:
        return images[0]
    if template == IMAGES:
        return list(images)
    if isinstance(template, dict):
        return {key: _fill(value, images) for key, value in template.items()}
    if isinstance(template, list):
        if len(template) == 2 and template[0] == EACH:
            return [_fill(template[1], [image]) for image in images]
        return [_fill(value, images) for value in template]
    return template


def _in_json(image: np.ndarray, spec: ImageSpec) -> Any:
    if spec.format != "numbers":
        return base64.b64encode(_file(image, spec)[0]).decode()
    return _numbers(image, spec).tolist()


def _numbers(image: np.ndarray, spec: ImageSpec) -> np.ndarray:
    if spec.scale == 255 and not spec.mean:
        return _laid_out(image, spec)
    return _laid_out(spec.pixels(image[None])[0].astype(np.float64).round(6), spec)


def _laid_out(values: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """Values of an image, channels x height x width, nested as the API takes them."""
    flat: np.ndarray = values.reshape(-1)
    rows: np.ndarray = values[0]
    nested = {"CHW": values, "HWC": values.transpose(1, 2, 0), "HW": rows, "flat": flat}
    return nested[spec.layout]


def _file(image: np.ndarray, spec: ImageSpec) -> tuple[bytes, str]:
    """A picture file and its type; numbers are written as JSON."""
    if spec.format == "numbers":
        return json.dumps(_numbers(image, spec).tolist()).encode(), JSON_TYPE
    from PIL import Image

    pixels = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    buffer = io.BytesIO()
    options = {"quality": spec.quality, "subsampling": 0} if spec.format == "jpeg" else {}
    Image.fromarray(pixels).save(buffer, spec.format, **options)
    return buffer.getvalue(), f"image/{spec.format}"


def _multipart(content: bytes, kind: str, file: str, fields: Mapping[str, str]) -> Body:
    boundary = secrets.token_hex(16)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    ending = kind.rpartition("/")[2]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(file)}"; '
        f'filename="image.{ending}"\r\nContent-Type: {kind}\r\n\r\n'
    )
    text = "".join(parts).encode()
    return Body(
        text + content + f"\r\n--{boundary}--\r\n".encode(),
        f"multipart/form-data; boundary={boundary}",
    )


def _quoted(name: str) -> str:
    """A field's name in a header, as browsers write it."""
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
