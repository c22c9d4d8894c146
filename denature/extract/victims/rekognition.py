"""Face landmarks by AWS Rekognition through boto3: the service itself, or a compatible server.

Credentials are boto3's usual ones. Its hidden retries are switched off, because each would be
billed and counted nowhere.
"""

import asyncio
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, final

import numpy as np
from PIL import Image

from denature.core.errors import ConfigError, needs, unknown
from denature.data.landmarks import PLACES
from denature.extract.config import RequestConfig
from denature.extract.victims.base import AskFailed, VictimInfo, retry_after

with needs("rekognition", "Querying Rekognition"):
    import boto3
    import urllib3
    from botocore.config import Config
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectTimeoutError,
        EndpointConnectionError,
        HTTPClientError,
        NoCredentialsError,
        NoRegionError,
        PartialCredentialsError,
    )

LARGEST_REPLY = 4 << 20
"""Bytes of a reply at most: a description of a hundred faces has fewer."""

QUALITIES = ("brightness", "sharpness")

BUSY = (
    "ThrottlingException",
    "ProvisionedThroughputExceededException",
    "LimitExceededException",
    "RequestLimitExceeded",
)
"""Errors of a request that was rejected unbilled, and may be sent again."""

NO_ENTRY = (
    "AccessDeniedException",
    "UnrecognizedClientException",
    "InvalidSignatureException",
    "ExpiredTokenException",
    "ResourceNotFoundException",
)
"""Errors of a caller that was rejected unbilled."""


def outputs_of(values: Sequence[str]) -> tuple[str, ...]:
    """The names of the numbers that are taken from an answer.

    Raises:
        ConfigError: the service returns no such value.
    """
    for value in values:
        if value not in (*PLACES, *QUALITIES):
            raise unknown("value of a face", value, (*PLACES, *QUALITIES))
    return tuple(
        name
        for value in values
        for name in ([value] if value in QUALITIES else [f"{value}.x", f"{value}.y"])
    )


@final
class Rekognition:
    """DetectFaces, one picture a request.

    Args:
        endpoint_url: address of the service; None for AWS.
        values: values taken from each answer: landmarks of the face, brightness, sharpness.
        pace: timeouts and requests in flight.

    Raises:
        ConfigError: no region, or values that the service does not return.
    """

    def __init__(
        self,
        *,
        endpoint_url: str | None = None,
        values: Sequence[str] = PLACES,
        pace: RequestConfig | None = None,
    ) -> None:
        pace = pace or RequestConfig()
        self._values = tuple(values) or PLACES
        self._outputs = outputs_of(self._values)
        config = Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=pace.timeout_s,
            read_timeout=pace.timeout_s,
            max_pool_connections=pace.concurrency,
        )
        session, given = boto3.Session(), {}
        if endpoint_url is not None:
            # A stand-in has no regions and may have no keys, but boto3 requires both.
            given = {"region_name": "us-east-1"}
            if session.get_credentials() is None:
                given |= {"aws_access_key_id": "none", "aws_secret_access_key": "none"}
        try:
            self._client = session.client(
                "rekognition", endpoint_url=endpoint_url, config=config, **given
            )
        except NoRegionError:
            raise ConfigError("AWS needs a region; set AWS_DEFAULT_REGION.") from None
        except ValueError as error:
            raise ConfigError(f"The endpoint cannot be used: {error}.") from None
        _limit_replies(self._client)
        where = endpoint_url or f"aws {self._client.meta.region_name}"
        self._about = VictimInfo(
            target=f"rekognition DetectFaces at {where}",
            options={"values": ",".join(self._values)},
            kind="landmarks",
            classes=len(self._outputs),
            names=self._outputs,
            channels=3,
            most=1,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def about(self) -> VictimInfo:
        return self._about

    async def ask(self, images: np.ndarray, *, id: str) -> np.ndarray:
        [image] = images
        buffer = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "png")
        try:
            reply = await asyncio.to_thread(
                self._client.detect_faces, Image={"Bytes": buffer.getvalue()}
            )
        except ClientError as error:
            raise _failed(error.response) from None
        except (NoCredentialsError, PartialCredentialsError):
            raise ConfigError(
                "boto3 finds no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                "write them to ~/.aws/credentials."
            ) from None
        except BotoCoreError as error:
            never_sent = isinstance(error, EndpointConnectionError | ConnectTimeoutError)
            raise AskFailed(
                f"The connection to {self._about.target} was lost: {error}",
                again=True,
                billed=not never_sent,
            ) from None
        return numbers(reply, self._values)[None]


def _limit_replies(client: Any) -> None:
    """Have a client of boto3 read at most `LARGEST_REPLY` bytes of a reply.

    By default botocore reads a body to its end, which a server need not send.
    """
    session = client._endpoint.http_session
    send = session.send

    def limited(request: Any) -> Any:
        request.stream_output = True
        response = send(request)
        try:
            response._content = b"".join(_pieces(response.raw))
        except urllib3.exceptions.HTTPError as error:
            raise HTTPClientError(error=error) from None
        finally:
            response.raw.close()
        return response

    session.send = limited


def _pieces(body: Any) -> Iterator[bytes]:
    """The bytes of a reply.

    Raises:
        AskFailed: there are more than `LARGEST_REPLY`.
    """
    left = LARGEST_REPLY
    while piece := body.read(1 << 16):
        left -= len(piece)
        if left < 0:
            raise AskFailed(
                f"The service sent more than {LARGEST_REPLY:,} bytes as a reply; is it a face "
                "service?",
                again=False,
                billed=True,
            )
        yield piece


def numbers(reply: Mapping[str, Any], values: Sequence[str]) -> np.ndarray:
    """Values of the largest face in an answer, float32; NaN for missing values.

    Args:
        reply: reply of DetectFaces, as boto3 returns it or as it was recorded.
        values: see `outputs_of`.
    """

    def number(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return math.nan
        try:
            return float(value)
        except OverflowError:  # JSON may hold a number of any length
            return math.inf

    def table(value: object) -> Mapping[str, Any]:
        return value if isinstance(value, Mapping) else {}

    def listed(value: object) -> list[Mapping[str, Any]]:
        return [table(item) for item in value] if isinstance(value, list) else []

    def area(face: Mapping[str, Any]) -> float:
        box = table(face.get("BoundingBox"))
        return float(np.nan_to_num(number(box.get("Width")) * number(box.get("Height"))))

    face = max(listed(reply.get("FaceDetails")), key=area, default={})
    places = {str(mark.get("Type")): mark for mark in listed(face.get("Landmarks"))}
    qualities = table(face.get("Quality"))
    row = []
    for value in values:
        if value in QUALITIES:
            row.append(number(qualities.get(value.capitalize())) / 100)
        else:
            row += [number(places.get(value, {}).get(axis)) for axis in "XY"]
    with np.errstate(over="ignore"):  # such numbers become infinite, and are refused
        return np.array(row, np.float32)


def _failed(response: Mapping[str, Any]) -> AskFailed:
    error, about = response.get("Error", {}), response.get("ResponseMetadata", {})
    name, status = str(error.get("Code")), int(about.get("HTTPStatusCode", 0))
    busy = name in BUSY
    return AskFailed(
        f"Rekognition answered {name}: {error.get('Message')}",
        again=busy or status >= 500 or status == 429,
        billed=not busy and name not in NO_ENTRY,
        wait_s=retry_after(about.get("HTTPHeaders", {}).get("retry-after")),
    )
