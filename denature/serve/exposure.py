"""From a model's answers to the values on the wire."""

import numpy as np
import torch

from denature.answers.answerer import Answers
from denature.serve.config import Exposure


def expose(values: np.ndarray, exposure: Exposure) -> np.ndarray:
    """Shown values of answers of the kind `exposure.kind`: float32, or int64 for labels.

    Values beside the largest are NaN where `exposure.top` hides them. Rounded probabilities need
    not sum to 1.

    Args:
        values: float64, batch x classes, so that rounding is to the nearest decimal that float32
            has; or int64, batch.
        exposure: the part of the answers that is shown.
    """
    answers = Answers(exposure.kind, torch.from_numpy(values))
    for defense in exposure.defenses:
        answers = defense(answers)
    shown = answers.values.numpy()
    return shown if exposure.kind == "label" else shown.astype(np.float32)
