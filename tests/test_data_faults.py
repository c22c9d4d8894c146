"""Faults that a review found in the reading of data, each held by a test."""

import base64
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from denature.core.errors import ConfigError, DataError
from denature.data import DataConfig, Dataset, load
from denature.nets import create


def png(value: int, *, colour: bool = False, size: int = 8) -> bytes:
    shape = (size, size, 3) if colour else (size, size)
    buffer = io.BytesIO()
    Image.fromarray(np.full(shape, value % 256, np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def shard(file: Path, images: list[bytes], labels: list[int], *, column: str = "image") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({column: pa.array(images, pa.binary()), "label": labels}), file)
    return file


def read(source: Path, **options: object) -> Dataset:
    return load(DataConfig(source=str(source), **options))  # type: ignore[arg-type]


FEW = ([png(i) for i in range(6)], [0, 1, 2] * 2)


def test_a_test_split_alone_is_never_trained_on(tmp_path: Path) -> None:
    shard(tmp_path / "test.parquet", *FEW)
    with pytest.raises(DataError, match="only the split test and no training split"):
        read(tmp_path)


def test_folders_above_the_data_do_not_name_splits(tmp_path: Path) -> None:
    inside = tmp_path / "dev" / "test_x"
    shard(inside / "part-0.parquet", *FEW)
    assert len(read(inside, holdout=0.5).train) == 3
    assert len(read(inside / "part-0.parquet", holdout=0.5).train) == 3


@pytest.mark.parametrize("name", ["cifar10-test.parquet", "my.test.parquet", "a/test/b.parquet"])
def test_a_split_may_be_any_word_of_a_name(tmp_path: Path, name: str) -> None:
    shard(tmp_path / "cifar10-train.parquet", *FEW)
    shard(tmp_path / name, FEW[0][:3], FEW[1][:3])
    data = read(tmp_path)
    assert (len(data.train), len(data.test)) == (6, 3)


def test_colour_after_much_grey_starts_again_with_three_channels(tmp_path: Path) -> None:
    """Chunks are decoded at the same time: those at work must not see the change."""
    images = [png(i, size=32) for i in range(600)] + [
        png(i, colour=True, size=32) for i in range(600)
    ]
    shard(tmp_path / "train.parquet", images, [0, 1] * 600)
    data = read(tmp_path, holdout=0.5)
    assert data.channels == 3
    assert [int(p) for p in data.train.images[:600, 0, 0, 0]] == [i % 256 for i in range(600)]


def test_class_names_that_come_later_are_seen(tmp_path: Path) -> None:
    shard(tmp_path / "train.parquet", *FEW)
    assert read(tmp_path, holdout=0.5).classes == ("0", "1", "2")
    (tmp_path / "classes.txt").write_text("ant\nbee\ncow\n")
    assert read(tmp_path, holdout=0.5).classes == ("ant", "bee", "cow")


def test_a_changed_picture_behind_a_path_is_decoded_again(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(4)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(png(number))
    pq.write_table(pa.table({"image": names, "label": [0, 1] * 2}), tmp_path / "train.parquet")
    assert int(read(tmp_path, holdout=0.5).train.images[0].max()) == 0
    (tmp_path / "0.png").write_bytes(png(200) + b" ")
    assert int(read(tmp_path, holdout=0.5).train.images[0].max()) == 200


def test_a_size_that_was_asked_for_holds_for_arrays_too(tmp_path: Path) -> None:
    assert read(Path("digits"), image_size=16).image_size == 16
    pixels = np.zeros((8, 20, 20, 3), np.uint8)
    np.savez(tmp_path / "d.npz", x_train=pixels, y_train=np.arange(8) % 2)
    assert read(tmp_path / "d.npz", image_size=10, holdout=0.5).image_size == 10


def test_another_holdout_does_not_decode_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard(tmp_path / "train.parquet", *FEW)
    read(tmp_path, holdout=0.5)
    monkeypatch.setattr("denature.data.decode.to_array", None)
    assert len(read(tmp_path, holdout=0.34).test) == 2


def test_unlabelled_test_images_give_way_to_the_validation_split(tmp_path: Path) -> None:
    shard(tmp_path / "train.parquet", *FEW)
    shard(tmp_path / "test.parquet", FEW[0], [-1] * 6)
    with pytest.raises(DataError, match="nothing to test on"):
        read(tmp_path)
    shard(tmp_path / "validation.parquet", FEW[0][:3], FEW[1][:3])
    data = read(tmp_path)
    assert (data.test_origin, len(data.test)) == ("validation", 3)


def damaged(kind: str) -> bytes:
    buffer = io.BytesIO()
    pixels, labels = np.zeros((4, 8, 8), np.uint8), np.arange(4)
    if kind == "no y_test":
        np.savez(buffer, x_train=pixels, y_train=labels, x_test=pixels)
    elif kind == "a scalar":
        np.savez(buffer, x_train=pixels, y_train=np.int64(3))
    elif kind == "a lone array":
        np.save(buffer, pixels)
    elif kind == "huge":
        np.savez(buffer, x_train=pixels, y_train=np.full(4, 2**64 - 1, np.uint64))
    else:
        np.savez(buffer, x_train=pixels, y_train=labels)
    whole = bytearray(buffer.getvalue())
    if kind == "half":
        return bytes(whole[: len(whole) // 2])
    if kind == "empty":
        return b""
    if kind == "flipped":
        whole[200] ^= 255
    return bytes(whole)


@pytest.mark.parametrize(
    "kind", ["half", "empty", "flipped", "no y_test", "a scalar", "a lone array", "huge"]
)
def test_a_damaged_npz_is_one_clear_error(tmp_path: Path, kind: str) -> None:
    (tmp_path / "d.npz").write_bytes(damaged(kind))
    with pytest.raises(DataError, match=r"d\.npz"):
        read(tmp_path / "d.npz", holdout=0.5)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_an_array_without_images_is_named(tmp_path: Path, kind: type) -> None:
    pixels, labels = np.zeros((8, 8, 8), np.uint8), np.arange(8) % 2
    none: np.ndarray = np.zeros((0, 8, 8)).astype(kind)
    np.savez(tmp_path / "d.npz", x_train=pixels, y_train=labels, x_test=none, y_test=labels[:0])
    with pytest.raises(DataError, match=r"test split of .* holds no image"):
        read(tmp_path / "d.npz")


BASE64 = base64.b64encode(np.random.default_rng(0).bytes(9000)).decode()
NO_PATHS = {
    "base64": BASE64,
    "little base64": BASE64[:250],
    "base64 without slashes": BASE64.replace("/", "+"),
    "a URI with data": f"data:image/png;base64,{BASE64}",
    "a URL": "https://example.org/pictures/0.png",
    "NUL": "0.png" + chr(0),
}


@pytest.mark.parametrize("kind", NO_PATHS)
@pytest.mark.parametrize("struct", [False, True])
def test_texts_that_are_no_paths_are_named_in_short(
    tmp_path: Path, kind: str, struct: bool
) -> None:
    text = NO_PATHS[kind]
    cells = [{"bytes": None, "path": text}] * 4 if struct else [text] * 4
    file = tmp_path / "train.parquet"
    pq.write_table(pa.table({"image": cells, "label": [0, 1] * 2}), file)
    with pytest.raises(DataError, match=r"train.parquet, row 0") as raised:
        read(tmp_path, holdout=0.5)
    assert len(str(raised.value)) < 400
    if kind != "little base64":
        assert "no path of an image file" in str(raised.value)


INSTEAD = {
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
                "is a Git LFS pointer.*git lfs pull"),
    "page": (b"<!DOCTYPE html>\n<html><head><title>Sign in</title>", "is an HTML page.*login"),
    "json": (b'{"error": "quota"}', "is JSON.*download the file again"),
    "empty": (b"", "is empty. Download it again"),
}  # fmt: skip
FILES = ("a.npz", "A.NPZ", "p.parquet", "folder/train.parquet", "cifar-10-python.tar.gz", "t.zip")


@pytest.mark.parametrize("what", INSTEAD)
@pytest.mark.parametrize("name", FILES)
def test_what_a_download_left_in_place_of_a_file_is_named(
    tmp_path: Path, what: str, name: str
) -> None:
    data, said = INSTEAD[what]
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    with pytest.raises(DataError, match=said) as raised:
        read(file.parent if "folder" in name else file)
    assert str(raised.value).startswith(f"{file} ")
    assert "weights" not in str(raised.value)


@pytest.mark.parametrize("what", ["pointer", "page", "json"])
def test_what_a_download_left_in_place_of_a_picture_is_named(tmp_path: Path, what: str) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(INSTEAD[what][0])
    with pytest.raises(DataError, match=r"a/0.png cannot be decoded.*it " + INSTEAD[what][1]):
        read(tmp_path, holdout=0.5)


@pytest.mark.parametrize("layout", ["cifar-10-batches-bin", "cifar-10-batches-py"])
def test_pointers_in_place_of_cifar_are_named(tmp_path: Path, layout: str) -> None:
    suffix = ".bin" if layout.endswith("bin") else ""
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (tmp_path / f"{name}{suffix}").write_bytes(INSTEAD["pointer"][0])
    with pytest.raises(DataError, match=rf"data_batch_1{suffix} is a Git LFS pointer"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["TRAIN.PARQUET", "Train.Parquet"])
def test_a_suffix_may_be_written_large(tmp_path: Path, name: str) -> None:
    assert len(read(shard(tmp_path / name, *FEW), holdout=0.5).train) == 3
    assert len(read(tmp_path, holdout=0.5).train) == 3
    pixels, labels = np.zeros((8, 8, 8), np.uint8), np.arange(8) % 2
    with open(tmp_path / "A.NPZ", "wb") as file:
        np.savez(file, x_train=pixels, y_train=labels)
    assert len(read(tmp_path / "A.NPZ", holdout=0.5).train) == 4


def test_shards_with_other_columns_are_named(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.parquet", *FEW)
    shard(tmp_path / "train-1.parquet", *FEW, column="img")
    with pytest.raises(DataError, match=r"train-1\.parquet lacks the column image"):
        read(tmp_path)


def test_a_column_that_cannot_hold_images_is_refused(tmp_path: Path) -> None:
    shard(tmp_path / "train.parquet", *FEW)
    with pytest.raises(DataError, match=r"label .* is int64; it cannot hold the image"):
        read(tmp_path, image_column="label")


def bomb() -> bytes:
    """A PNG of a few bytes that says it is 60,000 pixels a side."""

    def part(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", b"") + part(b"IEND", b"")


def test_a_decompression_bomb_is_a_bad_image(tmp_path: Path) -> None:
    shard(tmp_path / "train.parquet", [*FEW[0], bomb()], [*FEW[1], 0])
    with pytest.raises(DataError, match="row 6 cannot be decoded"):
        read(tmp_path, holdout=0.5)
    assert read(tmp_path, holdout=0.5, skip_bad=True).skipped == 1


@pytest.mark.parametrize("label", [3_000_000_000, -2])
def test_an_absurd_label_is_named_with_its_row(tmp_path: Path, label: int) -> None:
    shard(tmp_path / "train.parquet", FEW[0], [0, 1, 2, 0, label, 2])
    with pytest.raises(DataError, match=rf"row 4: the label is {label}"):
        read(tmp_path, holdout=0.5)


def test_a_split_without_one_good_image_is_named(tmp_path: Path) -> None:
    shard(tmp_path / "train.parquet", [b"no image"] * 3, [0, 1, 2])
    with pytest.raises(DataError, match=rf"train split of {tmp_path} holds no image"):
        read(tmp_path, holdout=0.5, skip_bad=True)


@pytest.mark.parametrize("mode", ["I;16", "P"])
def test_unusual_modes_are_read(tmp_path: Path, mode: str) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        if mode == "I;16":
            image = Image.fromarray(np.full((8, 8), 40_000, np.uint16))
        else:
            image = Image.new("P", (8, 8), 1)
            image.putpalette([0, 0, 0, 156, 156, 156])
            image.info["transparency"] = b"\x00\xff"
        for number in range(2):
            image.save(tmp_path / name / f"{number}.png")
    assert set(read(tmp_path, holdout=0.5).train.images.flatten().tolist()) == {156}


def test_pixels_of_32_bits_are_refused_rather_than_guessed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "a" / "0.tiff")
    with pytest.raises(DataError, match="32 bits"):
        read(tmp_path, holdout=0.5)


def test_a_fraction_does_not_forget_all_rare_classes(tmp_path: Path) -> None:
    labels = np.array([0] * 100 + list(range(1, 51)))
    np.savez(tmp_path / "d.npz", x_train=np.zeros((150, 8, 8), np.uint8), y_train=labels,
             x_test=np.zeros((1, 8, 8), np.uint8), y_test=labels[:1])  # fmt: skip
    few = read(tmp_path / "d.npz").train.fraction(0.3)
    kept = few.labels[few.rows]
    assert len(kept) == 45
    assert 25 <= int((kept == 0).sum()) <= 35


@pytest.mark.parametrize("name", ["math:pi", "builtins:len", ".x:y", "broken_net:build"])
def test_a_factory_that_makes_no_network_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken_net.py").write_text("def build(:\n")
    with pytest.raises(ConfigError, match=name):
        create(name, classes=3)
