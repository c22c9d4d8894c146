"""Answers of networks: their kinds, their sources, and the store that keeps them."""

from typing import TYPE_CHECKING

from denature.core.lazy import attach

if TYPE_CHECKING:
    from denature.answers.answerer import Answerer, Answers
    from denature.answers.config import InferenceConfig
    from denature.answers.inference import Inference
    from denature.answers.kinds import AnswerKind
    from denature.answers.sources import AnswerSource, LiveAnswers, StoredAnswers

__getattr__ = attach(
    __name__,
    {
        "InferenceConfig": "config",
        "AnswerKind": "kinds",
        "Answers": "answerer",
        "Answerer": "answerer",
        "AnswerSource": "sources",
        "LiveAnswers": "sources",
        "StoredAnswers": "sources",
        "Inference": "inference",
    },
)

__all__ = [
    "InferenceConfig",
    "AnswerKind",
    "Answers",
    "Answerer",
    "AnswerSource",
    "LiveAnswers",
    "StoredAnswers",
    "Inference",
]
