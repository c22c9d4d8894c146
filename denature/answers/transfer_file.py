"""A transfer set on disk, with its images and the test images of its clones.

One safetensors file, written atomically: arrays are tensors, all else is JSON in the file's
metadata, so reading executes nothing.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from denature.answers.kinds import AnswerKind
from denature.answers.transfer import Transfer
from denature.core.checkpoints import open_safetensors
from denature.core.errors import ConfigError, RunError
from denature.core.schema import decode
from denature.core.sealed import content_digest, read_tensors, write_tensors
from denature.core.untrusted import parse_json
from denature.data.config import DataConfig
from denature.data.dataset import Dataset, Split

FOLDER = "transfers"
"""Folder of the files, in the folder of the transfer set."""

FORMAT = 1

SPLITS = ("train", "test", "validation")


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """All of a file but its arrays."""

    format: int = FORMAT
    kind: AnswerKind
    victim: str
    recipe: str
    config: DataConfig
    classes: tuple[str, ...]
    digest: str
    """Digest of the data set, see `Dataset.digest`."""
    test_origin: str
    holdout: float
    skipped: int
    left_out: dict[str, int]
    content: str = ""
    """sha256 of the arrays, with their names, types and shapes."""


def save_transfer(transfer: Transfer, dataset: Dataset) -> Path:
    """Write a transfer set and its data into the folder of the transfer set, unless it is there.

    Args:
        transfer: the answers.
        dataset: the answered images as training split, and the test images.

    Returns:
        The file, with its full path.

    Raises:
        ConfigError: the transfer set has no folder.
        OSError: the file could not be written.
    """
    if transfer.folder is None:
        raise ConfigError(
            f"The transfer set of {transfer.victim} is in this process's memory only; give it a "
            "folder."
        )
    header = Header(
        kind=transfer.kind,
        victim=transfer.victim,
        recipe=transfer.recipe,
        config=dataset.config,
        classes=dataset.classes,
        digest=dataset.digest,
        test_origin=dataset.test_origin,
        holdout=dataset.holdout,
        skipped=dataset.skipped,
        left_out=dict(dataset.left_out),
    )
    named = hashlib.sha256(f"{transfer.digest} {json.dumps(asdict(header))}".encode()).hexdigest()
    path = transfer.folder.resolve() / FOLDER / f"{named[:16]}.safetensors"
    if path.exists():
        return path
    splits = {"train": dataset.train, "test": dataset.test, "validation": dataset.validation}
    tensors = {"values": transfer.values}
    for name, split in splits.items():
        if split is not None:
            tensors |= _tensors(name, split)
    header = replace(header, content=content_digest(tensors))
    write_tensors(path, tensors, {"header": json.dumps(asdict(header))})
    return path


def load_transfer(path: Path, *, folder: Path | None = None) -> tuple[Transfer, Dataset]:
    """Read a file that `save_transfer` wrote, without a defense.

    Types and shapes are checked before any array is read.

    Args:
        path: the file.
        folder: folder of the transfer set, as records name it; by default the one of the file.

    Raises:
        RunError: the file is missing, damaged, or of a newer denature.
    """
    from safetensors import SafetensorError

    try:
        with open_safetensors(path) as file:
            header = decode(Header, parse_json(file.metadata()["header"]), where=str(path))
            if header.format != FORMAT:
                raise ConfigError(f"format is {header.format}, this denature reads {FORMAT}")
            _check_names(file, header)
        tensors, _ = read_tensors(path)
        if header.content != content_digest(tensors):
            raise ConfigError("its arrays are not those that were written")
        splits = {name: _split(name, tensors) for name in SPLITS}
        dataset = _dataset(header, splits)
        transfer = Transfer(
            header.kind,
            tensors["values"],
            victim=header.victim,
            recipe=header.recipe,
            folder=path.parent.parent if folder is None else folder,
        )
        transfer.check(dataset)
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, ConfigError) as error:
        raise RunError(
            f"The transfer set {path} cannot be read: {str(error).rstrip('.')}. Delete the file, "
            "and run the same command again to write it anew."
        ) from None
    return transfer, dataset


def _tensors(name: str, split: Split) -> dict[str, Tensor]:
    parts = {"images": split.images, "labels": split.labels, "rows": split.rows}
    if split.groups is not None:
        parts["groups"] = split.groups
    return {f"{name}/{part}": tensor for part, tensor in parts.items()}


def _check_names(file: Any, header: Header) -> None:
    """Check that types and shapes of a file's arrays fit each other and the header.

    Raises:
        ConfigError: they do not fit.
    """
    names = list(file.keys())
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    types = {name: file.get_slice(name).get_dtype() for name in names}
    outputs, labelled = len(header.classes), header.kind == "label"
    images = shapes["train/images"]
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {
        "values": ("I64", images[:1]) if labelled else ("F32", (images[0], outputs))
    }
    for split in SPLITS:
        if f"{split}/images" not in shapes:
            continue
        count = shapes[f"{split}/images"][0]
        located = types[f"{split}/labels"] == "F32"
        wanted |= {
            f"{split}/images": ("U8", (count, images[1], images[-1], images[-1])),
            f"{split}/labels": ("F32", (count, outputs)) if located else ("I64", (count,)),
            f"{split}/rows": ("I64", (shapes[f"{split}/rows"][0],)),
        }
        if f"{split}/groups" in shapes:
            wanted[f"{split}/groups"] = ("I64", (count,))
    found = {name: (types[name], shapes[name]) for name in names}
    if found != wanted:
        odd = sorted(name for name in found.keys() | wanted if found.get(name) != wanted.get(name))
        raise ConfigError(f"{odd[0]} is {found.get(odd[0])}, wanted is {wanted.get(odd[0])}")


def _split(name: str, tensors: Mapping[str, Tensor]) -> Split | None:
    """The split of this name; None where the file has none."""
    if f"{name}/images" not in tensors:
        return None
    split = Split(
        tensors[f"{name}/images"],
        tensors[f"{name}/labels"],
        tensors[f"{name}/rows"],
        tensors.get(f"{name}/groups"),
    )
    rows = split.rows
    if not len(rows) or not 0 <= int(rows.min()) <= int(rows.max()) < len(split.images):
        raise ConfigError(f"the rows of {name} do not lie among its {len(split.images)} images")
    return split


def _dataset(header: Header, splits: Mapping[str, Any]) -> Dataset:
    if splits["train"] is None or splits["test"] is None:
        raise ConfigError("it has no training or no test images")
    return Dataset(
        config=header.config,
        train=splits["train"],
        test=splits["test"],
        validation=splits["validation"],
        classes=header.classes,
        digest=header.digest,
        test_origin=header.test_origin,
        holdout=header.holdout,
        skipped=header.skipped,
        left_out=header.left_out,
    )
