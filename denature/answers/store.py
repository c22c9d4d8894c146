"""A store of a network's answers on disk, filled during training and shared by all later runs.

A store is a folder with `store.json`, the key of network, images and form, and `answers.bin`: one
record per sample and view, at the place that the two define. A record is a checksum and the words
of the answer. The checksum covers words and place and is never 0, the value that a hole reads as.
So a torn, damaged or unwritten record counts as missing, and its answer is computed again. No locks
are needed: any number of processes may fill one store, since all write the same bytes.

The file has its full size from the start: each further view fills holes all over it, and a disk
that is too small fails at once. Reads go through a memory map and writes through ordinary calls,
because a page of a map without room on the disk kills the process.
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
from denature.core.untrusted import read_json

HEADER, ANSWERS = "store.json", "answers.bin"

FORMAT = 1
"""Version of the file format; raise it when the bytes change."""

RowNumbers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreKey:
    """Identity of a store: the network, the images and the form of its answers."""

    network: str
    """Digest of the network's weights."""
    net: str
    """Name of the network in the catalogue, or of its factory."""
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
    """Number of 32-bit words of an answer."""
    revisions: dict[str, int]
    """Revisions of the code that determines answers; see `denature.core.revisions`."""
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
    """Numbers of records in a store: present, damaged, and in total."""

    present: int
    damaged: int
    total: int


@final
class Store:
    """An open store; the module's docstring describes its files.

    `open_store` makes one, and creates or replaces a folder that is not a store of this key.
    """

    def __init__(self, folder: Path, key: StoreKey, coding: Coding) -> None:
        self.folder = folder
        self.key = key
        self._coding = coding
        self._width = 1 + key.words
        shape = (key.samples * key.view_count, self._width)
        self._records: Words = np.memmap(folder / ANSWERS, np.uint32, "r", shape=shape)
        # A descriptor instead of a file object: a store has no close(), the finalizer closes it.
        self._file = os.open(folder / ANSWERS, os.O_RDWR | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._file)
        # Multilinear hashing modulo 2^64, the upper half kept, is strongly universal (Lemire and
        # Kaser 2014, arXiv:1202.4961): a damaged record goes unnoticed once in 2^32.
        draws = generator(0, "store", "checksum").integers(0, 2**64, 2 + key.words, dtype=np.uint64)
        self._shift, self._scale, self._weights = draws[0], draws[1], draws[2:]

    def discard(self) -> None:
        """Remove the store; processes that have it open keep their mapped copy."""
        _discard(self.folder)

    def places(self, samples: RowNumbers, views: RowNumbers) -> RowNumbers:
        """Places of the records of (sample, view) pairs."""
        return samples * self.key.view_count + views

    def read(self, places: RowNumbers) -> tuple[Values, npt.NDArray[np.bool_]]:
        """Answers, n x classes, and a mask of those present; other values mean nothing."""
        records = self._records[places]
        words = records[:, 1:]
        return self._coding.decode(words), records[:, 0] == self._checksums(places, words)

    def write(self, places: RowNumbers, values: Values) -> None:
        """Write rounded answers at places.

        Raises:
            RunError: the disk is full or not writable.
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
                "Those before are kept; make room, or pass --store off."
            ) from None

    def standing(self) -> StoreState:
        """Verify every record and count those present and damaged."""
        total, present, damaged = len(self._records), 0, 0
        for start in range(0, total, 1 << 18):
            places = np.arange(start, min(total, start + (1 << 18)))
            records = self._records[start : start + (1 << 18)]
            good = records[:, 0] == self._checksums(places, records[:, 1:])
            present += int(good.sum())
            damaged += int((~good & records.any(axis=1)).sum())
        return StoreState(present, damaged, total)

    def some_present(self, count: int) -> RowNumbers:
        """Up to `count` places of present answers, spread over the whole store."""
        step = max(1, len(self._records) // (64 * count))
        candidates = np.arange(0, len(self._records), step)
        found = candidates[self.read(candidates)[1]]
        return found[:: max(1, len(found) // count)][:count]

    def _checksums(self, places: RowNumbers, words: Words) -> Words:
        sums = words.astype(np.uint64) @ self._weights
        sums += places.astype(np.uint64) * self._scale + self._shift
        found = (sums >> np.uint64(32)).astype(np.uint32)
        return np.where(found == 0, np.uint32(1), found)


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """A store on disk, as listings show it."""

    folder: Path
    key: StoreKey | None
    """The key; None where the store is damaged."""
    about: dict[str, Any]
    used: float
    """Time of the last opening, in seconds since 1970."""
    nbytes: int
    """Size on disk, in bytes."""

    def open(self) -> Store:
        """Open the store for inspection.

        Raises:
            RunError: the store is damaged.
        """
        if self.key is None:
            raise RunError(f"The store {self.folder} is damaged; the next run creates it again.")
        return Store(self.folder, self.key, Float32(self.key.words))


def find_stores(root: Path) -> list[StoreInfo]:
    """All stores under a folder, the most recently used first."""
    found = []
    for header in root.glob(f"*/{HEADER}"):
        folder, key, about = header.parent, None, {}
        try:
            raw = read_json(header)
            key, about = StoreKey(**raw["key"]), dict(raw["about"])
            if key.digest != folder.name or not _holds(folder, key):
                key = None
        except (OSError, ValueError, KeyError, TypeError):
            key = None
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        found.append(StoreInfo(folder, key, about, folder.stat().st_mtime, size))
    return sorted(found, key=lambda store: -store.used)


def open_store(root: Path, key: StoreKey, coding: Coding, *, about: dict[str, Any]) -> Store:
    """Open the store of `key` under `root`; create it if there is none.

    A damaged store, or one of another key, in its place is removed.

    Args:
        root: a folder of stores.
        key: identity of the store.
        coding: format of the answers.
        about: facts for listings of stores; not part of the key.

    Raises:
        RunError: the store cannot be created.
    """
    folder = root / key.digest
    try:
        if folder.exists() and not _holds(folder, key):
            _discard(folder)
        if not folder.exists():
            _create(folder, key, about)
        os.utime(folder)  # pruning removes stores by this time
        return Store(folder, key, coding)
    except OSError as error:
        raise RunError(
            f"The store of answers {folder} cannot be made: {error.strerror or error}. "
            "Name another folder with --store, or pass --store off."
        ) from None


def _holds(folder: Path, key: StoreKey) -> bool:
    try:
        header = read_json(folder / HEADER)
        size = (folder / ANSWERS).stat().st_size
        return bool(header["key"] == asdict(key) and size == key.nbytes)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _create(folder: Path, key: StoreKey, about: dict[str, Any]) -> None:
    with atomic_folder(folder, complete=lambda: _holds(folder, key)) as new:
        with open(new / ANSWERS, "wb") as file:
            if hasattr(os, "posix_fallocate"):  # missing on macOS and Windows
                os.posix_fallocate(file.fileno(), 0, key.nbytes)
            file.truncate(key.nbytes)
        header = {"key": asdict(key), "about": about}
        write_text(new / HEADER, json.dumps(header, indent=1) + "\n")


def _discard(folder: Path) -> None:
    """Remove a store; processes that have it open keep their mapped copy."""
    trash = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    with suppress(FileNotFoundError):  # another process was first
        os.rename(folder, trash)
        shutil.rmtree(trash)
