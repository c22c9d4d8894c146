"""Answers of networks: their kinds, their sources, and the store that keeps them."""

from typing import TYPE_CHECKING

from denature.core.lazy import attach

if TYPE_CHECKING:
    from denature.answers.config import InferenceConfig
    from denature.answers.inference import Inference
    from denature.answers.sources import Answers, AnswerSource, Kind, LiveAnswers, StoredAnswers

__getattr__ = attach(
    __name__,
    {
        "InferenceConfig": "config",
        "Answers": "sources",
        "Kind": "sources",
        "AnswerSource": "sources",
        "LiveAnswers": "sources",
        "StoredAnswers": "sources",
        "Inference": "inference",
    },
)

__all__ = [
    "InferenceConfig",
    "Answers",
    "Kind",
    "AnswerSource",
    "LiveAnswers",
    "StoredAnswers",
    "Inference",
]
