"""DetectFaces in the form of AWS Rekognition (JSON 1.1), between bytes and landmarks.

The network must have the five landmarks that the service names. No face is detected: each picture
counts as one, so the box, the confidence and the roll in an answer follow from the landmarks.
"""

import base64
import binascii
import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
from PIL import Image

from denature.core.memory import give_back_freed_memory
from denature.data.decode import to_array
from denature.data.landmarks import PLACES
from denature.data.pictures import BadImage, TooManyPixels, open_image
from denature.serve.refusal import Refused

TARGET = "RekognitionService.DetectFaces"

MEDIA_TYPE = "application/x-amz-json-1.1"

LARGEST = 5_242_880
"""Bytes of a picture in a request at most, as at the service."""

LARGEST_BODY = LARGEST * 4 // 3 + (1 << 16)

MOST_PIXELS = 40_000_000
"""Pixels of a picture at most, since a small file can decompress to any number."""

SMALL_PIXELS = 4_000_000
"""Pixels from which pictures are decoded one after another: their buffers take some 10 bytes each,
and are given back to the system at once."""

FORMATS = ("JPEG", "PNG")

_one_large = threading.Lock()

Points: TypeAlias = Mapping[str, tuple[float, float]]


class _Image(msgspec.Struct):
    Bytes: msgspec.Raw = msgspec.Raw(b"null")
    S3Object: msgspec.Raw = msgspec.Raw(b"null")


class _Request(msgspec.Struct):
    Image: _Image


_REQUESTS = msgspec.json.Decoder(_Request)


class PendingPicture(NamedTuple):
    """What is kept of a picture while the network answers."""

    image: np.ndarray
    """uint8, 1 x channels x size x size: stretched, so that fractions of its sides stay valid."""
    width: int
    height: int
    quality: dict[str, float]


class RekognitionError(Refused):
    """A refusal in the service's form, with the name of the service's exception."""

    def __init__(
        self, name: str, message: str, *, status: int = 400, retry_after: float | None = None
    ) -> None:
        super().__init__(status, message, retry_after=retry_after)
        self.name = name


def wrong(refused: Refused) -> RekognitionError:
    """A refusal of this server as an exception of the service."""
    if isinstance(refused, RekognitionError):
        return refused
    names = {
        401: "AccessDeniedException",
        413: "ImageTooLargeException",
        429: "ThrottlingException",
        503: "ProvisionedThroughputExceededException",
    }
    name = names.get(refused.status, "InvalidParameterException")
    if refused.status == 429 and "budget" in str(refused):
        name = "ProvisionedThroughputExceededException"
    return RekognitionError(name, str(refused), retry_after=refused.retry_after)


def knows_faces(outputs: Sequence[str]) -> bool:
    """Whether these outputs of a network include the five landmarks."""
    return {f"{place}.{axis}" for place in PLACES for axis in "xy"} <= set(outputs)


def key_of(authorization: str) -> str:
    """The id of the access key in a signed request, which serves as the caller's key.

    The signature is not checked, so the id alone gives access.

    Raises:
        RekognitionError: the request has no access key.
    """
    _, found, rest = authorization.partition("Credential=")
    key = rest.partition("/")[0]
    if not authorization.startswith("AWS4-HMAC-SHA256") or not found or not key:
        raise RekognitionError("AccessDeniedException", "The request names no access key.")
    return key


def read(body: bytes, *, channels: int, size: int) -> PendingPicture:
    """The picture in a request, in a network's input shape.

    Its header and the number of its pixels are checked before it is decoded.

    Args:
        body: JSON of the service.
        channels: 1 or 3.
        size: pixels a side of the network's input.

    Raises:
        RekognitionError: the request is malformed, or its picture cannot be read.
    """
    data = _data(body)
    try:
        return _decoded(data, channels, size, most_pixels=SMALL_PIXELS)
    except TooManyPixels:
        pass
    try:
        with _one_large:
            return _decoded(data, channels, size, most_pixels=MOST_PIXELS)
    except TooManyPixels:
        raise RekognitionError(
            "ImageTooLargeException", f"The image has more than {MOST_PIXELS} pixels."
        ) from None
    finally:
        give_back_freed_memory()


def _data(body: bytes) -> bytes:
    """The bytes of the picture in a request."""
    try:
        image = _REQUESTS.decode(body).Image
    except msgspec.ValidationError:
        raise RekognitionError("InvalidParameterException", "The request has no Image.") from None
    except (msgspec.DecodeError, RecursionError):
        raise RekognitionError("SerializationException", "The body is not JSON.") from None
    if bytes(image.S3Object) != b"null":
        raise RekognitionError(
            "InvalidS3ObjectException", "This server does not read S3; send Image.Bytes."
        )
    coded = memoryview(image.Bytes)
    if len(coded) <= 2 or coded[0] != ord('"'):
        raise RekognitionError("InvalidParameterException", "Image has no Bytes.")
    try:
        data = base64.b64decode(coded[1:-1], validate=True)
    except (binascii.Error, ValueError):
        raise RekognitionError("InvalidParameterException", "Image.Bytes is not base64.") from None
    if len(data) > LARGEST:
        raise RekognitionError(
            "ImageTooLargeException", f"The image has more than {LARGEST} bytes."
        )
    return data


def _decoded(data: bytes, channels: int, size: int, *, most_pixels: int) -> PendingPicture:
    """The picture of a file, which is not kept in its own size.

    Raises:
        TooManyPixels: before anything was decoded.
        RekognitionError: the file cannot be read.
    """
    try:
        return shrunk(open_image(data, formats=FORMATS, most_pixels=most_pixels), channels, size)
    except TooManyPixels:
        raise
    except BadImage:
        raise RekognitionError(
            "InvalidImageFormatException", "The image is no JPEG or PNG that can be read."
        ) from None


def shrunk(picture: Image.Image, channels: int, size: int) -> PendingPicture:
    """A picture of any size and mode in a network's input shape."""
    colours = picture.convert("RGB")
    array = to_array(colours, channels=channels, size=size, fit=True, stretch=True)
    assert array is not None
    return PendingPicture(array[None], *colours.size, quality(colours))


def quality(picture: Image.Image) -> dict[str, float]:
    """Brightness and sharpness from 0 to 100.

    Brightness is the mean luma. Sharpness is 100 s / (s + 10) for the standard deviation s of a
    Laplacian of the luma in grey levels, on a reduced picture so that sizes are comparable. The
    formula is denature's own, since the service does not publish its measure.
    """
    image = picture.convert("L")
    image.thumbnail((256, 256))
    grey = np.asarray(image, np.float32)
    brightness = float(grey.mean()) / 255 * 100
    if min(grey.shape) < 3:
        return {"Brightness": brightness, "Sharpness": 0.0}
    inner = grey[1:-1, 1:-1]
    edges = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    spread = float(edges.std())
    return {"Brightness": brightness, "Sharpness": 100 * spread / (spread + 10)}


def details(points: Points, picture: PendingPicture, decimals: int | None) -> dict[str, Any]:
    """The service's description of one face.

    Box, roll and confidence follow from the rounded landmarks, or they would tell the others.

    Args:
        points: the five landmarks as fractions of the picture's sides.
        picture: the picture that they lie in.
        decimals: decimals that coordinates are rounded to; None for no rounding.
    """

    def rounded(value: float) -> float:
        return value if decimals is None else round(value, decimals)

    points = {place: (rounded(x), rounded(y)) for place, (x, y) in points.items()}
    xs, ys = zip(*points.values(), strict=True)
    # Five landmarks span about half of a face's width and a third of its height.
    centre_x, centre_y = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    width, height = 2.0 * (max(xs) - min(xs)), 3.0 * (max(ys) - min(ys))
    (left_x, left_y), (right_x, right_y) = points["eyeLeft"], points["eyeRight"]
    rise, run = (right_y - left_y) * picture.height, (right_x - left_x) * picture.width
    roll = math.degrees(math.atan2(rise, run))
    return {
        "BoundingBox": {
            "Width": rounded(width),
            "Height": rounded(height),
            "Left": rounded(centre_x - width / 2),
            "Top": rounded(centre_y - height / 2),
        },
        "Landmarks": [
            {"Type": place, "X": points[place][0], "Y": points[place][1]} for place in PLACES
        ],
        "Pose": {"Roll": roll, "Yaw": 0.0, "Pitch": 0.0},
        "Quality": picture.quality,
        "Confidence": confidence(points),
    }


def confidence(points: Points) -> float:
    """Percentage of the properties of an upright face that hold for five landmarks."""
    left, right, nose = points["eyeLeft"], points["eyeRight"], points["nose"]
    mouth = (points["mouthLeft"], points["mouthRight"])
    holds = [
        left[0] < right[0],
        mouth[0][0] < mouth[1][0],
        max(left[1], right[1]) < nose[1],
        nose[1] < min(mouth[0][1], mouth[1][1]),
        all(0 <= value <= 1 for point in points.values() for value in point),
    ]
    return 100 * sum(holds) / len(holds)
