"""A service with the Open Inference Protocol v2, such as KServe, Triton and MLServer."""

from typing import Self, final

import numpy as np

from denature.answers.kinds import AnswerKind
from denature.answers.scaling import PixelScale
from denature.core.errors import ConfigError
from denature.extract.victims.base import VictimInfo
from denature.remote.config import RequestConfig
from denature.remote.protocol import wire_images
from denature.remote.service import InferenceService


@final
class OpenInference:
    """See `denature.extract.victims.find.find` for the arguments."""

    def __init__(
        self,
        url: str,
        *,
        model: str | None,
        output: str | None,
        kind: AnswerKind | None,
        top: int,
        key: str | None,
        pixels: PixelScale,
        pace: RequestConfig,
    ) -> None:
        self._top, self._pixels = top, pixels
        self._service = InferenceService(
            url, model=model, output=output, kind=kind, top=top, key=key, pace=pace
        )

    async def __aenter__(self) -> Self:
        await self._service.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._service.__aexit__(*error)

    async def about(self) -> VictimInfo:
        signature = await self._service.signature()
        channels, height, width = signature.shape
        if height != width:
            raise ConfigError(
                f"{self._service.path} takes images of {height} x {width} pixels; wanted are "
                "square ones."
            )
        if self._pixels.options and signature.datatype == "UINT8":
            raise ConfigError(
                f"{self._service.path} takes pixels as whole numbers from 0 to 255; leave out "
                f"{', '.join(f'--{name}' for name in self._pixels.options)}."
            )
        options = {"output": signature.output, **self._pixels.options}
        return VictimInfo(
            target=f"{self._service.url}{self._service.path}",
            options=options | ({"top": str(self._top)} if self._top else {}),
            kind=self._service.kind,
            classes=signature.classes,
            names=signature.names,
            unread=signature.unread,
            channels=None if channels < 0 else channels,
            image_size=None if height < 0 else height,
        )

    async def ask(self, images: np.ndarray, *, id: str) -> np.ndarray:
        signature = await self._service.signature()
        return await self._service.ask(wire_images(images, signature, self._pixels), id=id)
