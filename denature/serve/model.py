"""A run that is ready to be served."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import torch

from denature.answers.config import InferenceConfig
from denature.answers.inference import Inference
from denature.answers.network import NetworkAnswerer
from denature.core.compute import resolve
from denature.core.errors import ConfigError
from denature.core.seeds import generator
from denature.defenses.base import Defended, Networks, Stream
from denature.serve.config import ServedModel
from denature.serve.exposure import expose
from denature.serve.memory import MemoryFile, Tensors, snapshot
from denature.serve.protocol import ModelSignature
from denature.train.run import Run

TRIED = 2
"""Random images whose answers are checked before anything is served."""


class MemoryCopy(NamedTuple):
    """What the defenses of a model remember after a number of batches."""

    batches: int
    tensors: Tensors


@final
class Model:
    """A network behind its defenses, and the exposure of its answers.

    Answers change the memory of the defenses, so one thread at a time may ask.

    Args:
        served: the resolved settings of this model.
        run: its run.
        networks: those that its defenses look at.
        seed: of its random defenses.
        device: device to compute on.
        precision: precision of inference.
        memory: folder with what the defenses remembered, for defenses with a memory.

    Raises:
        ConfigError: the device is missing, or the defenses do not give what is shown.
        RunError: the memory is damaged, or of another model or defense.
    """

    def __init__(
        self,
        served: ServedModel,
        run: Run,
        *,
        networks: Networks,
        seed: int,
        device: str,
        precision: str,
        memory: Path | None = None,
    ) -> None:
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
        self._network = NetworkAnswerer(
            inference,
            kind=served.taken or served.exposure.kind,
            digest=run.digest,
            dtype=torch.float64,
        )
        placed = {role: self._compute.place(other).eval() for role, other in networks.items()}
        self._defended = Defended(self._network, served.chain, placed, seed)
        self._batches = self._written = 0
        self._memory: MemoryFile | None = None
        self._try(served.chain.start(placed))
        if memory is not None and served.chain.remembers:
            self._memory = MemoryFile(memory / f"{served.name}.safetensors", self._defended)
            self._memory.restore(self._try)

    def answer(self, requests: Sequence[np.ndarray]) -> np.ndarray:
        """The answers to all images of several requests: float64, or int64 for labels."""
        self._batches += 1
        images = torch.cat([self._pixels(images) for images in requests])
        return self._defended(images).values.cpu().numpy()

    def copy_memory(self) -> MemoryCopy | None:
        """What the defenses remember; None where nothing is kept or nothing changed."""
        if self._memory is None or self._batches == self._written:
            return None
        return MemoryCopy(self._batches, snapshot(self._defended.stream))

    def write_memory(self, copy: MemoryCopy) -> None:
        """Write a copy to the model's file.

        Raises:
            OSError: the file could not be written.
        """
        assert self._memory is not None
        self._memory.write(copy.tensors)
        self._written = copy.batches

    def _try(self, stream: Stream) -> None:
        """Check the answers of a stream, not the served one, to a few random images."""
        if not stream.chain.defenses:
            return
        shape = (TRIED, *self.signature.shape)
        pixels = self._pixels(generator(0, "trial").integers(0, 256, shape, dtype=np.uint8))
        exposure, scores = self.signature.exposure, len(self.signature.classes)
        shown = expose(stream(self._network(pixels), pixels).values.cpu().numpy(), exposure)
        count = int(np.isfinite(shown).sum())
        wanted = TRIED * (1 if exposure.kind == "label" else exposure.top or scores)
        if count != wanted:
            raise ConfigError(
                f"The defense {stream.chain.name} shows {count} finite scores of {TRIED} random "
                f"images, where {wanted} are wanted: one of its parts needs scores that an earlier "
                "one hides, or gives values that are not finite. Put what hides scores last."
            )

    def _pixels(self, images: np.ndarray) -> torch.Tensor:
        # Arrays over a request's bytes are read-only, which torch would warn about.
        tensor = torch.tensor(images).to(self._compute.device)
        return self._compute.pixels(tensor) if images.dtype == np.uint8 else tensor
