"""The server side of the Open Inference Protocol, version 2 over REST, between bytes and arrays.

The form is that of KServe, Triton and MLServer, with Triton's extensions for binary tensors and for
classification. No function here uses sockets or networks. Any input bytes give either a valid
request or a `Refused`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import msgspec
import numpy as np
import orjson

from denature.remote.protocol import FLOATS, MOST_SIDE
from denature.serve.config import Exposure
from denature.serve.numbers import check_finite, check_range, read_numbers
from denature.serve.refusal import Refused

SERVER, EXTENSIONS = "denature", ("binary_tensor_data", "classification")

VERSION = "1"
"""Version of every model; another network is another model."""

INPUT = "images"

LENGTH = "Inference-Header-Content-Length"

DTYPES: Mapping[str, np.dtype[Any]] = {"UINT8": np.dtype(np.uint8), **FLOATS}

LONGEST_ID = 256

LONGEST_FIELD = 1 << 14
"""Bytes of a field's JSON at most, except the tensor's data."""

NULL = msgspec.Raw(b"null")


class _Input(msgspec.Struct):
    """The input tensor; its fields are text at first, so that nothing is built of it."""

    name: msgspec.Raw = NULL
    datatype: msgspec.Raw = NULL
    shape: msgspec.Raw = NULL
    parameters: msgspec.Raw = NULL
    data: msgspec.Raw = NULL


class _Body(msgspec.Struct):
    inputs: tuple[_Input]
    id: msgspec.Raw = NULL
    parameters: msgspec.Raw = NULL
    outputs: msgspec.Raw = NULL


_BODIES = msgspec.json.Decoder(_Body)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSignature:
    """Input and output of a model."""

    name: str
    shape: tuple[int, int, int]
    """Of one image: channels, height, width, or as another server takes it; -1 for any size."""
    classes: tuple[str, ...]
    """Names of the classes, or of the coordinates."""
    exposure: Exposure
    named: bool = True
    """Whether `classes` are names, and not the class numbers of an imported run."""
    input: str = INPUT
    """Name of the input tensor."""
    output: str | None = None
    """Name of the output tensor; by default the kind of the answers."""
    datatypes: tuple[str, ...] = ("UINT8", "FP32")
    """Accepted datatypes of the input; the metadata state the first."""
    pixels: bool = True
    """Whether the input must be pixels, 0 to 255 or in [0, 1]."""

    @property
    def shown(self) -> str:
        """Name of the output tensor."""
        return self.output or self.exposure.kind

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether an image may have this shape."""
        pairs = zip(shape, self.shape, strict=True)
        return all(
            size == wanted or (wanted < 0 and 1 <= size <= MOST_SIDE) for size, wanted in pairs
        )

    def describe(self) -> dict[str, Any]:
        """The model's metadata."""
        exposure, count = self.exposure, len(self.classes)
        kind = "INT64" if exposure.kind == "label" else "BYTES" if exposure.top else "FP32"
        shape = [-1] if exposure.kind == "label" else [-1, min(exposure.top or count, count)]
        output: dict[str, Any] = {"name": self.shown, "datatype": kind, "shape": shape}
        names: dict[str, Any] = {"parameters": {"names": list(self.classes)}} if self.named else {}
        if exposure.kind == "landmarks":  # names of coordinates belong to the output
            output, names = output | names, {}
        taken = {"name": self.input, "datatype": self.datatypes[0], "shape": [-1, *self.shape]}
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": "denature_pytorch",
            "inputs": [taken],
            "outputs": [output],
            **names,
        }


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceRequest:
    """A valid request."""

    images: np.ndarray
    """uint8 in 0..255 or float32 in [0, 1], batch x channels x height x width; or as a model of
    another server takes them."""
    id: str | None
    binary: bool
    """Whether the output is wanted as bytes."""
    top: int
    """Number of largest values wanted as strings; 0 for the plain output."""


def parse(
    body: bytes, length: str | None, signature: ModelSignature, *, max_images: int
) -> InferenceRequest:
    """Read an inference request.

    Args:
        body: JSON, with binary tensors behind it.
        length: the header with the length of the JSON; None where the whole body is JSON.
        signature: input and output of the model.
        max_images: images in one request at most.

    Raises:
        Refused: with 400, if the request is malformed.
    """
    head, tail = _divided(body, length)
    request = _read(head)
    id_ = _value(request, "id")
    if id_ is not None and not (isinstance(id_, str) and len(id_) <= LONGEST_ID):
        raise Refused(400, f"The id must be a string of at most {LONGEST_ID} characters.")
    images = _images(request.inputs[0], tail, signature, max_images)
    parameters = _dictionary(_value(request, "parameters", {}), "parameters")
    binary, top = _wanted(_value(request, "outputs"), parameters, signature)
    return InferenceRequest(images=images, id=id_, binary=binary, top=top)


def _read(head: bytes) -> _Body:
    """The fields of a request, as text."""
    try:
        return _BODIES.decode(head)
    except msgspec.ValidationError as error:
        if "inputs`" in str(error):
            raise Refused(400, f"inputs must be a list of one tensor, called {INPUT!r}.") from None
        what = "the input" if "inputs[" in str(error) else "the body"
        raise Refused(400, f"A JSON object was expected as {what}.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(400, f"The body is no JSON: {error}.") from None


def _value(fields: _Body | _Input, name: str, usual: object = None) -> Any:
    """The value of a field; clients that write out every field send null for a usual one."""
    text = bytes(getattr(fields, name))
    if len(text) > LONGEST_FIELD:
        raise Refused(400, f"{name} has {len(text)} bytes; at most {LONGEST_FIELD} are accepted.")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"The body is no JSON: {error}.") from None
    return usual if value is None else value


def _divided(body: bytes, length: str | None) -> tuple[bytes, memoryview]:
    """The JSON of a body, and the bytes behind it."""
    if length is None:
        return body, memoryview(b"")
    if not (length.isascii() and length.isdigit() and len(length) < 12):
        raise Refused(400, f"{LENGTH} must be a number of bytes.")
    count = int(length)
    if count > len(body):
        raise Refused(400, f"{LENGTH} is {count}, but the body has {len(body)} bytes.")
    return body[:count], memoryview(body)[count:]


def _dictionary(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused(400, f"A JSON object was expected as {what}.")
    return value


def _given(table: dict[str, Any], name: str, usual: object) -> Any:
    """An optional field; clients that write out every field send null for it."""
    value = table.get(name)
    return usual if value is None else value


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _images(
    tensor: _Input, tail: memoryview, signature: ModelSignature, max_images: int
) -> np.ndarray:
    if _value(tensor, "name") != signature.input:
        raise Refused(400, f"The input must be called {signature.input!r}.")
    datatype = _value(tensor, "datatype")
    if not isinstance(datatype, str) or datatype not in signature.datatypes:
        raise Refused(400, f"The datatype must be one of {', '.join(signature.datatypes)}.")
    shape = _value(tensor, "shape")
    if not isinstance(shape, list) or len(shape) != 4 or not all(map(_is_whole, shape)):
        raise Refused(400, "The shape must be a list of four whole numbers.")
    if not signature.takes(shape[1:]) or shape[0] < 1:
        wanted = ", ".join(map(str, signature.shape))
        raise Refused(400, f"The shape is {shape}; {signature.name} takes [-1, {wanted}]")
    if shape[0] > max_images:
        raise Refused(400, f"{shape[0]} images in one request; at most {max_images} are accepted.")
    dtype = DTYPES[datatype]
    parameters = _dictionary(_value(tensor, "parameters", {}), "the input's parameters")
    data = bytes(tensor.data)
    if (size := parameters.get("binary_data_size")) is not None:
        expected = math.prod(shape) * dtype.itemsize
        if not _is_whole(size) or size != expected or len(tail) != expected or data != b"null":
            raise Refused(
                400,
                f"{expected} bytes of {datatype} are wanted for the shape {shape}; declared are "
                f"{size if _is_whole(size) else 'none'}, and {len(tail)} follow the JSON.",
            )
        images = np.frombuffer(tail, dtype).reshape(shape)
        if signature.pixels:
            check_range(images, dtype)
        else:
            check_finite(images)
        return images
    if len(tail):
        raise Refused(400, f"{len(tail)} bytes follow the JSON, but no tensor declares them.")
    return read_numbers(data, shape, dtype, pixels=signature.pixels)


def _wanted(
    outputs: object, parameters: dict[str, Any], signature: ModelSignature
) -> tuple[bool, int]:
    """Whether bytes are wanted, and the number of largest values; 0 for the plain output."""
    exposure, classes = signature.exposure, len(signature.classes)
    binary = _flag(parameters, "binary_data_output")
    if outputs is None or outputs == []:
        return binary, min(exposure.top, classes)
    if not isinstance(outputs, list) or len(outputs) != 1:
        raise Refused(400, f"outputs must be a list of one, called {signature.shown!r}.")
    output = _dictionary(outputs[0], "the output")
    if output.get("name") != signature.shown:
        raise Refused(400, f"{signature.name} shows the output {signature.shown!r} and no other.")
    own = _dictionary(_given(output, "parameters", {}), "the output's parameters")
    if own.get("binary_data") is not None:
        binary = _flag(own, "binary_data")
    top = _given(own, "classification", 0)
    if not _is_whole(top) or top < 0:
        raise Refused(400, "classification must be a whole number, at least 0.")
    if top and exposure.kind == "label":
        raise Refused(400, f"{signature.name} shows labels only, without values to sort by.")
    most = min(exposure.top or classes, classes)
    return binary, min(top, most) or min(exposure.top, classes)


def _flag(parameters: dict[str, Any], name: str) -> bool:
    value = _given(parameters, name, False)
    if not isinstance(value, bool):
        raise Refused(400, f"{name} must be true or false.")
    return value


def render(
    values: np.ndarray, request: InferenceRequest, signature: ModelSignature
) -> tuple[bytes, str | None]:
    """The answer to a request: body, and the length of its JSON where bytes follow.

    Args:
        values: shown values of the images: float32 batch x classes, or int64 labels.
        request: the request.
        signature: input and output of the model.
    """
    output: dict[str, Any] = {"name": signature.shown}
    raw: bytes | None = None
    if request.top:
        strings = _largest(values, request.top, signature)
        output |= {"datatype": "BYTES", "shape": [len(values), request.top]}
        if request.binary:
            encoded = (text.encode() for text in strings)
            raw = b"".join(len(text).to_bytes(4, "little") + text for text in encoded)
        else:
            output["data"] = strings
    else:
        datatype = "INT64" if values.dtype.kind == "i" else "FP32"
        output |= {"datatype": datatype, "shape": list(values.shape)}
        if request.binary:
            raw = values.astype(values.dtype.newbyteorder("<")).tobytes()
        else:
            output["data"] = np.ascontiguousarray(values).reshape(-1)
    if raw is not None:
        output["parameters"] = {"binary_data_size": len(raw)}
    answer: dict[str, Any] = {"model_name": signature.name, "model_version": VERSION}
    if request.id is not None:
        answer["id"] = request.id
    head = orjson.dumps({**answer, "outputs": [output]}, option=orjson.OPT_SERIALIZE_NUMPY)
    return (head, None) if raw is None else (head + raw, str(len(head)))


def _largest(values: np.ndarray, top: int, signature: ModelSignature) -> list[str]:
    """Triton's classification strings, largest value first; ties keep the order of the classes."""
    order = np.argsort(-values, axis=1, kind="stable")[:, :top]
    return [
        f"{values[row, place]!s}:{place}:{signature.classes[place]}"
        for row, places in enumerate(order)
        for place in places
    ]
