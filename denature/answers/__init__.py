"""Answers: what kinds there are, where they come from, and how they are kept."""

from typing import TYPE_CHECKING

from denature.core.lazy import attach

if TYPE_CHECKING:
    from denature.answers.config import Asking
    from denature.answers.inference import Inference
    from denature.answers.sources import Answers, Kind, Live, Source, Stored

__getattr__ = attach(
    __name__,
    {
        "Asking": "config",
        "Answers": "sources",
        "Kind": "sources",
        "Source": "sources",
        "Live": "sources",
        "Stored": "sources",
        "Inference": "inference",
    },
)

__all__ = ["Asking", "Answers", "Kind", "Source", "Live", "Stored", "Inference"]
