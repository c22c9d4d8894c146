"""DetectFaces in the form of AWS Rekognition (JSON 1.1), between bytes and landmarks.

The network must have the five landmarks that the service names. No face is detected: each picture
counts as one, so the box, the confidence and the roll in an answer follow from the landmarks.
"""

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import orjson
from PIL import Image

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

FORMATS = ("JPEG", "PNG")

Points: TypeAlias = Mapping[str, tuple[float, float]]


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


def read(body: bytes) -> np.ndarray:
    """The picture in a request, uint8, height x width x 3.

    Raises:
        RekognitionError: the request is malformed, or its picture cannot be read.
    """
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise RekognitionError("SerializationException", "The body is not JSON.") from None
    image = request.get("Image") if isinstance(request, dict) else None
    if not isinstance(image, dict):
        raise RekognitionError("InvalidParameterException", "The request has no Image.")
    if image.get("S3Object") is not None:
        raise RekognitionError(
            "InvalidS3ObjectException", "This server does not read S3; send Image.Bytes."
        )
    coded = image.get("Bytes")
    if not isinstance(coded, str) or not coded:
        raise RekognitionError("InvalidParameterException", "Image has no Bytes.")
    try:
        data = base64.b64decode(coded, validate=True)
    except (binascii.Error, ValueError):
        raise RekognitionError("InvalidParameterException", "Image.Bytes is not base64.") from None
    if len(data) > LARGEST:
        raise RekognitionError(
            "ImageTooLargeException", f"The image has more than {LARGEST} bytes."
        )
    return _decoded(data)


def _decoded(data: bytes) -> np.ndarray:
    try:
        picture = open_image(data, formats=FORMATS, most_pixels=MOST_PIXELS)
        return np.asarray(picture.convert("RGB"))
    except TooManyPixels:
        raise RekognitionError(
            "ImageTooLargeException", f"The image has more than {MOST_PIXELS} pixels."
        ) from None
    except BadImage:
        raise RekognitionError(
            "InvalidImageFormatException", "The image is no JPEG or PNG that can be read."
        ) from None


def resized(picture: np.ndarray, *, channels: int, size: int) -> np.ndarray:
    """A picture in a network's input shape, stretched so that fractions of its sides stay valid."""
    array = to_array(Image.fromarray(picture), channels=channels, size=size, fit=True, stretch=True)
    assert array is not None
    return array[None]


def quality(picture: np.ndarray) -> dict[str, float]:
    """Brightness and sharpness from 0 to 100.

    Brightness is the mean luma. Sharpness is 100 s / (s + 10) for the standard deviation s of a
    Laplacian of the luma in grey levels, on a reduced picture so that sizes are comparable. The
    formula is denature's own, since the service does not publish its measure.
    """
    image = Image.fromarray(picture).convert("L")
    image.thumbnail((256, 256))
    grey = np.asarray(image, np.float32)
    brightness = float(grey.mean()) / 255 * 100
    if min(grey.shape) < 3:
        return {"Brightness": brightness, "Sharpness": 0.0}
    inner = grey[1:-1, 1:-1]
    edges = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    spread = float(edges.std())
    return {"Brightness": brightness, "Sharpness": 100 * spread / (spread + 10)}


def details(points: Points, picture: np.ndarray, decimals: int) -> dict[str, Any]:
    """The service's description of one face.

    Args:
        points: the five landmarks as fractions of the picture's sides.
        picture: uint8, height x width x 3.
        decimals: decimals that coordinates are rounded to; -1 for no rounding.
    """

    def rounded(value: float) -> float:
        return round(value, decimals) if decimals >= 0 else value

    xs, ys = zip(*points.values(), strict=True)
    # Five landmarks span about half of a face's width and a third of its height.
    centre_x, centre_y = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    width, height = 2.0 * (max(xs) - min(xs)), 3.0 * (max(ys) - min(ys))
    (left_x, left_y), (right_x, right_y) = points["eyeLeft"], points["eyeRight"]
    tall, wide = picture.shape[:2]
    roll = math.degrees(math.atan2((right_y - left_y) * tall, (right_x - left_x) * wide))
    return {
        "BoundingBox": {
            "Width": rounded(width),
            "Height": rounded(height),
            "Left": rounded(centre_x - width / 2),
            "Top": rounded(centre_y - height / 2),
        },
        "Landmarks": [
            {"Type": place, "X": rounded(points[place][0]), "Y": rounded(points[place][1])}
            for place in PLACES
        ],
        "Pose": {"Roll": roll, "Yaw": 0.0, "Pitch": 0.0},
        "Quality": quality(picture),
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
