"""A run that is ready to be served."""

from collections.abc import Sequence
from typing import final

import numpy as np
import torch

from denature.answers.config import InferenceConfig
from denature.answers.inference import Inference
from denature.core.compute import resolve
from denature.serve.config import ServedModel
from denature.serve.protocol import ModelSignature
from denature.train.run import Run


@final
class Model:
    """A network, and the exposure of its answers."""

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
        self._inference = Inference(
            run.network, self._compute, InferenceConfig(), shape=self.signature.shape
        )

    def logits(self, requests: Sequence[np.ndarray]) -> np.ndarray:
        """The logits of all images of several requests, as float32."""
        images = torch.cat([self._pixels(images) for images in requests])
        return self._inference.low_latency(images).cpu().numpy()

    def _pixels(self, images: np.ndarray) -> torch.Tensor:
        # Arrays over a request's bytes are read-only, which torch would warn about.
        tensor = torch.tensor(images).to(self._compute.device)
        return self._compute.pixels(tensor) if images.dtype == np.uint8 else tensor
