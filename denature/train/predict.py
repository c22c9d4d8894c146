"""Predictions of a run's network for image files."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from denature.core.compute import resolve
from denature.core.errors import ConfigError, DataError
from denature.core.record import NetRecord
from denature.data.decode import to_array
from denature.data.given import as_array
from denature.data.pictures import BadImage, open_image
from denature.data.readers.pixels import as_uint8
from denature.train.run import Run, load_run

AT_ONCE = 64
"""Images that are read and computed at once."""


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
    images: Sequence[str | Path] | np.ndarray | torch.Tensor,
    *,
    resize: bool = False,
    trust: Collection[str] = (),
    device: str = "auto",
    precision: str = "fp32",
) -> list[Prediction]:
    """Classify image files, or images in memory, with a run's network.

    Args:
        run: a run or its folder.
        images: paths of files; or uint8 or floats in [0, 1], as `denature.data.load` takes them.
        resize: crop and resize files to the network's input size.
        trust: modules that the run's record may import.
        device: where to compute.
        precision: precision of inference.

    Returns:
        A prediction for each image; those in memory are named by their numbers.

    Raises:
        DataError: a file is missing, no image, or of another size and `resize` is off.
    """
    if not len(images):
        raise ConfigError("No image given; give at least one.")
    loaded = run if isinstance(run, Run) else load_run(run, trust=trust)
    net = loaded.record.net
    if loaded.record.landmarks:
        raise ConfigError(f"{run} predicts landmarks, not classes; name a run of a classifier.")
    if isinstance(images, np.ndarray | torch.Tensor):
        named = [str(number) for number in range(len(images))]
        pixels = as_uint8(as_array(images), "The array of images")
        if pixels.shape[1:] != (net.channels, net.image_size, net.image_size):
            raise DataError(
                f"The images are {'x'.join(map(str, pixels.shape[1:]))}, the network takes "
                f"{net.channels}x{net.image_size}x{net.image_size}. Resize them."
            )
    else:
        named = [str(file) for file in images]
        pixels = None
    compute = resolve(loaded.network, device=device, precision=precision)
    network = compute.place(loaded.network).eval()
    parts = []
    for start in range(0, len(named), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        if pixels is None:
            files = map(Path, named[rows])
            part = np.stack([_read(file, net, resize=resize) for file in files])
        else:
            part = pixels[rows]
        placed = compute.pixels(torch.from_numpy(part).to(compute.device))
        parts.append(compute.answer(network, placed).float().cpu())
    logits, names = torch.cat(parts), loaded.classes
    return [
        Prediction(name, names[int(row.argmax())], dict(zip(names, row.tolist(), strict=True)))
        for name, row in zip(named, logits.softmax(-1), strict=True)
    ]


def _read(file: Path, net: NetRecord, *, resize: bool) -> np.ndarray:
    """An image file as uint8 in the shape that a network takes."""
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
    return array
