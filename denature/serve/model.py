"""A run that is ready to be served."""

from collections.abc import Sequence
from typing import final

import numpy as np
import torch

from denature.answers.answerer import Answerer
from denature.answers.config import InferenceConfig
from denature.answers.inference import Inference
from denature.answers.network import NetworkAnswerer
from denature.core.compute import resolve
from denature.defenses.base import Chain, Defended
from denature.defenses.catalogue import defense_of
from denature.serve.config import ServedModel
from denature.serve.protocol import ModelSignature
from denature.train.run import Run


@final
class Model:
    """A network with its defense, and the exposure of its answers."""

    def __init__(self, served: ServedModel, run: Run, *, device: str, precision: str) -> None:
        net = run.record.net
        self.signature = ModelSignature(
            name=served.name,
            channels=net.channels,
            image_size=net.image_size,
            classes=run.classes,
            exposure=served.exposure,
            named=run.class_names is not None,
        )
        self._compute = resolve(run.network, device=device, precision=precision)
        inference = Inference(
            run.network, self._compute, InferenceConfig(), shape=self.signature.shape
        )
        # Probabilities are rounded to up to 15 decimals, which float32 does not have.
        self._answerer: Answerer = NetworkAnswerer(
            inference, kind=served.exposure.show, digest=run.digest, dtype=torch.float64
        )
        if served.defense is not None:
            self._answerer = Defended(
                self._answerer, Chain((defense_of(served.defense, served.options),))
            )

    def answer(self, requests: Sequence[np.ndarray]) -> np.ndarray:
        """The answers to all images of several requests: float64, or int64 for labels."""
        images = torch.cat([self._pixels(images) for images in requests])
        return self._answerer(images).values.cpu().numpy()

    def _pixels(self, images: np.ndarray) -> torch.Tensor:
        # Arrays over a request's bytes are read-only, which torch would warn about.
        tensor = torch.tensor(images).to(self._compute.device)
        return self._compute.pixels(tensor) if images.dtype == np.uint8 else tensor
