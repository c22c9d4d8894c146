"""Face landmarks by AWS Rekognition: the service itself, or a compatible server.

boto3 finds the credentials, the region and the endpoint, and signs. Its own transport is not used:
its hidden retries would be billed and counted nowhere, no deadline bounds it as a whole, and it
takes any reply for an answer.
"""

import asyncio
import io
import math
import os
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Self, final

import msgspec
import numpy as np
from PIL import Image

from denature.core.errors import ConfigError, needs, unknown
from denature.data.landmarks import PLACES
from denature.extract.victims.base import VictimInfo
from denature.remote.config import RequestConfig
from denature.remote.errors import AskFailed
from denature.remote.redaction import server_text
from denature.remote.wire import Response, Wire

with needs("rekognition", "Querying Rekognition"):
    import boto3
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    from botocore.exceptions import BotoCoreError, NoRegionError, PartialCredentialsError
    from botocore.httpsession import get_cert_path

LARGEST_REPLY = 1 << 22
"""Bytes of an answer at most; AWS finds up to 100 faces in a picture, in some 300 kB."""

OPERATION = "RekognitionService.DetectFaces"

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
        session, given = boto3.Session(), {}
        if endpoint_url is not None:
            given = {"region_name": session.region_name or "us-east-1"}  # a stand-in has no regions
        try:
            # It sends nothing, and needs no credentials.
            described = session.client("rekognition", endpoint_url=endpoint_url, **given).meta
        except NoRegionError:
            raise ConfigError("AWS needs a region; set AWS_DEFAULT_REGION.") from None
        except (ValueError, BotoCoreError) as error:
            raise ConfigError(f"The endpoint cannot be used: {error}.") from None
        self._session, self._stand_in = session, endpoint_url is not None
        self._region = described.region_name
        self._url = f"{described.endpoint_url.rstrip('/')}/"
        where = endpoint_url or f"aws {self._region}"
        self._about = VictimInfo(
            target=f"rekognition DetectFaces at {where}",
            options={"values": ",".join(self._values)},
            kind="landmarks",
            classes=len(self._outputs),
            names=self._outputs,
            channels=3,
            most=1,
        )
        self._wire = Wire(self._about.target, pace, tls=_tls(), proxies=True)

    async def __aenter__(self) -> Self:
        await self._wire.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._wire.__aexit__(*error)

    async def about(self) -> VictimInfo:
        return self._about

    async def ask(self, images: np.ndarray, *, id: str) -> np.ndarray:
        [image] = images
        buffer = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "png")
        # msgspec writes bytes in base64, as the service takes them.
        body = msgspec.json.encode({"Image": {"Bytes": buffer.getvalue()}})
        # Credentials that expired are fetched again, which takes a request of boto3's own.
        headers, secrets = await asyncio.to_thread(self._signed, body)
        response = await self._wire.send(
            "POST", self._url, headers=headers, data=body, limit=LARGEST_REPLY, secrets=secrets
        )
        if response.status != 200:
            raise _failed(response, secrets)
        return numbers(_reply(response, secrets), self._values)[None]

    def _signed(self, body: bytes) -> tuple[dict[str, str], tuple[str, ...]]:
        """The headers of a request, and the secrets in them.

        Raises:
            ConfigError: there are no credentials.
        """
        try:
            credentials = self._session.get_credentials()
        except PartialCredentialsError:
            credentials = None
        if credentials is None and self._stand_in:
            credentials = Credentials("none", "none")
        if credentials is None:
            raise ConfigError(
                "boto3 finds no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                "write them to ~/.aws/credentials."
            )
        frozen = credentials.get_frozen_credentials()
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": OPERATION}
        signed = AWSRequest("POST", self._url, headers=headers, data=body)
        SigV4Auth(frozen, "rekognition", self._region).add_auth(signed)
        headers = {name: str(value) for name, value in signed.headers.items()}
        signature = headers["Authorization"].rpartition("Signature=")[2]
        secrets = (frozen.access_key, frozen.secret_key, frozen.token, signature)
        return headers, tuple(secret for secret in secrets if secret and secret != "none")


def _tls() -> ssl.SSLContext:
    """The certificates that boto3 trusts."""
    return ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or get_cert_path(True))


def _reply(response: Response, secrets: Sequence[str]) -> dict[str, Any]:
    """An answer of DetectFaces.

    Raises:
        AskFailed: the body is something else, such as the page of a proxy.
    """
    try:
        reply = msgspec.json.decode(response.body)
    except (msgspec.DecodeError, RecursionError):
        reply = None
    if isinstance(reply, dict) and isinstance(reply.get("FaceDetails"), list):
        return reply
    kind = response.headers.get("Content-Type", "no type")
    raise AskFailed(
        "Rekognition answered 200 without a list of FaceDetails: "
        f"{server_text(kind, secrets, most=80)}, {len(response.body):,} bytes that begin with "
        f"{server_text(response.body.decode('utf-8', 'replace'), secrets, most=80)!r}.",
        again=False,
        billed=True,
    )


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


def _failed(response: Response, secrets: Sequence[str]) -> AskFailed:
    try:
        body = msgspec.json.decode(response.body)
    except (msgspec.DecodeError, RecursionError):
        body = None
    fields = body if isinstance(body, dict) else {}
    stated = str(
        fields.get("__type") or response.headers.get("x-amzn-errortype") or response.status
    )
    name = stated.rpartition("#")[2].partition(":")[0]
    message = fields.get("message", fields.get("Message", "no message"))
    busy = name in BUSY
    return AskFailed(
        f"Rekognition answered {server_text(name, secrets, most=80)}: "
        f"{server_text(str(message), secrets)}",
        again=busy or response.status >= 500 or response.status == 429,
        billed=not busy and name not in NO_ENTRY,
        wait_s=response.wait_s,
    )
