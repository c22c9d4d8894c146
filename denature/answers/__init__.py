"""Answers: what kinds there are, and where they come from."""

from denature.answers.sources import Answers, Kind, LabelsOnly, Live, Remembered, Source

__all__ = ["Answers", "Kind", "LabelsOnly", "Live", "Remembered", "Source"]
