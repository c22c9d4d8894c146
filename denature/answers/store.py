"""A store of a network's answers on disk, filled as training goes, shared by every later run.

A store is a folder with `store.json`, which says whose answers to what it holds, and `answers.bin`:
one record per sample and view, at the place that the two give it. A record is its checksum and the
answer's words. The checksum covers words and place and is never 0, which is what a hole reads as.
So a record that was torn, damaged or never written is simply not there and is asked for again; no
locks are needed, and any number of processes may fill one store, since all would write the same.

The file has its full size from the start: a view more fills holes all over it anyway, and where the
disk is too small that shows here. It is mapped to be read and written with ordinary writes, because
a page of a mapping that finds no room kills the process.
"""

import hashlib
import json
import os
import secrets
import shutil
import weakref
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from denature.answers.coding import Coding, Float32, Values, Words
from denature.core.errors import RunError
from denature.core.files import atomic_folder, write_text
from denature.core.seeds import generator

HEADER, ANSWERS = "store.json", "answers.bin"

FORMAT = 1
"""Raise it when the bytes change."""

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreKey:
    """Whose answers, to what, in which form: stores of other keys are other stores."""

    network: str
    """Digest of the network's weights."""
    net: str
    """Its name in the catalogue, or its factory's."""
    form: dict[str, Any]
    """See `denature.answers.inference.Inference.form`."""
    data: str
    """Digest of the images."""
    samples: int
    views: dict[str, Any]
    """The family of views, field by field."""
    view_count: int
    classes: int
    storage: str
    words: int
    """32-bit words of an answer."""
    revisions: dict[str, int]
    """Of our code that decides answers."""
    kind: str = "logits"
    format: int = FORMAT

    @property
    def digest(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def nbytes(self) -> int:
        """Size of a full store."""
        return 4 * (1 + self.words) * self.samples * self.view_count


@dataclass(frozen=True, slots=True)
class StoreState:
    """What a store holds."""

    present: int
    damaged: int
    total: int


@final
class Store:
    """An open store; see the module's text for what is on disk.

    Made by `open_store`, which creates or replaces what is not a store of this key.
    """

    def __init__(self, folder: Path, key: StoreKey, coding: Coding) -> None:
        self.folder = folder
        self.key = key
        self._coding = coding
        self._width = 1 + key.words
        shape = (key.samples * key.view_count, self._width)
        self._records: Words = np.memmap(folder / ANSWERS, np.uint32, "r", shape=shape)
        # A descriptor and no file object: it lives as long as the store, which nobody closes.
        self._file = os.open(folder / ANSWERS, os.O_RDWR | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._file)
        # Multilinear hashing modulo 2^64, the upper half kept, is strongly universal (Lemire and
        # Kaser 2014, arXiv:1202.4961): whatever happened to a record shows but once in 2^32.
        draws = generator(0, "store", "checksum").integers(0, 2**64, 2 + key.words, dtype=np.uint64)
        self._shift, self._scale, self._weights = draws[0], draws[1], draws[2:]

    def discard(self) -> None:
        """Remove it; whoever has it open, as this object has, goes on with what is mapped."""
        _discard(self.folder)

    def places(self, samples: Places, views: Places) -> Places:
        """Where the records of (sample, view) lie."""
        return samples * self.key.view_count + views

    def read(self, places: Places) -> tuple[Values, npt.NDArray[np.bool_]]:
        """Answers, n x classes, and which of them are there; the others' values mean nothing."""
        records = self._records[places]
        words = records[:, 1:]
        return self._coding.decode(words), records[:, 0] == self._checksums(places, words)

    def write(self, places: Places, values: Values) -> None:
        """Keep rounded answers at places.

        Raises:
            RunError: the disk is full, or cannot be written.
        """
        order = np.argsort(places, kind="stable")
        places, words = places[order], self._coding.encode(values[order])
        records = np.concatenate([self._checksums(places, words)[:, None], words], axis=1)
        ends = np.flatnonzero(np.diff(places) != 1) + 1
        starts = [0, *ends.tolist()]
        try:
            for start, end in zip(starts, [*ends.tolist(), len(places)], strict=True):
                os.lseek(self._file, int(places[start]) * self._width * 4, os.SEEK_SET)
                _write_all(self._file, records[start:end].tobytes())
        except OSError as error:
            raise RunError(
                f"Answers could not be stored in {self.folder}: {error.strerror or error}. "
                "Those before are kept; make room, or go on without with --store off."
            ) from None

    def standing(self) -> StoreState:
        """Look at every record."""
        total, present, damaged = len(self._records), 0, 0
        for start in range(0, total, 1 << 18):
            places = np.arange(start, min(total, start + (1 << 18)))
            records = self._records[start : start + (1 << 18)]
            good = records[:, 0] == self._checksums(places, records[:, 1:])
            present += int(good.sum())
            damaged += int((~good & records.any(axis=1)).sum())
        return StoreState(present, damaged, total)

    def some_present(self, count: int) -> Places:
        """Up to `count` places whose answers are there, from all over the store."""
        step = max(1, len(self._records) // (64 * count))
        candidates = np.arange(0, len(self._records), step)
        found = candidates[self.read(candidates)[1]]
        return found[:: max(1, len(found) // count)][:count]

    def _checksums(self, places: Places, words: Words) -> Words:
        sums = words.astype(np.uint64) @ self._weights
        sums += places.astype(np.uint64) * self._scale + self._shift
        found = (sums >> np.uint64(32)).astype(np.uint32)
        return np.where(found == 0, np.uint32(1), found)


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """A store on disk, as who lists them sees it."""

    folder: Path
    key: StoreKey | None
    """None where the store is damaged."""
    about: dict[str, Any]
    used: float
    """When it was last opened, in seconds since 1970."""
    nbytes: int
    """What it takes on disk."""

    def open(self) -> Store:
        """Open it to look at it.

        Raises:
            RunError: it is damaged.
        """
        if self.key is None:
            raise RunError(f"The store {self.folder} is damaged; the next run makes it anew.")
        return Store(self.folder, self.key, Float32(self.key.words))


def find_stores(root: Path) -> list[StoreInfo]:
    """All stores under a folder, the last used first."""
    found = []
    for header in root.glob(f"*/{HEADER}"):
        folder, key, about = header.parent, None, {}
        try:
            raw = json.loads(header.read_text(encoding="utf-8"))
            key, about = StoreKey(**raw["key"]), dict(raw["about"])
            if key.digest != folder.name or not _holds(folder, key):
                key = None
        except (OSError, ValueError, KeyError, TypeError):
            key = None
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        found.append(StoreInfo(folder, key, about, folder.stat().st_mtime, size))
    return sorted(found, key=lambda store: -store.used)


def open_store(root: Path, key: StoreKey, coding: Coding, *, about: dict[str, Any]) -> Store:
    """The store of `key` under `root`, made if there is none.

    What lies in its place and is damaged, or another key's, is removed.

    Args:
        root: a folder of stores.
        key: whose answers to what.
        coding: how they are kept.
        about: for people who list stores; not part of the key.

    Raises:
        RunError: it cannot be made.
    """
    folder = root / key.digest
    try:
        if folder.exists() and not _holds(folder, key):
            _discard(folder)
        if not folder.exists():
            _create(folder, key, about)
        os.utime(folder)  # prune goes by it
        return Store(folder, key, coding)
    except OSError as error:
        raise RunError(
            f"The store of answers {folder} cannot be made: {error.strerror or error}. "
            "Name another folder with --store, or go on without with --store off."
        ) from None


def _holds(folder: Path, key: StoreKey) -> bool:
    try:
        header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
        size = (folder / ANSWERS).stat().st_size
        return bool(header["key"] == asdict(key) and size == key.nbytes)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _create(folder: Path, key: StoreKey, about: dict[str, Any]) -> None:
    with atomic_folder(folder, complete=lambda: _holds(folder, key)) as new:
        with open(new / ANSWERS, "wb") as file:
            if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
                os.posix_fallocate(file.fileno(), 0, key.nbytes)
            file.truncate(key.nbytes)
        header = {"key": asdict(key), "about": about}
        write_text(new / HEADER, json.dumps(header, indent=1) + "\n")


def _discard(folder: Path) -> None:
    """Remove a store; who has it open keeps what is mapped."""
    trash = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    with suppress(FileNotFoundError):  # another process was first
        os.rename(folder, trash)
        shutil.rmtree(trash)
