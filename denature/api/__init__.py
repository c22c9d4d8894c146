"""The commands as functions, for Python and notebooks.

A model is a run, a torch module or a function of images, a victim, or what a command takes as
MODEL; data are what `denature.data.load` takes. Training is in `denature.train`.
"""

from typing import TYPE_CHECKING

from denature.core.lazy import attach

if TYPE_CHECKING:
    from denature.api.audits import audit
    from denature.api.keywords import ModelKeywords
    from denature.api.measurements import evaluate, flatness, robustness
    from denature.api.thefts import steal
    from denature.train.predict import predict

__getattr__ = attach(
    __name__,
    {
        "audit": "audits",
        "ModelKeywords": "keywords",
        "steal": "thefts",
        "robustness": "measurements",
        "evaluate": "measurements",
        "flatness": "measurements",
        "predict": "denature.train.predict",
    },
)

__all__ = ["audit", "steal", "robustness", "evaluate", "flatness", "predict", "ModelKeywords"]
