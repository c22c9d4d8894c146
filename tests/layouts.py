"""Small data sets of random images, in folders and Parquet files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from denature.data import DataConfig, Dataset, load

CATS = ["dog", "cat", "dog", "cat", "emu", "dog"]
"""Of classes cat, dog, emu."""


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def images(root: Path, **folders: int) -> Path:
    """So many images in each folder; two underscores stand for a slash."""
    return pictures(root, {name.replace("__", "/"): count for name, count in folders.items()})


def pictures(root: Path, folders: dict[str, int]) -> Path:
    for place, (name, count) in enumerate(folders.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / name / f"{number}.png").write_bytes(png(100 * place + number))
    return root


def shards(root: Path, files: dict[str, int]) -> Path:
    for place, (name, count) in enumerate(files.items()):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cells = pa.array([png(100 * place + number) for number in range(count)], pa.binary())
        labels = [number % 2 for number in range(count)]
        pq.write_table(pa.table({"image": cells, "label": labels}), root / name)
    return root


def read(source: Path, **options: float) -> Dataset:
    return load(DataConfig(source=str(source), **options))  # type: ignore[arg-type]


def sizes(data: Dataset) -> tuple[int, int, int]:
    return len(data.train), len(data.validation or ()), len(data.test)


def table(file: Path, columns: dict[str, Any], metadata: dict[str, str] | None = None) -> Path:
    """Columns beside an image in each row."""
    file.parent.mkdir(parents=True, exist_ok=True)
    count = len(next(iter(columns.values()))) if columns else 4
    cells = [{"bytes": png(number), "path": None} for number in range(count)]
    made = pa.table({**columns, "image": cells})
    pq.write_table(made.replace_schema_metadata(metadata), file)
    return file


def labels_of(data: Dataset) -> list[int]:
    return [int(label) for label in data.train.labels]
