"""Small data sets with known pixels and labels, in every layout that is read."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from denature.core.errors import DataError
from denature.data import DataConfig, Dataset, Split, load

CLASSES = ("ant", "bee", "cat")


class Samples(NamedTuple):
    """What a split holds; uint8 images as n x channels x size x size."""

    images: np.ndarray
    labels: list[int]


def samples(
    count: int, *, channels: int = 3, size: int = 8, seed: int = 0, labels: Sequence[int] = ()
) -> Samples:
    """Random images, in the order of their labels, as image folders list them."""
    shape = (count, channels, size, size)
    images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Samples(images, list(labels) or sorted(i % len(CLASSES) for i in range(count)))


def pair(channels: int = 3) -> dict[str, Samples]:
    return {"train": samples(6, channels=channels), "test": samples(3, channels=channels, seed=1)}


def content(split: Split) -> Samples:
    return Samples(split.images[split.rows].numpy(), split.labels[split.rows].tolist())


def assert_holds(dataset: Dataset, expected: dict[str, Samples]) -> None:
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    assert {name for name, split in splits.items() if split} == expected.keys()
    for name, wanted in expected.items():
        split = splits[name]
        assert split is not None
        found = content(split)
        assert found.images.dtype == np.uint8
        np.testing.assert_array_equal(found.images, wanted.images)
        assert found.labels == wanted.labels


def encoded(image: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """One image, channels x height x width, as a file holds it."""
    file = io.BytesIO()
    picture = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(picture).save(file, kind, **options)
    return file.getvalue()


def truncated_jpeg() -> bytes:
    whole = encoded(samples(1, size=32).images[0], "JPEG", quality=95)
    return whole[: len(whole) // 2]


# What a cell of the image column may be. Each takes the encoded image, the shard's folder and the
# number of the image, and may leave a file.
Cell = Callable[[bytes, Path, str], Any]


def in_struct(image: bytes, folder: Path, name: str) -> dict[str, Any]:
    return {"bytes": image, "path": name}


def as_bytes(image: bytes, folder: Path, name: str) -> bytes:
    return image


def as_path(image: bytes, folder: Path, name: str) -> str:
    (folder / "pictures").mkdir(exist_ok=True)
    (folder / "pictures" / name).write_bytes(image)
    return f"pictures/{name}"


def path_in_struct(image: bytes, folder: Path, name: str) -> dict[str, Any]:
    return {"bytes": None, "path": as_path(image, folder, name)}


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
CELLS: dict[Cell, pa.DataType] = {
    in_struct: STRUCT,
    path_in_struct: STRUCT,
    as_bytes: pa.binary(),
    as_path: pa.string(),
}


def write_shard(file: Path, split: Samples, *, cell: Cell = in_struct, **options: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    cells = [
        cell(encoded(image), file.parent, f"{file.stem}-{i}.png")
        for i, image in enumerate(split.images)
    ]
    return write_cells(file, cells, split.labels, CELLS[cell], **options)


def write_cells(
    file: Path,
    cells: Sequence[Any],
    marks: Sequence[int | None],
    kind: pa.DataType = STRUCT,
    images: str = "image",
    labels: str = "label",
    more: dict[str, Any] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = {labels: pa.array(marks, pa.int64()), images: pa.array(cells, kind)}
    table = pa.table({**(more or {}), **columns})
    pq.write_table(table.replace_schema_metadata(metadata), file)
    return file


def write_tree(root: Path, split: Samples, *, suffix: str = ".png") -> Path:
    """<class>/<number>.png below `root`."""
    for number, (image, label) in enumerate(zip(*split, strict=True)):
        folder = root / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:03}{suffix}").write_bytes(encoded(image))
    return root


def write_npz(
    file: Path,
    splits: dict[str, Samples],
    shape: Callable[[np.ndarray], np.ndarray] = np.asarray,
    label_type: Any = np.int64,
) -> Path:
    arrays = {f"x_{name}": shape(split.images) for name, split in splits.items()}
    arrays |= {f"y_{name}": np.array(split.labels, label_type) for name, split in splits.items()}
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file


Splits = dict[str, Samples]


def shards_of(
    cell: Cell, name: str = "{}-00000-of-00001.parquet"
) -> Callable[[Path, Splits], Path]:
    def write(root: Path, splits: Splits) -> Path:
        for split, held in splits.items():
            write_shard(root / name.format(split), held, cell=cell)
        return root

    return write


def several_shards(root: Path, splits: Splits) -> Path:
    for split, (images, labels) in splits.items():
        for number, part in enumerate((slice(2), slice(2, None))):
            file = root / "data" / f"{split}-{number:05}-of-00002.parquet"
            write_shard(file, Samples(images[part], labels[part]))
    return root


def folders(root: Path, splits: Splits) -> Path:
    for split, held in splits.items():
        write_tree(root / split, held)
    return root


def archive(**options: Any) -> Callable[[Path, Splits], Path]:
    def write(root: Path, splits: Splits) -> Path:
        root.mkdir(exist_ok=True)
        return write_npz(root / "data.npz", splits, **options)

    return write


LAYOUTS: dict[str, Callable[[Path, Splits], Path]] = {
    "parquet of {bytes, path}": shards_of(in_struct),
    "parquet of {path}": shards_of(path_in_struct),
    "parquet of bytes": shards_of(as_bytes),
    "parquet of paths": shards_of(as_path),
    "parquet in a folder per split": shards_of(in_struct, "data/{}/part-0.parquet"),
    "parquet in several shards": several_shards,
    "image folders": folders,
    "npz n c h w": archive(),
    "npz n h w c": archive(shape=lambda images: images.transpose(0, 2, 3, 1)),
    "npz of floats": archive(shape=lambda images: images.astype(np.float32) / 255),
    "npz of doubles": archive(shape=lambda images: images / 255),
    "npz with uint8 labels": archive(label_type=np.uint8),
    "npz with labels as a column": archive(label_type=np.int32),
}


def broken(source: Path | str, *parts: object, **options: Any) -> None:
    """Loading `source` raises one line that contains all `parts`."""
    with pytest.raises(DataError) as raised:
        load(DataConfig(source=str(source), **options))
    message = str(raised.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message
