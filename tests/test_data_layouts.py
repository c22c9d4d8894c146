"""Every layout of a data set: its pixels, labels, splits and class names."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from denature.data import DataConfig, Dataset, load
from tests.samples import (
    CELLS,
    CLASSES,
    LAYOUTS,
    Cell,
    Samples,
    Splits,
    as_bytes,
    assert_holds,
    content,
    encoded,
    folders,
    in_struct,
    pair,
    samples,
    shards_of,
    write_cells,
    write_npz,
    write_shard,
    write_tree,
)


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
