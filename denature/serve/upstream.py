"""Models of another server, served here behind keys, budgets and defenses."""

import asyncio
import hashlib
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from denature.answers.answerer import Answers
from denature.answers.kinds import AnswerKind
from denature.answers.looks import kind_of
from denature.answers.network import answers_from, converted
from denature.core.errors import ConfigError
from denature.core.seeds import generator
from denature.remote.config import RequestConfig
from denature.remote.errors import AskFailed
from denature.remote.protocol import wire_images
from denature.remote.service import InferenceService
from denature.serve.config import Exposure, ServedModel
from denature.serve.protocol import DTYPES, ModelSignature
from denature.serve.refusal import Refused
from denature.serve.upstream_config import UpstreamConfig, UpstreamModel

TRIED = 2
"""Random images that show the kind of a model's answers where its server does not state it."""

UNKNOWN_SIDE = 64
"""Pixels a side of these images, where the model takes any number of them."""

TO_CLIENTS = (400, 413, 415, 422)
"""Statuses of the other server that are the client's concern."""

OWN_KEY = (401, 403, 429)
"""Statuses by which the other server refuses this server's key, or its rate."""

WARNED_S = 60.0
"""Seconds between two such lines on the console."""

LOGGER = logging.getLogger("denature.serve")

READY_S = 2.0
"""Seconds for the other server to say whether it is ready."""

READY_AGAIN_S = 1.0
"""Seconds for which that is known: clients without a key may ask it as often as they like."""


def service_of(config: UpstreamConfig, model: str | None, *, key: str | None) -> InferenceService:
    """A model of another server; a context that is entered in the loop of its requests."""
    assert config.upstream is not None
    return InferenceService(
        config.upstream,
        model=model,
        output=config.upstream_output,
        kind=config.upstream_kind,
        key=key,
        pace=RequestConfig(
            timeout_s=config.upstream_timeout_s, concurrency=config.upstream_at_once
        ),
    )


@final
class Upstream:
    """A model of another server, asked in the event loop of the requests.

    What it is asked are tensors as that model takes them. No thread stands between a client's
    request and that of the gateway: each hand-over costs up to half a millisecond.
    """

    def __init__(self, served: ServedModel, config: UpstreamConfig, *, key: str | None) -> None:
        assert served.upstream is not None
        self._model = served.upstream
        self._service = service_of(config, served.run, key=key)
        self._entered = False
        self._quiet_until = 0.0
        self._ready, self._known_until = False, 0.0
        self._asking_ready = asyncio.Lock()
        self.at_once = config.upstream_at_once
        self.kind: AnswerKind = served.taken or served.exposure.kind
        text = f"{self._service.url} {served.run} {self._model}"
        self.digest = hashlib.sha256(text.encode()).hexdigest()[:16]

    async def _connected(self) -> InferenceService:
        """The service, entered by its first request: its connections belong to one loop."""
        if not self._entered:
            self._entered = True
            await self._service.__aenter__()
        return self._service

    async def close(self) -> None:
        """Close the connections."""
        if self._entered:
            await self._service.__aexit__()

    async def ready(self) -> bool:
        """Whether the other server says that it can answer; one request at a time asks it."""
        async with self._asking_ready:
            if time.monotonic() >= self._known_until:
                try:
                    async with asyncio.timeout(READY_S):
                        self._ready = await (await self._connected()).ready()
                except TimeoutError:
                    self._ready = False
                self._known_until = time.monotonic() + READY_AGAIN_S
            return self._ready

    async def ask(self, pixels: Tensor) -> Answers:
        """The answers of the kind that the defenses here take.

        Raises:
            Refused: the other server did not answer, or not validly.
        """
        try:
            values = await self._ask(pixels.numpy())
        except AskFailed as failed:
            self._warn(failed)
            raise _refusal(failed) from None
        return converted(values, self._model.kind, self.kind)

    def _warn(self, failed: AskFailed) -> None:
        """Tell the console, once a minute, that the server behind refuses this server's own key.

        Clients can do nothing about it, and the access log may be a file that is seldom read.
        """
        now = time.monotonic()
        if failed.status not in OWN_KEY or now < self._quiet_until:
            return
        self._quiet_until = now + WARNED_S
        told = 503 if failed.status == 429 else 502
        LOGGER.warning(
            "%s. Clients here get %d until the key of this gateway answers again: raise its budget "
            "or its rate there, or start with another DENATURE_UPSTREAM_KEY.",
            str(failed).rstrip("."),
            told,
        )

    async def _ask(self, images: np.ndarray) -> np.ndarray:
        service, wanted = await self._connected(), self._model
        try:
            signature = await service.signature()
        except ConfigError as error:
            raise AskFailed(str(error), again=False, billed=False) from None
        if signature != wanted.signature:
            raise AskFailed(
                f"{service.url}{service.path} has another input or output than at the start of "
                "this server; start it again.",
                again=False,
                billed=False,
            )
        values = await service.ask(images, id=str(uuid.uuid4()))
        if values.ndim > 1 and values.shape[1] != wanted.scores:
            raise AskFailed(
                f"{service.url}{service.path} sent {values.shape[1]} scores an image, where "
                f"{wanted.scores} are known.",
                again=False,
                billed=True,
            )
        return values


@final
class RandomAnswers:
    """Random answers such as a model of another server may give, to try its defenses on.

    Args:
        served: settings of the model.
        digest: identity of the model that they stand for.
    """

    def __init__(self, served: ServedModel, digest: str) -> None:
        assert served.upstream is not None
        self._model, self.digest = served.upstream, digest
        self.kind: AnswerKind = served.taken or served.exposure.kind

    def __call__(self, pixels: Tensor) -> Answers:
        made = generator(0, "upstream").normal(size=(len(pixels), max(self._model.scores, 2)))
        scores = torch.from_numpy(made)
        if self.kind == "landmarks":
            return Answers(self.kind, scores.sigmoid())
        return answers_from(scores, self.kind, dtype=torch.float64)


def signature_of(served: ServedModel) -> ModelSignature:
    """Input and output of a model of another server, as they are served here."""
    assert served.upstream is not None
    remote, scores = served.upstream.signature, served.upstream.scores
    return ModelSignature(
        name=served.name,
        shape=remote.wire_shape,
        classes=remote.names or tuple(map(str, range(scores))),
        named=bool(remote.names),
        exposure=served.exposure,
        input=remote.input,
        output=remote.output,
        datatypes=tuple(dict.fromkeys((remote.datatype, *DTYPES))),
        pixels=False,
    )


def _refusal(failed: AskFailed) -> Refused:
    """What clients are told where the other server did not answer; the log says more."""
    said = str(failed)
    if failed.status in TO_CLIENTS:
        return Refused(failed.status, said.partition(": ")[2] or said, cause=said)
    if failed.again or failed.status == 429:
        wait = 1.0 if failed.wait_s is None else failed.wait_s
        return Refused(503, "The model cannot answer now; retry later.", retry_after=wait,
                       cause=said)  # fmt: skip
    return Refused(502, "The model gave no valid answer.", cause=said, charged=failed.billed)


def find_models(
    texts: Sequence[str], config: UpstreamConfig, usual: Exposure, defense: str, *, key: str | None
) -> tuple[ServedModel, ...]:
    """The models of another server that are served here.

    Args:
        texts: `[NAME=]MODEL[@show=label+defense=CHAIN]` each; none for all models that it lists.
        config: the other server.
        usual: what the answers show where the text sets nothing else.
        defense: the chain of defenses where the text sets none.
        key: bearer token for the other server.

    Raises:
        AskFailed: the other server does not answer.
        ConfigError: it has no such model, or one that does not take images.
    """
    models = [ServedModel.of(text, usual, defense) for text in texts]
    if not models:
        models = [ServedModel.of(name, usual, defense) for name in _names(config, key)]
    return tuple(_known(model, config, key) for model in models)


def _names(config: UpstreamConfig, key: str | None) -> list[str]:
    async def found() -> list[str]:
        async with service_of(config, None, key=key) as service:
            return [service.model] if service.model else await service.names()

    names = asyncio.run(found())
    if not names:
        raise ConfigError(f"{config.upstream} lists no model; name one or more of its models.")
    return names


def _known(served: ServedModel, config: UpstreamConfig, key: str | None) -> ServedModel:
    return replace(served, upstream=asyncio.run(_described(served, config, key))).resolved()


async def _described(served: ServedModel, config: UpstreamConfig, key: str | None) -> UpstreamModel:
    """Input, output, kind and number of scores of a model, as far as needed by asking it."""
    async with service_of(config, served.run, key=key) as service:
        signature = await service.signature()
        kind, scores = service.kind, signature.classes
        if signature.labels:
            kind, scores = "label", scores or 2
        if kind is None or scores is None:
            channels, height, width = (
                size if size > 0 else UNKNOWN_SIDE for size in signature.shape
            )
            channels = channels if signature.shape[0] > 0 else 3
            drawn = generator(0, "upstream").integers(0, 256, (TRIED, channels, height, width))
            images = wire_images(drawn.astype(np.uint8), signature)
            values = await service.ask(images, id="kind")
            kind = kind or kind_of(values, percent=False) or "logits"
            scores = values.shape[1] if values.ndim > 1 else 2
    return UpstreamModel(signature=signature, kind=kind, scores=scores)
