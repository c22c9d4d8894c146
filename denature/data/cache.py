"""Decoded images on disk: written once per state of the source, mapped into memory after that."""

import hashlib
import json
import re
import secrets
import shutil
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from denature.core.errors import DataError
from denature.core.files import atomic_folder
from denature.core.progress import Progress, Task
from denature.core.sealed import sealed, unsealed
from denature.core.text import line_of
from denature.core.untrusted import MIB, read_json
from denature.data.config import DataConfig
from denature.data.dataset import Split
from denature.data.decode import BLOCK_BYTES, ColourFound, DecodedBlock, Decoder, Encoded
from denature.data.places import cache_root
from denature.data.source import DataSource, Opener

MOST_META, MOST_VALUES = 256 * MIB, 512 * MIB
"""Bytes of a list of paths, or of facts, and of its values at most: those of 4 million images."""

VERSION = 4
"""Raise this number when the cached content of a source changes."""

MISFITS = (FileNotFoundError, ValueError, KeyError, TypeError, EOFError)
"""What is raised where a folder of the cache is missing or damaged; other errors, such as too many
open files, say nothing of the folder."""

BLACK, DIM = 17, 65
"""Limits of the upper byte of 16 bits: values below use at most 12 bits, or at most 14.

Pillow rounds the upper byte of 16-bit colours in .ppm, so each limit is one higher."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Every split of a source, decoded."""

    splits: dict[str, Split]
    classes: tuple[str, ...]
    digest: str
    skipped: int
    left_out: dict[str, int]
    """Number of images and files that were not read, by reason."""
    notes: tuple[str, ...]
    """Further lines for the user."""
    folder: Path

    def paths(self, split: str) -> list[str]:
        """Paths of a split's images in the source; empty where the source has no paths."""
        listed = self.folder / f"{split}.paths.json"
        try:
            found: list[str] = (
                read_json(listed, most=MOST_META, values=MOST_VALUES) if listed.exists() else []
            )
        except (OSError, ValueError):
            raise DataError(
                f"{listed} is damaged. Remove {self.folder}; images are then decoded again."
            ) from None
        return found


MEMORY = "memory:"
"""Begins the names of data that a caller had in memory; a digest follows."""


def keep(source: DataSource, config: DataConfig, progress: Progress) -> str:
    """Decode a source without a name, such as arrays of a caller, into the cache.

    Returns:
        Its name there, `memory:` and a digest of pixels, labels and class names: the same data have
        the same name, in any process that shares the cache.
    """
    root = cache_root() / "data"
    new = root / f".memory.{secrets.token_hex(4)}.tmp"
    new.mkdir(parents=True)
    try:
        _write(new, source, config, progress)
        found = _read(new, source)
        about = json.dumps([found.digest, found.classes])
        name = MEMORY + hashlib.sha256(about.encode()).hexdigest()[:16]
        folder = _folder_of(name)
        try:
            _read(folder, source)
        except MISFITS:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # another process was faster
                new.rename(folder)
            _check_kept(folder, source)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return name


def _check_kept(folder: Path, source: DataSource) -> None:
    """Check that data in memory came into the cache.

    Raises:
        DataError: they did not, as on a full disk.
    """
    try:
        _read(folder, source)
    except (OSError, *MISFITS) as error:
        raise DataError(
            f"The given data could not be written to {folder}: {line_of(error)}. Free space there, "
            "or name another cache with the environment variable DENATURE_CACHE."
        ) from None


def kept(config: DataConfig, progress: Progress) -> Decoded:
    """Data that `keep` has named; in another size they are resized, and cached like files.

    Raises:
        DataError: the cache does not hold them.
    """
    try:
        found = _read(_folder_of(config.source), DataSource({}, None, ()))
    except MISFITS:
        raise DataError(
            f"{config.source} names data that were given from Python, and {cache_root()} does not "
            "hold them, or no more. Give the data themselves again."
        ) from None
    split = next(iter(found.splits.values()))
    if config.image_size in (None, split.images.shape[-1]):
        return found

    def opener(split: Split) -> Opener:
        each = max(1, BLOCK_BYTES // (split.images[0].numel() or 1))
        return lambda: (
            DecodedBlock(split.images[rows].numpy(), split.labels[rows].numpy())
            for rows in split.rows.split(each)
        )

    source = DataSource(
        {name: opener(split) for name, split in found.splits.items()},
        found.classes,
        (config.source,),
        landmarks=split.landmarks,
    )
    return decoded(source, config, progress)


def _folder_of(name: str) -> Path:
    """The folder of data with a name of `keep`.

    Raises:
        ValueError: no such name.
    """
    digest = name.removeprefix(MEMORY)
    if not re.fullmatch(r"[0-9a-f]{16}", digest):
        raise ValueError(name)
    return cache_root() / "data" / f"memory-{digest}"


def decoded(source: DataSource, config: DataConfig, progress: Progress) -> Decoded:
    """Map the splits of `source` from the cache; the first time they are decoded into it."""
    reading = {"source": config.source, "size": config.image_size, "skip_bad": config.skip_bad}
    wanted = {"version": VERSION, "fingerprint": source.fingerprint, **reading}
    key = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:20]
    folder = cache_root() / "data" / key
    if folder.exists():
        try:
            return _read(folder, source)
        except MISFITS:
            progress.say(f"{folder} is damaged; {config.source} is decoded again")
            shutil.rmtree(folder, ignore_errors=True)  # so may another process
    with atomic_folder(folder, complete=(folder / "meta.json").exists) as new:
        _write(new, source, config, progress)
    return _read(folder, source)


def _write(folder: Path, source: DataSource, config: DataConfig, progress: Progress) -> None:
    decoder = Decoder(
        image_size=config.image_size, skip_bad=config.skip_bad, stretch=source.landmarks
    )
    while True:
        try:
            title = f"decoding {config.source}"
            with progress.task(title, source.total or 0, "images") as task:
                written = {
                    name: _write_split(folder, name, opener(), decoder, task, source, config.source)
                    for name, opener in source.splits.items()
                }
            break
        except ColourFound:
            decoder.skipped.clear()
    unlabelled = {name: split for name, split in written.items() if isinstance(split, int)}
    splits = {name: split for name, split in written.items() if not isinstance(split, int)}
    if not splits:
        raise DataError(f"No split of {config.source} has labels.")
    shapes = {tuple(split["shape"]) for split in splits.values()}
    if len(shapes) > 1:
        raise DataError(
            f"The splits of {config.source} hold images of different shapes: "
            f"{', '.join('x'.join(map(str, s)) for s in sorted(shapes))}. Pass --image-size."
        )
    digest = hashlib.sha256("".join(f"{n}{splits[n]['sha256']}" for n in sorted(splits)).encode())
    highest = max(split["highest"] for split in splits.values())
    classes = source.classes or tuple(str(label) for label in range(highest + 1))
    if source.landmarks or not source.labelled:
        classes = source.classes or ()
    elif highest >= len(classes):
        raise DataError(
            f"A label of {config.source} is {highest}, but there are only {len(classes)} classes; "
            f"labels go from 0 to {len(classes) - 1}."
        )
    meta = {
        "source": config.source,
        "splits": splits,
        "classes": classes,
        "digest": digest.hexdigest()[:16],
        "skipped": decoder.skipped,
        "unlabelled": unlabelled,
        "files": {file.name: file.stat().st_size for file in folder.iterdir()},
        "sha256": {file.name: _digest(file) for file in _small(folder)},
        "told": [split["dark"] for split in splits.values() if split["dark"]],
    }
    (folder / "meta.json").write_text(json.dumps(sealed(meta), indent=1))


def _small(folder: Path) -> list[Path]:
    """The files that are checked when they are read; images would take seconds per gigabyte."""
    return [file for file in folder.iterdir() if file.suffix in (".npy", ".json")]


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _write_split(
    folder: Path,
    name: str,
    samples: Iterable[Encoded] | Iterable[DecodedBlock],
    decoder: Decoder,
    task: Task,
    origin: DataSource,
    source: str,
) -> dict[str, Any] | int:
    """Write one split, and return its facts.

    Images without labels, such as hub copies of ImageNet's test images, are not written; their
    number is returned instead.
    """
    labels: list[np.ndarray] = []
    paths: list[str] = []
    shape: tuple[int, ...] = ()
    digest = hashlib.sha256()
    decoder.deep.clear()
    with open(folder / f"{name}.images", "wb") as file:
        for block in _blocks(samples, decoder):
            for piece in decoder.pieces(block.images):
                images = decoder.resized(block.images[piece])
                shape = images.shape[1:]
                file.write(images.data)
                digest.update(images.data)
            labels.append(block.labels)
            paths += block.paths
            task.advance(len(block.labels), name)
    try:
        merged = np.concatenate(labels) if labels else np.empty(0, np.int64)
    except ValueError:
        raise DataError(
            f"Images of {source} have different numbers of landmarks; wanted is one number."
        ) from None
    if not len(merged):
        raise DataError(f"The {name} split of {source} holds no image that can be decoded.")
    dark = _dark(decoder.deep, f"the {name} split of {source}")
    if any(paths):
        (folder / f"{name}.paths.json").write_text(json.dumps(paths), "utf-8")
    if merged.dtype == np.float32:  # coordinates, which were checked one by one
        np.save(folder / f"{name}.labels.npy", merged)
        digest.update(merged.data)
        return _about(merged, shape, digest.hexdigest(), dark, highest=0)
    if name != "train" and merged.max() < 0:
        (folder / f"{name}.images").unlink()
        return len(merged)
    if merged.min() < 0 and origin.labelled:
        raise DataError(
            f"{source}: image {int(merged.argmin())} of the {name} split has the label "
            f"{merged.min()}; labels go from 0 to classes - 1."
        )
    np.save(folder / f"{name}.labels.npy", merged)
    digest.update(merged.data)
    return _about(merged, shape, digest.hexdigest(), dark, highest=int(merged.max()))


def _about(
    labels: np.ndarray, shape: tuple[int, ...], digest: str, dark: str, *, highest: int
) -> dict[str, Any]:
    about = {"count": len(labels), "shape": list(shape), "sha256": digest, "highest": highest}
    return {**about, "dark": dark}


def _dark(deep: Sequence[int], where: str) -> str:
    """A note that images of 16 bits are dark, from their upper bytes; empty where they are not.

    Raises:
        DataError: the images use low bits only, as 8 or 12 bits in files of 16 do.
    """
    if not deep or max(deep) >= DIM:
        return ""
    dim = (
        f"no value of the {len(deep):,} images of 16 bits in {where} is above "
        f"{max(deep) * 256 + 255:,}, and white is 65,535"
    )
    if max(deep) < BLACK:
        raise DataError(
            f"{dim[0].upper()}{dim[1:]}: they would be read as black. Write them with 8 bits, "
            "or scale them to 0..65,535."
        )
    return f"{dim}: the images are read without brightening."


def _blocks(samples: Iterable[Any], decoder: Decoder) -> Iterable[DecodedBlock]:
    """Decoded blocks unchanged; encoded images decoded into blocks."""
    iterator = iter(samples)
    first = next(iterator, None)
    if isinstance(first, DecodedBlock):
        yield first
        yield from iterator
    elif first is not None:

        def everything() -> Iterable[Encoded]:
            yield first
            yield from iterator

        yield from decoder.blocks(everything())


def _read(folder: Path, source: DataSource) -> Decoded:
    """Map the files of a cache folder.

    Raises:
        OSError, ValueError, KeyError, TypeError, EOFError: a file is missing or damaged.
    """
    meta = unsealed(read_json(folder / "meta.json", most=MOST_META, values=MOST_VALUES))
    for file, size in meta["files"].items():
        if (folder / file).stat().st_size != size:
            raise ValueError(f"{file} is cut off")
    for file, digest in meta.get("sha256", {}).items():  # absent in caches of earlier versions
        if _digest(folder / file) != digest:
            raise ValueError(f"{file} is damaged")
    splits = {}
    for name, split in meta["splits"].items():
        shape = (split["count"], *split["shape"])
        pixels = np.memmap(folder / f"{name}.images", np.uint8, mode="r", shape=shape)
        # Mapped first: the header of a damaged file may declare any size.
        labels = np.array(np.lib.format.open_memmap(folder / f"{name}.labels.npy", mode="r"))
        with warnings.catch_warnings():
            # torch has no read-only tensors; nothing here writes into images.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            images = torch.from_numpy(pixels)
        splits[name] = Split(images, torch.from_numpy(labels), torch.arange(len(labels)))
    left_out = {f"unlabelled {name} image": count for name, count in meta["unlabelled"].items()}
    return Decoded(
        splits,
        tuple(meta["classes"]),
        meta["digest"],
        len(meta["skipped"]),
        {**source.left_out, **left_out},
        (*source.notes, *meta["told"]),
        folder,
    )
