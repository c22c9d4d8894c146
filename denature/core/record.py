"""The record of a run: one JSON file with all of its facts, and the only input of reports."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

from denature.core.errors import ConfigError, RunError
from denature.core.files import write_text
from denature.core.hits import Hits
from denature.core.schema import decode
from denature.core.sniffing import left_by_download
from denature.core.stats import Estimate, Score
from denature.core.untrusted import MOST_JSON, open_regular, parse_json, read_text

SCHEMA = 1
RECORD = "record.json"

STARTS = frozenset({"init", "backbone"})
"""Roles of inputs that give initial weights; inputs of other roles are queried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NetRecord:
    """A network: how to build it again, and the digest of its final weights."""

    name: str
    classes: int
    channels: int
    image_size: int
    parameters: int
    initial: str
    """Digest of the weights that training started from."""
    digest: str
    """sha256 of names, shapes and values of the weights, first 16 hex digits."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Classes, channels and pixels a side; networks share them to answer the same images."""
        return self.classes, self.channels, self.image_size


def format_shape(shape: tuple[int, int, int]) -> str:
    """A network's or data set's `shape` as text."""
    return "{} classes of {}-channel images of {} pixels a side".format(*shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRecord:
    """A data set: its source, its contents by digest, and its splits."""

    source: str
    digest: str
    split_digest: str
    """Digest of the rows of the training, validation and test splits, besides the pixels."""
    classes: tuple[str, ...]
    train: int
    validation: int
    test: int
    test_origin: str
    skipped: int
    landmarks: bool = False
    """Whether `classes` are the names of coordinates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputRecord:
    """A run that this run used: its teacher, adversary or initial weights.

    For a clone, the answers of its victim: their kind, name and digest stand in the place of a run.
    """

    folder: str | None
    kind: str
    net: str
    digest: str
    recipe: str
    accuracy: Estimate | None
    seed: int | None
    reordered: str | None = None
    """Digest of the weights that answered, where their outputs were reordered to the data's class
    names; `digest` is that of the weights in the folder."""

    @property
    def answered_by(self) -> str:
        """Digest of the weights, or answers, that this run was made with."""
        return self.reordered or self.digest


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRecord:
    """One pass over the training samples."""

    epoch: int
    loss: float
    """Mean of the objective over the training samples, taken during the epoch."""
    train_accuracy: float | None
    """Share of training samples answered correctly during the epoch, in training mode; None for
    landmarks."""
    test_accuracy: float | None
    """Measured on request; not used to select the checkpoint unless `chosen_on` says so."""
    validation_accuracy: float | None
    lr: float
    """Learning rate of the last step."""
    seconds: float
    test_error: float | None = None
    """Takes the place of the accuracy for landmarks; see `Record.error`."""
    validation_error: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ExampleRecord:
    """A network's logits for one test image."""

    sample: int
    label: int
    logits: tuple[float, ...]
    png: str | None
    """The image as base64 PNG; None where Pillow was not installed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A finished run."""

    schema: int = SCHEMA
    kind: str
    """Kind of the run's objective; `imported` without a training."""
    id: str
    """Derived from config, data, inputs and revisions: runs of one id have the same weights."""
    recipe: str
    """Like `id` without seeds, those of the inputs included: runs of one recipe are repeats."""
    net: NetRecord
    data: DataRecord | None
    given: dict[str, Any]
    """Settings of the caller that differ from the defaults."""
    config: dict[str, Any]
    """All settings after defaults and `auto` were resolved."""
    inputs: dict[str, InputRecord] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)
    """Revisions of the code that decides numbers; see `denature.core.revisions`."""
    accuracy: Estimate | None
    """Accuracy on the test split."""
    hits: Hits | None = None
    """Correctly answered test images; None for landmarks, and for runs made before 0.1."""
    error: Estimate | None = None
    """For landmarks, mean distance on the test split, axis by axis, as a share of the side."""
    divergence: Estimate | None = None
    """For a nasty teacher, mean tau^2 KL from its adversary on the test split, in nats, which its
    objective maximises. Near 0 the teacher spoils no student."""
    chosen_on: str
    """Split that selected the checkpoint: `none` (last epoch), `validation` or `test`."""
    chosen_epoch: int | None
    history: tuple[EpochRecord, ...] = ()
    examples: tuple[ExampleRecord, ...] = ()
    seconds: float
    images_per_second: float | None
    """Training images a second, evaluation not counted."""
    started: str
    environment: dict[str, Any]

    def __post_init__(self) -> None:
        accuracies = [self.accuracy, *(given.accuracy for given in self.inputs.values())]
        if not all(found is None or 0 <= found.low <= found.high <= 1 for found in accuracies):
            raise ValueError("an accuracy is not a share in [0, 1]")
        if self.kind == "imported":
            return
        for part in ("net", "data", "objective", "training"):
            if not isinstance(self.config.get(part), str if part == "net" else dict):
                raise ValueError(f"the config of a {self.kind} run has no {part}")
        if (named := self.config["objective"].get("kind", self.kind)) != self.kind:
            raise ValueError(f"the objective of a {self.kind} run is of the kind {named}")
        if self.config.get("asking") and not self.inputs.keys() - STARTS:
            raise ValueError(f"a {self.kind} run with answers names no run that gave them")

    @property
    def score(self) -> Score | None:
        """The accuracy, with hits where they are known; None for a run without a measurement."""
        if self.accuracy is None:
            return None
        if self.hits is None:
            return Score(self.accuracy)
        return Score(self.accuracy, self.hits.test, self.hits.unpack(self.accuracy.n))

    @property
    def seed(self) -> int | None:
        value = self.config.get("training", {}).get("seed")
        return value if isinstance(value, int) else None

    @property
    def landmarks(self) -> bool:
        """Whether the network predicts coordinates, not classes."""
        return self.data is not None and self.data.landmarks

    @property
    def victim(self) -> InputRecord | None:
        """The victim that a clone queried."""
        return self.inputs.get("victim")

    def to_json(self, *, indent: int | None = None) -> str:
        return json.dumps(asdict(self), indent=indent, allow_nan=False)


class UnreadableRecord(RunError):
    """The record is whole, and of a newer denature or not fetched yet."""


def write_record(folder: Path, record: Record) -> None:
    write_text(folder / RECORD, record.to_json(indent=1) + "\n")


def read_record(folder: Path) -> Record:
    """Read the record in a run's folder.

    Raises:
        RunError: the record is missing, damaged, or written by a newer denature.
    """
    path = folder / RECORD
    if not path.is_file():
        what = "holds no record.json, so no finished run" if folder.is_dir() else "is missing"
        raise RunError(f"The run {folder} {what}; `denature runs` lists those under runs/.")
    try:
        text = read_text(path, MOST_JSON)
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read: {error}.") from None
    return parse_record(text, where=str(path))


@lru_cache(maxsize=256)  # a finished run is read several times before it is returned
def parse_record(text: str, *, where: str) -> Record:
    """Parse a record from its JSON.

    Raises:
        RunError: the text is damaged, no record, or written by a newer denature.
    """
    try:
        raw = parse_json(text)
    except ValueError as error:
        if (left := left_by_download(text)) is not None:
            raise UnreadableRecord(f"{where} {left}.") from None
        raise RunError(
            f"{where} is damaged: {error}. Delete the run's folder, and make the run again."
        ) from None
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if not isinstance(schema, int):
        raise RunError(f"{where} is not a run's record: it has no schema number.")
    if not 1 <= schema <= SCHEMA:
        raise UnreadableRecord(
            f"{where} has schema {schema}; this denature reads up to {SCHEMA}. "
            "Upgrade it: pip install -U denature"
        )
    try:
        return decode(Record, raw, where=where)
    except ConfigError as error:
        raise RunError(str(error)) from None


def find_records(places: Iterable[Path]) -> list[Record]:
    """Read the records of runs, of all runs below other folders, and in files of records.

    A file of records is JSON lines, as `write_records` writes it.

    Raises:
        RunError: a place is neither a run nor a file of records, and holds no run.
    """
    records: list[Record] = []
    for place in places:
        if place.suffix == ".jsonl" and place.is_file():
            records += _records_in(place)
            continue
        runs = [place] if (place / RECORD).is_file() else _runs_below(place)
        if not runs:
            raise RunError(f"{place} is no run and holds none: no record.json in or below it.")
        records += map(read_record, runs)
    return records


def _records_in(file: Path) -> Iterator[Record]:
    """The records in a file of JSON lines."""
    try:
        with open_regular(file) as lines:
            for number, line in enumerate(iter(partial(lines.readline, MOST_JSON), b""), 1):
                if line.strip():
                    yield parse_record(line.decode(), where=f"{file}, line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{file} cannot be read: {error}.") from None


def _runs_below(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.rglob(RECORD))


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write records as JSON lines: all that a report needs, without the weights."""
    write_text(path, "".join(record.to_json() + "\n" for record in records))


def environment() -> dict[str, Any]:
    """Versions, commit and machine, as far as they can be determined."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for package in ("denature", "torch", "numpy", "pyarrow", "pillow", "scikit-learn"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # such as denature itself in a bare checkout
            continue
    return {
        "versions": versions,
        "commit": _commit(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
    }


def today() -> str:
    """The date in UTC, as in 2026-11-26."""
    return datetime.now(UTC).date().isoformat()


@cache
def _commit() -> str | None:
    """The checkout's commit, `+changes` where files differ from it; None for an installed wheel."""
    import subprocess

    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        changes = git("status", "--porcelain", "--untracked-files=no")
        return commit + ("+changes" if changes else "")
    except (OSError, subprocess.SubprocessError):
        return None
