"""The client side of the Open Inference Protocol v2, between bytes and arrays.

No function here uses sockets. A server's reply is untrusted: its size, shape, type and numbers are
checked before they are used.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np

from denature.answers.kinds import AnswerKind
from denature.answers.scaling import PixelScale
from denature.core.errors import ConfigError
from denature.core.untrusted import check_cost
from denature.remote.class_names import read_names
from denature.remote.signature import RemoteSignature

LENGTH = "Inference-Header-Content-Length"

DType: TypeAlias = np.dtype[Any]

FLOATS: dict[str, DType] = {f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)}
WHOLES: dict[str, DType] = {
    f"{sign}INT{8 * size}": np.dtype(f"<{'u' if sign else 'i'}{size}")
    for sign in ("", "U")
    for size in (1, 2, 4, 8)
}
DTYPES = FLOATS | WHOLES

PIXELS = PixelScale()
"""Pixels in [0, 1]."""
NAMES: dict[DType, str] = {dtype: name for name, dtype in DTYPES.items()}

NUMBER_BYTES = 64
"""Bytes of a number in a reply at most, with a class's name beside it."""

MOST_CLASSES = 100_000
"""Numbers of an answer at most, as networks have here."""

MOST_SIDE = 4096
"""Pixels a side of an image at most, as networks take here."""

MOST_SIZES = 8
"""Dimensions of a tensor at most."""


def read_signature(
    described: object, output: str | None, *, kind: AnswerKind | None = None
) -> RemoteSignature:
    """The signature in a model's metadata.

    Args:
        described: metadata from the server.
        output: name of the output, where there are several.
        kind: kind of the answers, where the caller knows it.

    Raises:
        ConfigError: the model does not take images, or has several outputs and none was named.
    """
    model = table(described, "a model's description")
    inputs, outputs = _tensors(model, "inputs"), _tensors(model, "outputs")
    if not inputs:
        raise ConfigError(
            f"{model.get('name')} states no input; MLServer takes inputs and outputs in "
            "model-settings.json, other servers in the model's configuration."
        )
    if len(inputs) != 1 or len(inputs[0]["shape"]) != 4:
        raise ConfigError(
            f"{model.get('name')} takes {len(inputs)} inputs; wanted is one, of images: "
            "batch x channels x height x width."
        )
    [taken] = inputs
    if taken["datatype"] not in ("UINT8", *FLOATS):
        raise ConfigError(f"{model.get('name')} takes {taken['datatype']}, which are no pixels.")
    named = [tensor for tensor in outputs if output in (None, tensor["name"])]
    if len(named) != 1:
        available = ", ".join(tensor["name"] for tensor in outputs)
        raise ConfigError(
            f"{model.get('name')} has the outputs {available}; choose one with --output."
        )
    shape = tuple(taken["shape"][1:])
    if not all(size in (-1, *range(1, MOST_SIDE + 1)) for size in shape):
        raise ConfigError(
            f"{model.get('name')} takes images of {brief_shape(shape)}; wanted are channels, "
            f"height and width of at most {MOST_SIDE:,}."
        )
    last = shape[0] not in (1, 3) and shape[2] in (1, 3)
    [shown] = named
    size = shown["shape"][-1] if len(shown["shape"]) > 1 else 0
    if size > MOST_CLASSES:
        raise ConfigError(
            f"{model.get('name')} answers with {brief_shape(shown['shape'])} numbers; wanted are "
            f"at most {MOST_CLASSES:,} an image."
        )
    # Integers are classes also in the shape [-1, 1], which MLServer gives to every answer; a single
    # float may be a class or a score, and only the caller knows which.
    labels = shown["datatype"] in WHOLES or kind == "label"
    wide = size > 1 and shown["datatype"] in FLOATS and not labels
    names, unread = read_names((shown, model), size if wide else None)
    return RemoteSignature(
        input=taken["name"],
        datatype=taken["datatype"],
        shape=(shape[2], shape[0], shape[1]) if last else (shape[0], shape[1], shape[2]),
        channels_last=last,
        output=shown["name"],
        labels=labels,
        classes=size if wide else len(names) or None,
        names=names,
        unread=unread,
    )


def brief_shape(shape: Sequence[int]) -> str:
    return " x ".join(f"{size:.3g}" if abs(size) > 10**9 else str(size) for size in shape[:8])


class Address(NamedTuple):
    """A server, with the model and the version that a longer URL names."""

    url: str
    model: str | None = None
    version: str | None = None

    @staticmethod
    def of(url: str) -> "Address":
        """Parse a server's URL, or any URL of a model: its metadata, a version of it, `/infer`."""
        found = re.fullmatch(
            r"(.*?)(?:/v2(?:/models(?:/([^/]+)(?:/versions/([^/]+))?(?:/(?:infer|ready))?)?)?)?/*",
            url,
            re.DOTALL,
        )
        assert found is not None
        return Address(found[1], found[2], found[3])


def table(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"A JSON object was expected as {what}; is it an Open Inference server?")
    return value


def _tensors(model: dict[str, Any], key: str) -> list[dict[str, Any]]:
    tensors = model.get(key)
    good = isinstance(tensors, list) and all(
        isinstance(tensor, dict)
        and isinstance(tensor.get("name"), str)
        and isinstance(tensor.get("datatype"), str)
        and isinstance(tensor.get("shape"), list)
        and len(tensor["shape"]) <= MOST_SIZES
        and all(type(size) is int for size in tensor["shape"])
        for tensor in tensors
    )
    if not good:
        raise ConfigError(f"{model.get('name')} does not describe its {key}.")
    assert isinstance(tensors, list)
    return tensors


def wire_images(
    images: np.ndarray, signature: RemoteSignature, pixels: PixelScale = PIXELS
) -> np.ndarray:
    """Images of uint8, batch x channels x height x width, as a model takes them."""
    if signature.datatype != "UINT8":
        images = pixels(images)
    if signature.channels_last:
        images = images.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images, DTYPES[signature.datatype])


def request(
    images: np.ndarray, signature: RemoteSignature, *, id: str, binary: bool, top: int = 0
) -> tuple[bytes, dict[str, str]]:
    """The body of an inference request and its headers.

    Args:
        images: of a datatype that the model takes, and in its order of dimensions.
        signature: input and output of the model.
        id: identifier of the request.
        binary: whether tensors are sent and requested as bytes.
        top: number of largest values to request by the classification extension; 0 for all.
    """
    tensor: dict[str, Any] = {
        "name": signature.input,
        "shape": list(images.shape),
        "datatype": NAMES[images.dtype],
    }
    wanted: dict[str, Any] = {"name": signature.output, "parameters": {"binary_data": binary}}
    if top:
        wanted["parameters"]["classification"] = top
    head = {"id": id, "inputs": [tensor], "outputs": [wanted]}
    if not binary:
        tensor["data"] = images.reshape(-1).tolist()
        if not top:
            del wanted["parameters"]  # a server without binary tensors may reject them
        return msgspec.json.encode(head), {"Content-Type": "application/json"}
    data = images.tobytes()
    tensor["parameters"] = {"binary_data_size": len(data)}
    text = msgspec.json.encode(head)
    headers = {"Content-Type": "application/octet-stream", LENGTH: str(len(text))}
    return text + data, headers


def read_reply(
    body: bytes, length: str | None, signature: RemoteSignature, *, count: int
) -> np.ndarray:
    """The answers in a reply, as `Victim.ask` returns them.

    Raises:
        ValueError: the body is no reply to `count` images.
    """
    good = length is None or (length.isascii() and length.isdigit() and len(length) < 12)
    size = len(body) if length is None else int(length) if good else -1
    if not 0 <= size <= len(body):
        raise ValueError(f"{LENGTH} is {str(length)[:20]!r}")
    try:
        check_cost(body[:size])
        reply = msgspec.json.decode(body[:size])
    except msgspec.DecodeError as error:
        raise ValueError(f"no JSON ({error})") from None
    outputs = reply.get("outputs") if isinstance(reply, dict) else None
    found = [
        output
        for output in (outputs if isinstance(outputs, list) else [])
        if isinstance(output, dict) and output.get("name") == signature.output
    ]
    if len(found) != 1:
        raise ValueError(f"the output {signature.output} is not there exactly once")
    [tensor] = found
    shape, datatype = tensor.get("shape"), tensor.get("datatype")
    sizes = shape if isinstance(shape, list) and 0 < len(shape) <= MOST_SIZES else [-1]
    good = all(type(n) is int and n >= 0 for n in sizes) and isinstance(datatype, str)
    if not good or sizes[0] != count or math.prod(sizes) > count * MOST_CLASSES:
        raise ValueError(f"the shape {str(shape)[:80]} of {str(datatype)[:20]} for {count} images")
    shape = sizes
    values = _flat(tensor, body[size:], datatype, math.prod(shape))
    if datatype == "BYTES":
        return _largest(values, shape, signature.classes)
    array = np.asarray(values)
    if datatype in WHOLES or signature.labels:
        if array.size != count:
            raise ValueError(f"{array.size} labels for {count} images")
        if not (array == np.rint(array)).all():
            raise ValueError("labels that are no whole numbers")
        if array.min() < 0 or array.max() >= (signature.classes or MOST_CLASSES):
            raise ValueError("a label outside the classes")
        return array.reshape(count).astype(np.int64)
    array = array.reshape(count, -1).astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError("numbers that are not finite")
    return array


def _flat(tensor: Mapping[str, Any], tail: bytes, datatype: object, size: int) -> Any:
    """The values of a tensor in a flat row: an array, or a list of strings."""
    parameters = tensor.get("parameters")
    declared = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if datatype != "BYTES" and datatype not in DTYPES:
        raise ValueError(f"the datatype {str(datatype)[:32]!r}")
    if declared is not None:
        if declared != len(tail):
            raise ValueError(f"{len(tail)} bytes, where {declared!r} were declared")
        if datatype == "BYTES":
            return _strings(tail, size)
        dtype = DTYPES[str(datatype)]
        if len(tail) != size * dtype.itemsize:
            raise ValueError(f"{len(tail)} bytes for {size} numbers of {datatype}")
        return np.frombuffer(tail, dtype)
    values = tensor.get("data")
    while isinstance(values, list) and values and isinstance(values[0], list):
        if not all(isinstance(row, list) for row in values):
            raise ValueError("lists of different depths")
        values = [value for row in values for value in row]
    wanted = str if datatype == "BYTES" else (int, float)
    if not isinstance(values, list) or len(values) != size:
        raise ValueError(f"no {size} values")
    if not all(isinstance(value, wanted) and not isinstance(value, bool) for value in values):
        raise ValueError("values of another type than declared")
    return values if datatype == "BYTES" else np.array(values, np.float64)


def _strings(tail: bytes, count: int) -> list[str]:
    """Decode strings with their lengths before them."""
    found, at = [], 0
    for _ in range(count):
        size = int.from_bytes(tail[at : at + 4], "little")
        at += 4 + size
        if at > len(tail):
            raise ValueError("a string that is cut off")
        found.append(tail[at - size : at].decode("utf-8", "replace"))
    if at != len(tail):
        raise ValueError("more strings than declared")
    return found


def _largest(texts: Sequence[str], shape: Sequence[int], classes: int | None) -> np.ndarray:
    """`value:index:class` strings as rows, with NaN for values that were not shown."""
    places, values = [], []
    for text in texts:
        value, _, rest = text.partition(":")
        place = rest.partition(":")[0]
        try:
            values.append(float(value))
            places.append(int(place))
        except ValueError:
            raise ValueError(f"{text[:40]!r}, which is no value:index") from None
    count = shape[0]
    width = classes or max(places, default=-1) + 1
    if not all(0 <= place < min(width, MOST_CLASSES) for place in places):
        raise ValueError("an index outside the classes")
    if not all(map(math.isfinite, values)):
        raise ValueError("numbers that are not finite")
    rows = np.full((count, width), np.nan, np.float32)
    each = len(places) // count
    rows[np.arange(count).repeat(each), np.array(places, np.int64)] = values
    return rows
