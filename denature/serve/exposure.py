"""From a network's logits to the values of an answer."""

import numpy as np

from denature.serve.config import Exposure


def expose(logits: np.ndarray, exposure: Exposure) -> np.ndarray:
    """Shown values of float32 logits, batch x classes: logits, int64 labels, or probabilities.

    Landmarks are the raw outputs of a landmark network.

    Rounding is to the nearest decimal that float32 has. Rounded values are not normalised again, so
    probabilities need not sum to 1.
    """
    if exposure.show == "label":
        labels: np.ndarray = logits.argmax(1)
        return labels
    values = logits.astype(np.float64)
    if exposure.show == "probabilities":
        values = np.exp(values - values.max(1, keepdims=True))
        values /= values.sum(1, keepdims=True)
    if exposure.decimals >= 0:
        values = values.round(exposure.decimals)
    return values.astype(np.float32)
