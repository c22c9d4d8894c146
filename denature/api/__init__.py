"""The commands as functions, for Python and notebooks.

A model is a run, a torch module or a function of images, a victim, or what a command takes as
MODEL; data are what `denature.data.load` takes. Training is in `denature.train`.
"""

from typing import TYPE_CHECKING

from denature.core.lazy import attach

if TYPE_CHECKING:
    from denature.api.calls import audit, evaluate, robustness, steal
    from denature.train.predict import predict

__getattr__ = attach(
    __name__,
    {
        "audit": "calls",
        "steal": "calls",
        "robustness": "calls",
        "evaluate": "calls",
        "predict": "denature.train.predict",
    },
)

__all__ = ["audit", "steal", "robustness", "evaluate", "predict"]
