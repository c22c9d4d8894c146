"""Data files that lie about their contents."""

import gzip
import os
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.lies import LARGEST, MIB, Load, case, loading, many, npy, npz, written, zip_of


@case
def archive_of_a_large_member(folder: Path) -> Load:
    first, test = (tarfile.TarInfo(f"c/{name}") for name in ("data_batch_1", "test_batch"))
    first.size = 448 * 8 * MIB
    data = gzip.compress(first.tobuf()) + gzip.compress(bytes(8 * MIB)) * 448
    return loading(written(folder / "a.tar.gz", data + gzip.compress(test.tobuf() + bytes(1024))))


@case
def archive_of_a_large_header(folder: Path) -> Load:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 448 * 8 * MIB
    data = gzip.compress(info.tobuf()) + gzip.compress(bytes(8 * MIB)) * 448
    return loading(written(folder / "a.tar.gz", data))


@case
def archive_of_many_members(folder: Path) -> Load:
    block = gzip.compress(tarfile.TarInfo("a").tobuf() * 4096)
    return loading(written(folder / "a.tar.gz", block * (LARGEST // len(block))))


@case
def zip_of_many_members(folder: Path) -> Load:
    entry = b"PK\1\2" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"a"
    count = LARGEST // len(entry) - 10
    end = struct.pack("<HHHHIIH", 0, 0, 65535, 65535, count * len(entry), 0, 0)
    return loading(written(folder / "a.zip", entry * count + b"PK\5\6" + end))


@case
def zip_packed_by_lzma(folder: Path) -> Load:
    head = struct.pack("<HH", 0, 5) + b"\x5d" + struct.pack("<I", 2**31)
    names = {"t/wnids.txt": (head + bytes(99), 99, 14), "t/val/val_annotations.txt": (b"", 0, 0)}
    return loading(written(folder / "a.zip", zip_of(names)))


def cifar(folder: Path, data: bytes) -> Load:
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        written(folder / name, data)
    return loading(folder)


@case
def pickle_of_many_objects(folder: Path) -> Load:
    return cifar(folder, b"\x80\x02" + many(b"}"))


@case
def packed_pickle_of_many_objects(folder: Path) -> Load:
    first, test = (tarfile.TarInfo(f"c/{name}") for name in ("data_batch_1", "test_batch"))
    first.size = 160 * MIB
    data = gzip.compress(first.tobuf()) + gzip.compress(b"}" * (8 * MIB)) * 20
    return loading(written(folder / "a.tar.gz", data + gzip.compress(test.tobuf() + bytes(1024))))


@case
def packed_pickle_within_the_limit(folder: Path) -> Load:
    first, test = (tarfile.TarInfo(f"c/{name}") for name in ("train", "test"))
    head = b"\x80\x02}X\4\0\0\0dataB" + struct.pack("<I", 148 * MIB)
    first.size = 152 * MIB + len(head)
    zeros = gzip.compress(bytes(8 * MIB)) * 19
    data = gzip.compress(first.tobuf() + head) + zeros
    pad = bytes(-len(head) % 512)
    end = gzip.compress(pad + test.tobuf() + bytes(1024))
    return loading(written(folder / "a.tar.gz", data + end))


@case
def pickle_of_shared_lists(folder: Path) -> Load:
    levels: list[Any] = [0] * 1000
    for _ in range(3):
        levels = [levels] * 1000
    return cifar(folder, pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": levels}, 2))


@case
def pickle_that_encodes_again(folder: Path) -> Load:
    text = pickle.dumps("a" * (8 * MIB), 2)[2:-1]
    again = b"c_codecs\nencode\nq\x01h\x00X\6\0\0\0latin1\x86q\x02R" + b"h\x01h\x02R" * 1000
    return cifar(folder, b"\x80\x02(" + text + again + b"l.")


@case
def npz_of_zeros(folder: Path) -> Load:
    shape = (900_000, 32, 32, 3)
    return loading(npz(folder / "a.npz", x_train=(shape, "|u1", False),
                       y_train=((900_000,), "<i8", False)), holdout=0.5)  # fmt: skip


@case
def npz_of_many_labels(folder: Path) -> Load:
    shapes: dict[str, Any] = {"x_train": ((MIB, 1, 1), "|u1", False)}
    return loading(npz(folder / "a.npz", **shapes, y_train=((480 * MIB,), "<i8", False)))


@case
def npz_by_columns(folder: Path) -> Load:
    shapes: dict[str, Any] = {"x_train": ((900_000, 32, 32, 3), "|u1", True)}
    return loading(npz(folder / "a.npz", **shapes, y_train=((900_000,), "<i8", False)))


@case
def npz_of_an_absurd_shape(folder: Path) -> Load:
    head = npy((10**30, 8, 8), "|u1")
    members = {"x_train.npy": (head, len(head), 0), "y_train.npy": (head, len(head), 0)}
    return loading(written(folder / "a.npz", zip_of(members)))


@case
def parquet_of_large_cells(folder: Path) -> Load:
    cells = pa.array([b"\0" * (30 * MIB)] * 8, pa.binary())
    table = pa.table({"image": cells, "label": [0, 1] * 4})
    pq.write_table(table, folder / "train.parquet", compression="zstd")
    return loading(folder, holdout=0.5)


@case
def parquet_of_cells_within_the_limit(folder: Path) -> Load:
    cells = pa.array([np.random.default_rng(0).bytes(18 * MIB) + bytes(17 * MIB)] * 8, pa.binary())
    table = pa.table({"image": cells, "label": [0, 1] * 4})
    pq.write_table(table, folder / "train.parquet", compression="zstd")
    return loading(folder, holdout=0.5)


@case
def parquet_of_large_pages(folder: Path) -> Load:
    table = pa.table({"image": [bytes([n]) * (30 * MIB) for n in range(6)], "label": [0, 1] * 3})
    pq.write_table(table, folder / "train.parquet", compression="zstd", use_dictionary=False)
    return loading(folder, holdout=0.5)


@case
def parquet_of_large_names(folder: Path) -> Load:
    table = pa.table({"image": [b"0"] * 8, "label": ["a" * (30 * MIB)] * 8})
    pq.write_table(table, folder / "train.parquet", compression="zstd")
    return loading(folder, holdout=0.5)


@case
def parquet_of_long_lists(folder: Path) -> Load:
    lists = pa.ListArray.from_arrays([0, 2, 8 * MIB], pa.array(np.zeros(8 * MIB, np.float32)))
    table = pa.table({"image": [b"0"] * 2, "landmarks": lists})
    pq.write_table(table, folder / "train.parquet", compression="zstd")
    return loading(folder, holdout=0.5)


def picture(folder: Path, image: Image.Image, name: str, **options: Any) -> Load:
    for place in "ab":
        (folder / place).mkdir(parents=True)
    image.save(folder / "a" / name, **options)
    for copy in ("a/1", "b/0", "b/1"):
        os.link(folder / "a" / name, folder / f"{copy}{name}")
    return loading(folder, image_size=8, holdout=0.5)


@case
def picture_png_of_one_bit(folder: Path) -> Load:
    return picture(folder / "x", Image.new("1", (6324, 6324)), "a.png")


@case
def picture_png_with_transparency(folder: Path) -> Load:
    return picture(folder / "x", Image.new("P", (6324, 6324)), "a.png", transparency=b"\0\1")


@case
def picture_progressive_jpeg(folder: Path) -> Load:
    return picture(folder / "x", Image.new("RGB", (6324, 6324)), "a.jpg", progressive=True)


@case
def picture_lossless_webp(folder: Path) -> Load:
    return picture(folder / "x", Image.new("RGBA", (4000, 4000)), "a.webp", lossless=True, method=0)


@case
def picture_packed_tiff(folder: Path) -> Load:
    return picture(folder / "x", Image.new("RGB", (6324, 6324)), "a.tif",
                   compression="tiff_adobe_deflate")  # fmt: skip


@case
def pictures_of_any_size(folder: Path) -> Load:
    image = Image.new("L", (3000, 3000))
    for number in range(12):
        path = folder / "x" / "abcd"[number % 4] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return loading(folder / "x", holdout=0.5)


@case
def lists_of_tiny_imagenet(folder: Path) -> Load:
    written(folder / "wnids.txt", many(b"ab\n"))
    written(folder / "val" / "val_annotations.txt", many(b"a\tb\n"))
    return loading(folder)


@case
def list_of_classes(folder: Path) -> Load:
    written(folder / "classes.txt", many(b"ab\n"))
    pq.write_table(pa.table({"image": [b"0"], "label": [0]}), folder / "train.parquet")
    return loading(folder)


@case
def images_enlarged_for_a_victim(folder: Path) -> Load:
    images = np.zeros((1000, 8, 8), np.uint8)
    np.savez(folder / "a.npz", x_train=images, y_train=np.arange(1000) % 10)
    return loading(folder / "a.npz", image_size=512, holdout=0.5)
