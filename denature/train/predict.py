"""Predictions of a run's network for image files."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from denature.core.compute import resolve
from denature.core.errors import ConfigError, DataError
from denature.data.decode import to_array
from denature.data.pictures import BadImage, open_image
from denature.train.run import Run, load_run


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted class and class probabilities of one image."""

    image: str
    label: str
    probabilities: dict[str, float]

    def strongest(self, count: int) -> list[tuple[str, float]]:
        return sorted(self.probabilities.items(), key=lambda item: -item[1])[:count]


def predict(
    run: str | Path | Run,
    images: Sequence[Path],
    *,
    resize: bool = False,
    trust: Collection[str] = (),
    device: str = "auto",
    precision: str = "fp32",
) -> list[Prediction]:
    """Classify image files with a run's network.

    Raises:
        DataError: a file is missing, no image, or of another size and `resize` is off.
    """
    if not images:
        raise ConfigError("No image file given; give at least one.")
    loaded = run if isinstance(run, Run) else load_run(run, trust=trust)
    net = loaded.record.net
    if loaded.record.landmarks:
        raise ConfigError(f"{run} predicts landmarks, not classes; name a run of a classifier.")
    arrays = []
    for file in images:
        try:
            image = open_image(file)
            array = to_array(image, channels=net.channels, size=net.image_size, fit=resize)
        except BadImage as error:
            raise DataError(f"{file} cannot be read as an image: {error}.") from None
        if array is None:
            raise DataError(
                f"{file} is {image.width}x{image.height}, the network takes {net.image_size}x"
                f"{net.image_size}. Pass --resize to crop and resize it."
            )
        arrays.append(array)
    compute = resolve(loaded.network, device=device, precision=precision)
    pixels = compute.pixels(torch.from_numpy(np.stack(arrays)).to(compute.device))
    logits = compute.answer(compute.place(loaded.network).eval(), pixels)
    names = loaded.classes
    return [
        Prediction(str(file), names[int(row.argmax())], dict(zip(names, row.tolist(), strict=True)))
        for file, row in zip(images, logits.softmax(-1).cpu(), strict=True)
    ]
