"""Answers: what kinds there are, and where they come from."""

from denature.answers.sources import Answers, Kind, Live, Remembered, Source

__all__ = ["Answers", "Kind", "Live", "Remembered", "Source"]
