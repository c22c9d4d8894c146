"""Measured cells of an audit: one file for each, so that a stopped audit goes on from the next."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from denature.core.errors import ConfigError
from denature.core.files import write_text
from denature.core.schema import decode
from denature.core.sealed import sealed, unsealed
from denature.core.untrusted import read_json
from denature.extract.config import Threat

FOLDER = "cells"

REVISION = 1
"""Is raised after a change that moves the numbers of cells, which then are measured again."""


class CellName(NamedTuple):
    """One thief against one defense within one budget."""

    defense: str
    thief: str
    threat: Threat
    budget: int


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredCell:
    """One seed of a cell, as it is stored."""

    predictions: tuple[int, ...]
    """Classes that the clone gives the test images."""
    queries: int
    note: str = ""


@final
class CellStore:
    """The measured cells below a folder, by their settings.

    Args:
        folder: folder of the audit.
        common: settings of all cells, which decide with those of a cell whether it is the same.
    """

    def __init__(self, folder: Path, common: Mapping[str, Any]) -> None:
        self.folder = folder / FOLDER
        self._common = common

    def key(self, settings: Mapping[str, Any]) -> str:
        """Identity of a cell, 16 hex digits."""
        text = json.dumps({**self._common, **settings}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def read(self, key: str) -> MeasuredCell | None:
        """The cell, if it was measured; a file whose seal does not fit counts as not measured."""
        path = self.folder / f"{key}.json"
        try:
            raw = unsealed(read_json(path))
            return decode(MeasuredCell, raw, where=str(path))
        except (OSError, ValueError, ConfigError):
            return None

    def write(self, key: str, cell: MeasuredCell) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        fields = {"predictions": cell.predictions, "queries": cell.queries, "note": cell.note}
        write_text(self.folder / f"{key}.json", json.dumps(sealed(fields)) + "\n")

    def runs_folder(self, key: str) -> Path:
        """Folder for the runs of an unfinished cell."""
        return self.folder / key

    def tidy(self, key: str) -> None:
        """Remove the runs of a cell that is measured; its predictions are kept."""
        shutil.rmtree(self.runs_folder(key), ignore_errors=True)


def predictions_by_seed(cells: Sequence[MeasuredCell]) -> np.ndarray:
    """int64, seeds x images."""
    return np.array([cell.predictions for cell in cells], np.int64)
