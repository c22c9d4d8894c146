"""Every layout of a data set, its cache, its splits, and what is said of one that is broken."""

import io
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from denature.core.errors import ConfigError, DataError, MissingExtra
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


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_layout_keeps_every_pixel_and_label(tmp_path: Path, layout: str, channels: int) -> None:
    splits = pair(channels)
    dataset = load(str(LAYOUTS[layout](tmp_path / "data", splits)))
    assert_holds(dataset, splits)
    assert (dataset.channels, dataset.image_size) == (channels, 8)
    assert len(dataset.classes) == len(CLASSES)
    assert dataset.test_origin == "test"
    assert dataset.skipped == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_digest_says_what_is_held_and_not_how(tmp_path: Path, layout: str) -> None:
    here = load(str(LAYOUTS[layout](tmp_path / "data", pair()))).digest
    reference = load(str(write_npz(tmp_path / "reference.npz", pair()))).digest
    assert re.fullmatch("[0-9a-f]{16}", here)
    assert here == reference


def changed_pixel(splits: Splits) -> None:
    splits["train"].images[3, 0, 1, 1] ^= 1


def changed_label(splits: Splits) -> None:
    splits["test"].labels[0] = 1


def swapped_splits(splits: Splits) -> None:
    splits["train"], splits["test"] = splits["test"], splits["train"]


@pytest.mark.parametrize("change", [changed_pixel, changed_label, swapped_splits])
def test_the_digest_tells_what_differs(tmp_path: Path, change: Callable[[Splits], None]) -> None:
    changed = pair()
    change(changed)
    first = load(str(write_npz(tmp_path / "a.npz", pair())))
    second = load(str(write_npz(tmp_path / "b.npz", changed)))
    assert first.digest != second.digest


def test_grey_images_in_an_npz_need_no_channel_axis(tmp_path: Path) -> None:
    splits = pair(channels=1)
    file = write_npz(tmp_path / "grey.npz", splits, shape=lambda images: images[:, 0])
    assert_holds(load(str(file)), splits)


def test_the_digits_are_those_of_scikit_learn(digits: Dataset) -> None:
    assert (len(digits.train), len(digits.test), digits.validation) == (1438, 359, None)
    assert (digits.channels, digits.image_size) == (1, 8)
    assert digits.classes == tuple("0123456789")
    assert digits.test_origin == "holdout"
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    together = torch.cat([digits.train.rows, digits.test.rows])
    assert together.sort().values.tolist() == list(range(1797))
    assert digits.train.labels.tolist() == labels.tolist()
    # 16 levels of grey become 0..255.
    levels = digits.train.images.reshape(1797, 64).numpy() * (16 / 255)
    np.testing.assert_allclose(levels, images, atol=0.04)


def test_statistics_are_those_of_the_training_pixels(tmp_path: Path) -> None:
    splits = pair()
    mean, deviation = load(str(write_npz(tmp_path / "a.npz", splits))).train.statistics()
    pixels = splits["train"].images / 255
    np.testing.assert_allclose(mean, pixels.mean((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(deviation, pixels.std((0, 2, 3)), rtol=1e-9)


def test_a_description_holds_what_is_worth_knowing(tmp_path: Path) -> None:
    dataset = load(str(write_npz(tmp_path / "a.npz", pair())))
    description = dataset.describe()
    assert json.loads(json.dumps(description)) == description
    assert (description["train"], description["test"], description["validation"]) == (6, 3, 0)
    assert description["image"] == "3x8x8, uint8"
    assert description["digest"] == dataset.digest


# Where the pieces of a data set are found.


@pytest.mark.parametrize("cell", CELLS)
def test_columns_are_found_by_type_under_any_name(tmp_path: Path, cell: Cell) -> None:
    splits = pair()
    for name, held in splits.items():
        write_shard(
            tmp_path / f"{name}.parquet",
            held,
            cell=cell,
            images="Fotografie",
            labels="Tierart",
            more={"weight": pa.array([0.5] * len(held.labels))},
        )
    assert_holds(load(str(tmp_path)), splits)


def test_a_struct_of_bytes_is_the_image_whatever_strings_stand_beside_it(tmp_path: Path) -> None:
    splits = pair()
    for name, held in splits.items():
        words = pa.array(["a word"] * len(held.labels))
        write_shard(
            tmp_path / f"{name}.parquet", held, images="seen", more={"caption": words, "by": words}
        )
    assert_holds(load(str(tmp_path)), splits)


@pytest.mark.parametrize("label", ["label", "labels", "fine_label", "target"])
def test_a_usual_name_wins_among_several_label_columns(tmp_path: Path, label: str) -> None:
    splits = pair()
    for name, held in splits.items():
        write_shard(
            tmp_path / f"{name}.parquet",
            held,
            labels=label,
            more={"identity": pa.array(range(len(held.labels)))},
        )
    assert_holds(load(str(tmp_path)), splits)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("test", "test"),
        ("valid", "validation"),
        ("validation", "validation"),
        ("val", "validation"),
        ("Validation", "validation"),
    ],
)
@pytest.mark.parametrize("pattern", ["{}.parquet", "{}-00000-of-00001.parquet", "{}/0.parquet"])
def test_a_file_or_its_folder_names_the_split(
    tmp_path: Path, name: str, split: str, pattern: str
) -> None:
    held = {
        "train": samples(6),
        "test": samples(3, seed=1),
        "validation": samples(3, seed=2),
    }
    for other in held:
        written = name if other == split else other
        write_shard(tmp_path / "data" / pattern.format(written), held[other])
    assert_holds(load(str(tmp_path / "data")), held)


def test_without_a_test_split_the_validation_split_is_tested_on(tmp_path: Path) -> None:
    held = {"train": samples(6), "valid": samples(3, seed=1)}
    dataset = load(str(shards_of(in_struct)(tmp_path, held)))
    assert_holds(dataset, {"train": held["train"], "test": held["valid"]})
    assert dataset.test_origin == "validation"


def test_image_folders_may_have_a_validation_split(tmp_path: Path) -> None:
    held = pair() | {"validation": samples(3, seed=2)}
    names = {"train": "Train", "test": "test", "validation": "val"}
    folders(tmp_path, {names[split]: samples_ for split, samples_ in held.items()})
    dataset = load(str(tmp_path))
    assert_holds(dataset, held)
    assert dataset.classes == CLASSES


def test_image_folders_without_splits_are_divided_by_holdout(tmp_path: Path) -> None:
    held = samples(30)
    write_tree(tmp_path / "data", held)
    dataset = load(DataConfig(source=str(tmp_path / "data"), holdout=0.2))
    assert dataset.classes == CLASSES
    assert dataset.test_origin == "holdout"
    assert [content(dataset.test).labels.count(label) for label in range(3)] == [2, 2, 2]
    assert len(dataset.train) == 24
    np.testing.assert_array_equal(dataset.train.images.numpy(), held.images)


def test_other_files_in_image_folders_are_left_alone(tmp_path: Path) -> None:
    splits = pair()
    folders(tmp_path, splits)
    (tmp_path / "README.md").write_text("hello")
    (tmp_path / "train" / CLASSES[0] / "notes.txt").write_text("hello")
    (tmp_path / ".git").mkdir()
    assert_holds(load(str(tmp_path)), splits)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".jpeg"])
def test_image_files_are_known_by_their_suffix(tmp_path: Path, suffix: str) -> None:
    """The bytes say what they are: a suffix only says that it is an image."""
    splits = pair()
    for name, held in splits.items():
        write_tree(tmp_path / name, held, suffix=suffix)
    assert_holds(load(str(tmp_path)), splits)


def test_a_class_without_test_images_keeps_its_number(tmp_path: Path) -> None:
    splits = {"train": samples(6), "test": samples(2, seed=1, labels=[2, 2])}
    dataset = load(str(folders(tmp_path, splits)))
    assert_holds(dataset, splits)
    assert dataset.classes == CLASSES


def test_class_names_come_from_what_the_hub_writes_into_a_schema(tmp_path: Path) -> None:
    feature = {"names": list(CLASSES), "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": feature}}})}
    for name, held in pair().items():
        write_shard(tmp_path / f"{name}.parquet", held, metadata=metadata)
    assert load(str(tmp_path)).classes == CLASSES


def test_class_names_come_from_a_list_beside_the_shards(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\nnever seen\n", encoding="utf-8")
    shards_of(in_struct)(tmp_path, pair())
    assert load(str(tmp_path)).classes == (*CLASSES, "never seen")


@pytest.mark.parametrize(
    "metadata", [None, {"huggingface": "no json"}, {"huggingface": '{"info": {}}'}]
)
def test_classes_without_names_are_called_by_their_numbers(
    tmp_path: Path, metadata: dict[str, str] | None
) -> None:
    for name, held in pair().items():
        write_shard(tmp_path / f"{name}.parquet", held, metadata=metadata)
    assert load(str(tmp_path)).classes == ("0", "1", "2")


# Pixels.


def test_grey_and_colour_together_become_colour(tmp_path: Path) -> None:
    grey, colour = samples(1, channels=1).images[0], samples(1).images[0]
    write_cells(tmp_path / "train.parquet", [encoded(grey), encoded(colour)], [0, 1], pa.binary())
    write_cells(tmp_path / "test.parquet", [encoded(colour)], [0], pa.binary())
    dataset = load(str(tmp_path))
    expected = np.stack([np.repeat(grey, 3, axis=0), colour])
    assert_holds(dataset, {"train": Samples(expected, [0, 1]), "test": Samples(colour[None], [0])})


@pytest.mark.parametrize("coloured", ["train", "test"])
def test_one_coloured_split_makes_all_of_them_coloured(tmp_path: Path, coloured: str) -> None:
    splits = pair(channels=1)
    splits[coloured] = samples(4, seed=3)
    dataset = load(str(shards_of(in_struct)(tmp_path, splits)))
    expected = {
        name: Samples(np.broadcast_to(held.images, (len(held.labels), 3, 8, 8)), held.labels)
        for name, held in splits.items()
    }
    assert_holds(dataset, expected)


def picture_modes() -> dict[str, tuple[Image.Image, int]]:
    """Pictures of one level of grey, by mode, and how many channels they have."""
    grey = Image.new("L", (8, 8), 200)
    deep = Image.fromarray(np.full((8, 8), 200 << 8, np.uint16))
    return {
        "16 bits": (deep, 1),
        "grey with alpha": (grey.convert("LA"), 1),
        "colour with alpha": (grey.convert("RGBA"), 3),
        "palette": (grey.convert("RGB").quantize(), 3),
    }


@pytest.mark.parametrize("mode", picture_modes())
def test_pictures_of_any_mode_become_eight_bits_a_channel(tmp_path: Path, mode: str) -> None:
    picture, channels = picture_modes()[mode]
    for split in ("train", "test"):
        folder = tmp_path / split / "all"
        folder.mkdir(parents=True)
        picture.save(folder / "0.png")
    dataset = load(str(tmp_path))
    assert dataset.channels == channels
    assert dataset.train.images.unique().tolist() == [200]


def test_images_of_any_shape_can_be_cropped_and_resized(tmp_path: Path) -> None:
    """The middle of a wide image, which has a grey of its own."""
    wide = np.zeros((1, 16, 32), np.uint8)
    wide[:, :, 8:24] = 77
    small = np.full((1, 4, 4), 77, np.uint8)
    for split in ("train", "test"):
        cells = [encoded(wide), encoded(small)]
        write_cells(tmp_path / f"{split}.parquet", cells, [0, 1], pa.binary())
    dataset = load(DataConfig(source=str(tmp_path), image_size=8))
    assert dataset.train.images.shape == (2, 1, 8, 8)
    assert dataset.train.images[:, :, :, 1:-1].unique().tolist() == [77]


def test_many_images_keep_their_order(tmp_path: Path) -> None:
    """More than are decoded at a time, in several threads."""
    held = samples(700, channels=1, size=4, labels=list(range(700)))
    splits = {"train": held, "test": samples(1, channels=1, size=4)}
    assert_holds(load(str(shards_of(as_bytes)(tmp_path, splits))), splits)


# The cache.


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, decoding an image fails the test."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("an image was decoded again")

    return lambda: monkeypatch.setattr(Image, "open", refuse)


DECODED = [name for name in LAYOUTS if not name.startswith("npz")]


@pytest.mark.parametrize("layout", DECODED)
def test_a_second_load_decodes_nothing_and_finds_the_same(
    tmp_path: Path, layout: str, no_decoding: Callable[[], None]
) -> None:
    splits = pair()
    root = LAYOUTS[layout](tmp_path / "data", splits)
    first = load(str(root))
    no_decoding()
    second = load(str(root))
    assert_holds(second, splits)
    assert second.digest == first.digest
    assert second.describe() == first.describe()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux lists what is mapped")
def test_cached_images_are_mapped_and_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A private copy would count as memory; mapped pages can be dropped, and are shared."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("DENATURE_CACHE", str(cache))
    dataset = load(str(write_npz(tmp_path / "a.npz", pair())))
    assert len(dataset.train) == 6
    with open("/proc/self/maps", encoding="utf-8") as maps:
        assert str(cache) in maps.read()


def set_back(file: Path) -> None:
    """Make a file older, so that what is written next is newer on any file system."""
    os.utime(file, ns=(0, file.stat().st_mtime_ns - 10**10))


@pytest.mark.parametrize(
    ("layout", "changed"),
    [
        ("parquet of {bytes, path}", "train-00000-of-00001.parquet"),
        ("npz n c h w", "data.npz"),
        ("image folders", "train/ant/000.png"),
    ],
)
def test_a_file_that_changed_is_decoded_again(tmp_path: Path, layout: str, changed: str) -> None:
    splits = pair()
    root = LAYOUTS[layout](tmp_path / "data", splits)
    folder = root if root.is_dir() else root.parent
    set_back(folder / changed)
    before = load(str(root))
    # In an npz the size of the file stays what it was.
    splits["train"].images[0] ^= 1
    LAYOUTS[layout](tmp_path / "data", splits)
    after = load(str(root))
    assert_holds(after, splits)
    assert after.digest != before.digest


def test_a_file_that_came_is_decoded(tmp_path: Path) -> None:
    splits = pair()
    load(str(folders(tmp_path, splits)))
    new = samples(1, seed=9)
    (tmp_path / "test" / CLASSES[2] / "999.png").write_bytes(encoded(new.images[0]))
    test = Samples(np.concatenate([splits["test"].images, new.images]), [0, 1, 2, 2])
    assert_holds(load(str(tmp_path)), splits | {"test": test})


def test_decoding_that_failed_leaves_nothing_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("DENATURE_CACHE", str(cache))
    splits = pair()
    root = folders(tmp_path / "data", splits)
    bad = root / "test" / CLASSES[0] / "bad.png"
    bad.write_bytes(b"no image")
    for _ in range(2):
        with pytest.raises(DataError, match=r"bad\.png"):
            load(str(root))
        assert not [path for path in cache.rglob("*") if path.is_file()]
    bad.unlink()
    assert_holds(load(str(root)), splits)


def test_other_ways_to_read_do_not_meet_in_the_cache(tmp_path: Path) -> None:
    root = str(folders(tmp_path, pair()))
    sizes = [load(DataConfig(source=root, image_size=size)).image_size for size in (4, 6, None)]
    assert sizes == [4, 6, 8]


def test_what_is_loaded_is_passed_through(digits: Dataset) -> None:
    assert load(digits) is digits


# What is said of a data set that is broken.


def broken(source: Path | str, *parts: object, **options: Any) -> None:
    """Loading `source` raises one line that contains all `parts`."""
    with pytest.raises(DataError) as raised:
        load(DataConfig(source=str(source), **options))
    message = str(raised.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    broken(tmp_path / "nowhere", tmp_path / "nowhere", "no file or folder")


def test_a_misspelt_name_is_answered_with_the_nearest_and_where_was_looked() -> None:
    broken("digts", "'digts'", "Did you mean digits?", Path("digts").absolute())


def test_an_empty_folder_is_named_with_what_was_looked_for(tmp_path: Path) -> None:
    broken(tmp_path, tmp_path, ".parquet", "train/<class>/", ".png")


def test_a_file_of_another_kind_is_named_with_what_is_wanted(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("1,2,3")
    broken(file, file, ".npz", ".parquet")


def folder_with(root: Path, bad: bytes) -> tuple[Path, str]:
    splits = {name: samples(n, size=32) for name, n in (("train", 6), ("test", 3))}
    folders(root, splits)
    file = root / "train" / CLASSES[1] / "002.png"
    file.write_bytes(bad)
    return root, str(file)


def shards_with(root: Path, bad: bytes) -> tuple[Path, str]:
    held = samples(6, size=32)
    cells = [bad if i == 2 else encoded(image) for i, image in enumerate(held.images)]
    file = write_cells(root / "train.parquet", cells, held.labels, pa.binary())
    write_shard(root / "test.parquet", samples(3, size=32))
    return root, f"{file}, row 2"


@pytest.mark.parametrize("write", [folder_with, shards_with])
@pytest.mark.parametrize("bad", [truncated_jpeg(), b"no image", b""], ids=["cut", "text", "empty"])
def test_a_bad_image_is_named_and_skipped_only_when_asked(
    tmp_path: Path, write: Callable[[Path, bytes], tuple[Path, str]], bad: bytes
) -> None:
    root, where = write(tmp_path / "data", bad)
    broken(root, where, "--skip-bad")
    dataset = load(DataConfig(source=str(root), skip_bad=True))
    assert dataset.skipped == 1
    assert dataset.describe()["skipped"] == 1
    held = samples(6, size=32)
    kept = [0, 1, 3, 4, 5]
    train = Samples(held.images[kept], [held.labels[i] for i in kept])
    assert_holds(dataset, {"train": train, "test": samples(3, size=32)})


def test_a_row_whose_file_is_missing_is_named(tmp_path: Path) -> None:
    shards_of(as_path)(tmp_path, pair())
    (tmp_path / "pictures" / "train-00000-of-00001-3.png").unlink()
    broken(tmp_path, "train-00000-of-00001.parquet, row 3", "pictures/train-00000-of-00001-3.png")


@pytest.mark.parametrize("cell", [None, {"bytes": None, "path": None}])
def test_a_row_without_an_image_is_named(tmp_path: Path, cell: object) -> None:
    good = {"bytes": encoded(samples(1).images[0]), "path": None}
    file = write_cells(tmp_path / "train.parquet", [good, cell], [0, 1])
    write_shard(tmp_path / "test.parquet", samples(3))
    broken(tmp_path, f"{file}, row 1", "neither")


def test_a_row_without_a_label_is_named(tmp_path: Path) -> None:
    good = {"bytes": encoded(samples(1).images[0]), "path": None}
    file = write_cells(tmp_path / "train.parquet", [good, good], [0, None])
    write_shard(tmp_path / "test.parquet", samples(3))
    broken(tmp_path, f"{file}, row 1", "label is None")


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "pictures/../../secret.png"])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.png").write_bytes(encoded(samples(1).images[0]))
    file = write_cells(tmp_path / "data" / "train.parquet", [path], [0], pa.string())
    broken(tmp_path / "data", f"{file}, row 0", path, "refused", holdout=0.5)


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(encoded(samples(1).images[0]))
    file = write_cells(tmp_path / "data" / "train.parquet", ["link.png"], [0], pa.string())
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "secret.png")
    broken(tmp_path / "data", f"{file}, row 0", "link.png", "refused", holdout=0.5)


def test_a_shard_cut_in_half_is_named(tmp_path: Path) -> None:
    shards_of(in_struct)(tmp_path, pair())
    file = tmp_path / "train-00000-of-00001.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    broken(tmp_path, file, "cut off", "Copy it again")


def test_a_shard_with_a_damaged_middle_is_named(tmp_path: Path) -> None:
    shards_of(in_struct)(tmp_path, pair())
    file = tmp_path / "train-00000-of-00001.parquet"
    whole = bytearray(file.read_bytes())
    whole[4:200] = bytes(196)
    file.write_bytes(whole)
    broken(tmp_path, file, "damaged", "Copy it again")


def test_an_empty_split_is_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "train.parquet", samples(3))
    write_cells(tmp_path / "test.parquet", [], [])
    broken(tmp_path, "test split", "no image")


@pytest.mark.parametrize("layout", ["parquet of {bytes, path}", "npz n c h w"])
def test_a_negative_label_is_told_with_its_split(tmp_path: Path, layout: str) -> None:
    splits = pair()
    splits["test"].labels[1] = -1
    broken(LAYOUTS[layout](tmp_path / "data", splits), "test split", "-1", "0 to classes - 1")


def test_a_label_above_the_named_classes_is_told(tmp_path: Path) -> None:
    splits = pair()
    splits["test"].labels[1] = 3
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES), encoding="utf-8")
    shards_of(in_struct)(tmp_path, splits)
    broken(tmp_path, tmp_path, "label", "is 3", "only 3 classes", "0 to 2")


def test_an_image_that_is_not_square_is_named_with_the_way_out(tmp_path: Path) -> None:
    file = tmp_path / "train" / "ant" / "0.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(encoded(np.zeros((1, 6, 9), np.uint8)))
    broken(tmp_path, file, "9x6", "--image-size 6", holdout=0.5)


@pytest.mark.parametrize("shape", [(1, 8, 12), (1, 12, 12)])
def test_an_image_of_another_size_than_the_first_is_named(
    tmp_path: Path, shape: tuple[int, int, int]
) -> None:
    cells = [encoded(np.zeros((1, 8, 8), np.uint8)), encoded(np.zeros(shape, np.uint8))]
    file = write_cells(tmp_path / "train.parquet", cells, [0, 1], pa.binary())
    size = f"{shape[2]}x{shape[1]}"
    broken(tmp_path, f"{file}, row 1", size, "8x8", "--image-size 8", holdout=0.5)


def test_splits_of_different_sizes_are_told(tmp_path: Path) -> None:
    splits = {"train": samples(6), "test": samples(3, size=12)}
    broken(write_npz(tmp_path / "a.npz", splits), "3x8x8", "3x12x12")
    broken(shards_of(in_struct)(tmp_path / "b", splits), "row 0", "8x8", "12x12", "--image-size")


def test_no_test_split_asks_for_a_share_to_hold_out(tmp_path: Path) -> None:
    root = shards_of(in_struct)(tmp_path, {"train": samples(6)})
    broken(root, root, "only the split train", "--holdout")
    assert len(load(DataConfig(source=str(root), holdout=0.5)).test) == 3


@pytest.mark.parametrize("brought", ["test", "validation"])
def test_a_holdout_beside_a_split_to_test_on_is_refused(tmp_path: Path, brought: str) -> None:
    root = shards_of(in_struct)(tmp_path, {"train": samples(6), brought: samples(3)})
    broken(root, f"{root} brings a {brought} split", "holdout of 0.5", holdout=0.5)
    assert load(DataConfig(source=str(root))).test_origin == brought


@pytest.mark.parametrize("holdout", [-0.1, 1.0, 2.0, float("nan")])
def test_a_holdout_that_is_no_share_is_refused(holdout: float) -> None:
    with pytest.raises(ConfigError, match=f"holdout is {holdout}"):
        DataConfig(source="digits", holdout=holdout)


def test_a_holdout_that_leaves_a_side_empty_is_refused() -> None:
    with pytest.raises(ConfigError, match="one side empty"):
        load(DataConfig(source="digits", holdout=1e-6))


@pytest.mark.parametrize("size", [0, -8])
def test_an_image_size_below_one_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"image_size is {size}"):
        DataConfig(source="digits", image_size=size)


def ambiguous(root: Path) -> Path:
    """Two struct columns of images, two integer columns of labels, none with a usual name."""
    for name, held in pair().items():
        other = [in_struct(encoded(255 - image), root, "") for image in held.images]
        more = {
            "right": pa.array(other, STRUCT),
            "breed": pa.array([2 - label for label in held.labels]),
        }
        write_shard(root / f"{name}.parquet", held, images="left", labels="species", more=more)
    return root


def test_several_candidate_columns_are_listed_with_the_option_that_decides(tmp_path: Path) -> None:
    root = ambiguous(tmp_path)
    broken(root, root, "2 columns", "right, left", "--image-column")
    broken(root, root, "2 columns", "breed, species", "--label-column", image_column="left")


def test_the_caller_decides_between_columns(tmp_path: Path) -> None:
    root, splits = ambiguous(tmp_path), pair()
    config = DataConfig(source=str(root), image_column="left", label_column="species")
    assert_holds(load(config), splits)
    inverted = {
        name: Samples(255 - held.images, [2 - label for label in held.labels])
        for name, held in splits.items()
    }
    other = replace(config, image_column="right", label_column="breed")
    assert_holds(load(other), inverted)


def test_a_column_that_is_not_there_is_answered_with_the_nearest(tmp_path: Path) -> None:
    config = DataConfig(source=str(ambiguous(tmp_path)), image_column="lefd")
    with pytest.raises(ConfigError, match=r"'lefd'\. Did you mean left"):
        load(config)


@pytest.mark.parametrize(
    ("more", "wanted"),
    [({"label": pa.array([0, 1])}, "image"), ({"image": pa.array([b"0", b"1"])}, "label")],
)
def test_a_shard_without_images_or_labels_is_told_what_it_holds(
    tmp_path: Path, more: dict[str, Any], wanted: str
) -> None:
    pq.write_table(pa.table({"weight": pa.array([0.5, 1.5]), **more}), tmp_path / "train.parquet")
    broken(tmp_path, tmp_path, f"0 columns that could hold the {wanted}", "weight", *more)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("array", ["x_train", "y_train", "x_test", "y_test", "other"])
def test_an_npz_of_objects_is_never_unpickled(tmp_path: Path, array: str) -> None:
    trap = tmp_path / "sprung"
    splits = pair()
    arrays: dict[str, Any] = {
        **{f"x_{name}": held.images for name, held in splits.items()},
        **{f"y_{name}": np.array(held.labels) for name, held in splits.items()},
        array: np.array([Trap(trap)] * 6, dtype=object),
    }
    file = tmp_path / "a.npz"
    np.savez(file, **arrays)
    if array == "other":
        assert_holds(load(str(file)), splits)
    else:
        broken(file, file, array.removeprefix("x_").removeprefix("y_"), "allow_pickle=False")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"x_train": np.zeros((6, 8), np.uint8)}, ["x_train", "(6, 8)", "n x size x size"]),
        ({"x_train": np.zeros((6, 3, 8, 9), np.uint8)}, ["x_train", "(6, 3, 8, 9)"]),
        ({"x_train": np.zeros((6, 8, 8, 2), np.uint8)}, ["x_train", "(6, 8, 8, 2)"]),
        ({"x_train": np.full((6, 8, 8), 255.0)}, ["x_train", "float64", "255", "uint8"]),
        ({"x_train": np.full((6, 8, 8), np.nan)}, ["x_train", "float64", "[0, 1]"]),
        ({"x_train": np.zeros((6, 8, 8), np.int64)}, ["x_train", "int64", "uint8"]),
        ({"y_train": np.zeros(5, np.int64)}, ["x_train", "6 images for 5 labels"]),
        ({"y_train": np.zeros((6, 3), np.int64)}, ["y_train", "one integer per image"]),
        ({"y_train": np.zeros(6)}, ["y_train", "one integer per image"]),
    ],
)
def test_an_npz_of_another_form_is_told_what_is_wanted(
    tmp_path: Path, change: dict[str, np.ndarray], parts: list[str]
) -> None:
    arrays: dict[str, Any] = {
        "x_train": samples(6).images,
        "y_train": np.zeros(6, np.int64),
        "x_test": samples(3).images,
        "y_test": np.zeros(3, np.int64),
    }
    file = tmp_path / "a.npz"
    np.savez(file, **(arrays | change))
    broken(file, file, *parts)


def test_an_npz_with_other_names_is_told_which_are_wanted(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, images=samples(2).images, labels=np.zeros(2, np.int64))
    broken(file, file, "images, labels", "x_train and y_train")


def test_text_in_place_of_an_npz_is_told(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    file.write_text("this is no archive")
    broken(file, file, "cannot be read as .npz")


# Splits.

labelled = st.lists(st.integers(0, 4), min_size=4, max_size=200)


def split_of(labels: Sequence[int]) -> Split:
    """A split that is itself a part: its rows are not its positions."""
    count = len(labels)
    every_label = torch.zeros(2 * count, dtype=torch.int64)
    rows = torch.arange(1, 2 * count, 2)
    every_label[rows] = torch.tensor(labels)
    return Split(torch.zeros(2 * count, 1, 1, 1, dtype=torch.uint8), every_label, rows)


def per_class(split: Split) -> np.ndarray:
    return np.bincount(content(split).labels, minlength=5)


@settings(deadline=None)
@given(labels=labelled, share=st.floats(0.15, 0.85))
def test_dividing_is_stratified_disjoint_complete_and_repeatable(
    labels: list[int], share: float
) -> None:
    whole = split_of(labels)
    rest, cut = whole.divide(share, "holdout")
    assert sorted([*rest.rows.tolist(), *cut.rows.tolist()]) == whole.rows.tolist()
    assert abs(len(cut) - share * len(labels)) <= 0.5 + 1e-9
    assert (np.abs(per_class(cut) - share * per_class(whole)) <= 1 + 1e-9).all()
    again_rest, again_cut = whole.divide(share, "holdout")
    assert again_rest.rows.equal(rest.rows)
    assert again_cut.rows.equal(cut.rows)


def test_divisions_of_different_names_are_different() -> None:
    whole = split_of([0, 1] * 50)
    first, second = (whole.divide(0.3, name)[1].rows.tolist() for name in ("holdout", "other"))
    assert first != second


def test_what_is_cut_off_is_no_run_of_neighbours() -> None:
    """Data often lies sorted by where it was taken."""
    _, cut = split_of([0] * 100).divide(0.2, "holdout")
    steps = np.diff(cut.rows.numpy())
    assert len(set(steps.tolist())) > 3


@settings(deadline=None)
@given(
    each=st.integers(3, 40),
    seed=st.integers(0, 100),
    small=st.floats(0.05, 1),
    large=st.floats(0.05, 1),
)
def test_fractions_are_stratified_and_lie_in_larger_ones(
    each: int, seed: int, small: float, large: float
) -> None:
    small, large = sorted((small, large))
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(5), each))
    whole = split_of(labels.tolist())
    less, more = whole.fraction(small), whole.fraction(large)
    assert set(less.rows.tolist()) <= set(more.rows.tolist()) <= set(whole.rows.tolist())
    for part, share in ((less, small), (more, large)):
        assert len(part) == max(1, round(share * len(whole)))
        assert len(part.rows.unique()) == len(part)
        assert (np.abs(per_class(part) - share * each) <= 1 + 1e-9).all()
        assert whole.fraction(share).rows.equal(part.rows)


def test_the_fraction_of_one_is_the_whole() -> None:
    whole = split_of([0, 1, 2, 2])
    assert whole.fraction(1).rows.equal(whole.rows)


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
def test_a_fraction_that_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=f"fraction is {share}"):
        split_of([0, 1]).fraction(share)


def test_a_part_keeps_the_row_numbers_of_the_whole(digits: Dataset) -> None:
    """Views and stored answers are keyed by them."""
    part = digits.train.fraction(0.1)
    assert part.images.data_ptr() == digits.train.images.data_ptr()
    assert set(part.rows.tolist()) <= set(digits.train.rows.tolist())


# The hub.


def offer(monkeypatch: pytest.MonkeyPatch, splits: Splits, *, names: bool = True) -> None:
    """Make `datasets` find these splits under every name, as it would load them from the hub."""
    import datasets

    label = datasets.ClassLabel(names=list(CLASSES)) if names else datasets.Value("int64")
    features = datasets.Features({"picture": datasets.Image(), "kind": label})
    built = {
        name: datasets.Dataset.from_dict(
            {
                "picture": [{"bytes": encoded(image), "path": None} for image in held.images],
                "kind": held.labels,
            },
            features=features,
        )
        for name, held in splits.items()
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(built))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_hub_is_read_through_datasets(monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    splits = pair(channels) | {"validation": samples(3, channels=channels, seed=2)}
    offer(monkeypatch, splits)
    dataset = load(f"hf:owner/name-{channels}")
    assert_holds(dataset, splits)
    assert dataset.classes == CLASSES


def test_the_hub_is_asked_for_the_name_that_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def refuse(name: str) -> None:
        asked.append(name)
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    broken("hf:owner/name", "hf:owner/name", "no route")
    assert asked == ["owner/name"]


def test_a_second_load_from_the_hub_decodes_nothing(
    monkeypatch: pytest.MonkeyPatch, no_decoding: Callable[[], None]
) -> None:
    offer(monkeypatch, pair(), names=False)
    first = load("hf:owner/cached")
    no_decoding()
    second = load("hf:owner/cached")
    assert_holds(second, pair())
    assert second.digest == first.digest
    assert second.classes == ("0", "1", "2")


def test_a_bad_row_of_the_hub_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, {"train": samples(3), "test": samples(3, size=9)})
    broken("hf:owner/uneven", "hf:owner/uneven, row 0", "9x9", "--image-size")


def test_a_hub_data_set_without_training_data_is_told_its_splits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer(monkeypatch, {"unlabelled": samples(3)})
    broken("hf:owner/odd", "unlabelled", "train")


def test_the_hub_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"hf:owner/name.*pip install 'denature\[hub\]'"):
        load("hf:owner/name")
