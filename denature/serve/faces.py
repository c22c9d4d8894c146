"""DetectFaces as AWS Rekognition answers it (JSON 1.1), between bytes and landmarks.

For a network that knows the five places that the service names. It looks for no faces: it takes
each picture for one, so the box, the confidence and the roll that it tells follow from the places.
"""

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import orjson
from PIL import Image

from denature.data.decode import BadImage, TooManyPixels, open_image, to_array
from denature.data.landmarks import PLACES
from denature.serve.refusal import Refused

TARGET = "RekognitionService.DetectFaces"

MEDIA_TYPE = "application/x-amz-json-1.1"

LARGEST = 5_242_880
"""Bytes of a picture in a request, as the service has it."""

LARGEST_BODY = LARGEST * 4 // 3 + (1 << 16)

MOST_PIXELS = 40_000_000
"""Of a picture: a small file can unpack to any number."""

FORMATS = ("JPEG", "PNG")

Points: TypeAlias = Mapping[str, tuple[float, float]]


class RekognitionError(Refused):
    """A request that is refused in the service's form, with the name of its exception."""

    def __init__(
        self, name: str, message: str, *, status: int = 400, retry_after: float | None = None
    ) -> None:
        super().__init__(status, message, retry_after=retry_after)
        self.name = name


def wrong(refused: Refused) -> RekognitionError:
    """A refusal of our own in the service's words."""
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
    """Whether a network with these outputs can answer."""
    return {f"{place}.{axis}" for place in PLACES for axis in "xy"} <= set(outputs)


def key_of(authorization: str) -> str:
    """The access key's id in a signed request, which stands for the caller's key here.

    The signature is not checked: whoever knows the id of a key knows the key.

    Raises:
        Wrong: there is none.
    """
    _, found, rest = authorization.partition("Credential=")
    key = rest.partition("/")[0]
    if not authorization.startswith("AWS4-HMAC-SHA256") or not found or not key:
        raise RekognitionError("AccessDeniedException", "The request names no access key.")
    return key


def read(body: bytes) -> np.ndarray:
    """The picture in a request, uint8, height x width x 3.

    Raises:
        Wrong: whatever is wrong with it.
    """
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise RekognitionError("SerializationException", "The body is no JSON.") from None
    image = request.get("Image") if isinstance(request, dict) else None
    if not isinstance(image, dict):
        raise RekognitionError("InvalidParameterException", "The request has no Image.")
    if image.get("S3Object") is not None:
        raise RekognitionError(
            "InvalidS3ObjectException", "This server reads no S3; send Image.Bytes."
        )
    coded = image.get("Bytes")
    if not isinstance(coded, str) or not coded:
        raise RekognitionError("InvalidParameterException", "Image has no Bytes.")
    try:
        data = base64.b64decode(coded, validate=True)
    except (binascii.Error, ValueError):
        raise RekognitionError("InvalidParameterException", "Image.Bytes is no base64.") from None
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
    """A picture as a network takes it: stretched, so that fractions of its sides stay."""
    array = to_array(Image.fromarray(picture), channels=channels, size=size, fit=True, stretch=True)
    assert array is not None
    return array[None]


def quality(picture: np.ndarray) -> dict[str, float]:
    """Brightness and sharpness from 0 to 100.

    Brightness is the mean luma. Sharpness is 100 s / (s + 10) for the standard deviation s of a
    Laplacian of the luma in grey levels, of pictures made small enough to be alike: ours, since how
    the service measures is not published.
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
    """What the service tells of one face.

    Args:
        points: the five places as fractions.
        picture: height x width x 3.
        decimals: that places are rounded to; -1 for all.
    """

    def told(value: float) -> float:
        return round(value, decimals) if decimals >= 0 else value

    xs, ys = zip(*points.values(), strict=True)
    # Five places span about half of a face's width and a third of its height.
    centre_x, centre_y = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    width, height = 2.0 * (max(xs) - min(xs)), 3.0 * (max(ys) - min(ys))
    (left_x, left_y), (right_x, right_y) = points["eyeLeft"], points["eyeRight"]
    tall, wide = picture.shape[:2]
    roll = math.degrees(math.atan2((right_y - left_y) * tall, (right_x - left_x) * wide))
    return {
        "BoundingBox": {
            "Width": told(width),
            "Height": told(height),
            "Left": told(centre_x - width / 2),
            "Top": told(centre_y - height / 2),
        },
        "Landmarks": [
            {"Type": place, "X": told(points[place][0]), "Y": told(points[place][1])}
            for place in PLACES
        ],
        "Pose": {"Roll": roll, "Yaw": 0.0, "Pitch": 0.0},
        "Quality": quality(picture),
        "Confidence": confidence(points),
    }


def confidence(points: Points) -> float:
    """How far five places look like a face: the share of what holds of every upright face."""
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
