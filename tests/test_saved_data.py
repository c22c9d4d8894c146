"""Folders that save_to_disk left are read without the library."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from denature.core.errors import DataError
from denature.data import load
from tests.layouts import png

COUNT = 20


def saved(folder: Path, count: int = COUNT, *, files: int = 2, **options: Any) -> Path:
    """What `Dataset.save_to_disk` writes, by pyarrow."""
    folder.mkdir(parents=True)
    info = {"info": {"features": {"label": {"names": list("abcd"), "_type": "ClassLabel"}}}}
    cells = [{"bytes": png(number), "path": None} for number in range(count)]
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table(
        {"image": pa.array(cells, image), "label": pa.array(range(count), pa.int64())}
    ).replace_schema_metadata({"huggingface": json.dumps(info)})
    labels = pa.array([number % 4 for number in range(count)], pa.int64())
    table = table.set_column(1, "label", labels)
    names = [f"data-{number:05}-of-{files:05}.arrow" for number in range(files)]
    for number, name in enumerate(names):
        part = table.slice(number * count // files, count // files)
        with (
            pa.OSFile(str(folder / name), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as out,
        ):
            out.write_table(part, max_chunksize=3)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "f"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_a_saved_data_set_is_read_without_its_library(tmp_path: Path) -> None:
    folder = saved(tmp_path / "d")
    (folder / "cache-1.arrow").write_bytes(b"of map")
    found = load(folder, holdout=0.2)
    assert (found.classes, len(found.train), len(found.test)) == (("a", "b", "c", "d"), 16, 4)
    one = load(saved(tmp_path / "e", files=1) / "data-00000-of-00001.arrow", holdout=0.2)
    assert one.digest == found.digest


def test_a_saved_dictionary_has_its_splits(tmp_path: Path) -> None:
    for split, count in {"train": 20, "validation": 8, "test": 8, "mine": 4}.items():
        saved(tmp_path / "d" / split, count)
    splits = {"splits": ["train", "validation", "test", "mine"]}
    (tmp_path / "d" / "dataset_dict.json").write_text(json.dumps(splits))
    found = load(tmp_path / "d")
    assert (len(found.train), len(found.validation or ()), len(found.test)) == (20, 8, 8)
    assert found.left_out == {"split mine": 1}


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_packed_batches_are_refused(codec: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is packed"):
        load(saved(tmp_path / "d", compression=codec), holdout=0.5)


@pytest.mark.parametrize("name", ["../d/data-00000-of-00002.arrow", "", "..", 3])
def test_a_state_that_leads_elsewhere_is_refused(name: Any, tmp_path: Path) -> None:
    folder = saved(tmp_path / "d")
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(DataError, match="wanted are names in its folder"):
        load(folder, holdout=0.5)


def damages(data: bytes) -> Iterator[bytes]:
    """Files that are cut off or have other bytes, most of them in the headers."""
    draw = random.Random(0)
    for number in range(60):
        damaged = bytearray(data)
        for _ in range(3):
            damaged[draw.randrange(len(data) if number % 3 == 0 else 1000)] = draw.randrange(256)
        yield bytes(damaged)
        yield data[: draw.randrange(len(data))]


def test_damaged_files_are_errors_of_one_kind(tmp_path: Path) -> None:
    file = saved(tmp_path / "d", files=1) / "data-00000-of-00001.arrow"
    for data in damages(file.read_bytes()):
        file.write_bytes(data)
        try:
            load(file, holdout=0.5)
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017 - some damage changes nothing
