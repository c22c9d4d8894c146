"""Splits by the names of files and folders: what is one, what is a class, what is refused."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from denature.core.errors import DataError
from denature.data.readers.splits import KEYWORDS, split_of
from tests.layouts import images, pictures, read, shards, sizes

WORDS = {
    **dict.fromkeys(("train", "training", "Training", "TRAIN", "train2017", "seg_train"), "train"),
    **dict.fromkeys(("training_set", "train-00000-of-00004", "2train", "my.train"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "val2017", "VAL"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "test_images", "test1"), "test"),
    **dict.fromkeys(("trainer", "latest", "constrain", "value", "device", "trains", "holdout")),
    **dict.fromkeys(("extra", "trainval", "tést", "retrain")),
}


@pytest.mark.parametrize(("name", "split"), WORDS.items())
def test_a_name_says_a_split_by_a_whole_word_of_the_hub(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_a_name_that_says_two_splits_is_refused() -> None:
    with pytest.raises(DataError, match="train_test says test and train"):
        split_of("train_test")


PAIRS = [
    ("Training", "Testing"),
    ("TRAIN", "TEST"),
    ("train2017", "test2017"),
    ("seg_train", "seg_test"),
    ("training_set", "test_set"),
    ("train-images", "test-images"),
    ("training", "evaluation"),
    ("train", "eval"),
    ("TrainSet", "TestSet"),
]


@pytest.mark.parametrize(("train", "test"), PAIRS)
def test_folders_and_files_of_one_name_are_the_same_split(
    tmp_path: Path, train: str, test: str
) -> None:
    counts = {train: 4, test: 2}
    folders = {f"{split}/{name}": count for split, count in counts.items() for name in "ab"}
    found = read(pictures(tmp_path / "folders", folders))
    assert (sizes(found), found.classes) == ((8, 0, 4), ("a", "b"))
    assert found.test_origin == "test"
    files = {f"{split}.parquet": count for split, count in counts.items()}
    assert sizes(read(shards(tmp_path / "shards", files))) == (4, 0, 2)
    inner = {f"data/{split}/0.parquet": count for split, count in counts.items()}
    assert sizes(read(shards(tmp_path / "inner", inner))) == (4, 0, 2)


@pytest.mark.parametrize("around", ["mydata", "data/images", "train_test_data", "test_data"])
def test_folders_around_all_of_it_are_opened(tmp_path: Path, around: str) -> None:
    root = pictures(
        tmp_path,
        {f"{around}/{s}/{name}": n for s, n in (("train", 4), ("val", 2)) for name in "ab"},
    )
    found = read(root)
    assert (sizes(found), found.classes) == ((8, 0, 4), ("a", "b"))


@pytest.mark.parametrize("around", ["mydata", "data/images"])
def test_folders_around_classes_are_opened(tmp_path: Path, around: str) -> None:
    root = pictures(tmp_path, {f"{around}/a": 4, f"{around}/b": 4})
    assert read(root, holdout=0.5).classes == ("a", "b")


def test_a_split_may_repeat_its_name_inside(tmp_path: Path) -> None:
    names = ("seg_train/seg_train/{}", "seg_test/seg_test/{}")
    root = pictures(tmp_path, {name.format(c): 3 for name in names for c in "ab"})
    assert (sizes(read(root)), read(root).classes) == ((6, 0, 6), ("a", "b"))


def test_a_class_that_is_spelt_otherwise_in_the_test_split_is_refused(tmp_path: Path) -> None:
    """Its images are not unlabelled."""
    pictures(tmp_path, {"train/a": 4, "train/b": 4, "test/A": 2, "val/a": 2, "val/b": 2})
    with pytest.raises(DataError, match="has images of A, which is no class of the training"):
        read(tmp_path)


def test_numbered_folders_of_a_split_belong_together(tmp_path: Path) -> None:
    root = images(tmp_path, train2007__a=2, train2012__a=3, train2012__b=1, test2007__b=2)
    assert sizes(read(root)) == (6, 0, 2)


def test_three_splits_are_kept_apart(tmp_path: Path) -> None:
    root = images(tmp_path, train__a=3, train__b=3, val__a=2, testing__b=4)
    found = read(root)
    assert (sizes(found), found.test_origin) == ((6, 2, 4), "test")


CLASSES = [
    ("bus", "car", "train"),
    ("airport", "bus_station", "train_station"),
    ("beaker", "test_tube"),
    ("cats_train", "dogs"),
    ("latest", "value"),
]


CLASSES += [("mask", "no_mask"), ("photo", "sketch"), ("1", "2"), ("label", "price")]


@pytest.mark.parametrize("names", CLASSES)
def test_a_class_may_have_a_word_of_a_split_in_its_name(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    root = pictures(tmp_path, dict.fromkeys(names, 4))
    assert read(root, holdout=0.5).classes == names


def test_inside_a_training_folder_all_folders_are_classes(tmp_path: Path) -> None:
    names = ("bus", "test", "train", "val")
    root = pictures(tmp_path, {f"train/{name}": 2 for name in names})
    assert read(root, holdout=0.5).classes == names


REFUSED: dict[str, tuple[Iterable[str], str]] = {
    "a split that is none": (("train/a", "train/b", "test/a", "extra/a"), "extra"),
    "flat images beside splits": (("train/a", "train/b", "test/a", "seg_pred"), "seg_pred"),
    "classes beside a split": (("cat", "dog", "test/cat", "test/dog"), "test, .*cat, dog"),
    "classes beside unlabelled images": (("cat", "dog", "test"), "test, .*cat, dog"),
    "classes beside val": (("cat", "dog", "val/cat"), "val, .*cat, dog"),
    "two folders of a split": (("train/a", "training/a", "test/a"), "train, training"),
    "a part of a split": (("train/a", "train_mini/a", "test/a"), "train, train_mini"),
    "configurations": (("en/train/a", "en/test/a", "fr/train/a", "fr/test/a"), "en, .*fr"),
    "splits of each class": (("cat/train", "cat/test", "dog/train", "dog/test"), "cat, .*dog"),
    "splits in a split": (("train/train/a", "train/val/a", "test/a"), r"train holds splits"),
    "a class that is not trained": (("train/a", "train/b", "test/a", "test/c"), "c, .*a, b"),
    "other classes": (("train/a", "train/b", "test/c", "test/d"), "c, d, .*a, b"),
    "another case": (("train/Cat", "train/Dog", "test/cat", "test/Dog"), "cat, .*Cat, Dog"),
    "images without classes": (("train", "test"), "train holds images and no class folders"),
    "no training": (("val/a", "test/a"), "splits test, validation and no training split"),
    "two splits in a name": (("train_test/a", "val/a"), "train_test says test and train"),
}


REFUSED |= {
    "one kind of file": (("images",), "images, .*no classes"),
    "one kind of file in a split": (("train/img", "test/img"), "img, .*no classes"),
    "images and masks": (("train/images", "train/masks", "test/images"), "images, masks, .*no cl"),
    "images and masks of all": (("Images", "Masks", "overlays"), "Images, Masks, .*no classes"),
    "numbered kinds": (("images_001", "images_002"), "images_001, images_002, .*no classes"),
    "masks of classes": (("cat/images", "cat/masks", "dog/images"), "images, masks, .*no classes"),
    "folds": ([f"fold{n}/{name}" for n in range(3) for name in ("cat", "dog")], "same .*cat, dog"),
    "domains": (
        [f"{split}/{kind}/{name}" for split in ("train", "test")
         for kind in ("photo", "sketch") for name in ("cat", "dog")],
        "photo, .*sketch hold the same folders .*cat, dog",
    ),
    "domains inside themselves": (
        [f"{kind}/{kind}/{name}" for kind in ("photo", "sketch") for name in ("cat", "dog")],
        "same folders .*cat, dog",
    ),
    "domains without a class": (
        ("photo/cat", "photo/dog", "photo/emu", "sketch/cat", "sketch/dog"), "same .*cat, dog",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("holdout", [0.0, 0.2])
def test_folders_that_could_be_read_in_several_ways_are_refused(
    tmp_path: Path, case: str, holdout: float
) -> None:
    folders, said = REFUSED[case]
    root = pictures(tmp_path, dict.fromkeys(folders, 5))
    with pytest.raises(DataError, match=said) as raised:
        read(root, holdout=holdout)
    assert "--holdout" not in str(raised.value)


def test_labels_beside_images_are_no_empty_class(tmp_path: Path) -> None:
    root = images(tmp_path, train__images=3, test__images=2)
    for split in ("train", "test"):
        (root / split / "labels").mkdir()
        (root / split / "labels" / "0.txt").write_text("0 .5 .5 1 1")
    with pytest.raises(DataError, match=r"images, labels, .*no classes.*a folder for each class"):
        read(root)


@pytest.mark.parametrize(
    "folders",
    [
        ("cat/images", "dog/images"),
        ("cat/day", "cat/night", "dog/house", "dog/street"),
        ("cat/day", "cat/night", "dog"),
        ("cat", "cat/front", "cat/back", "dog", "dog/front", "dog/back"),
    ],
)
def test_folders_inside_of_a_class_are_of_the_class(
    tmp_path: Path, folders: tuple[str, ...]
) -> None:
    found = read(pictures(tmp_path, dict.fromkeys(folders, 2)), holdout=0.5)
    assert (found.classes, sum(sizes(found))) == (("cat", "dog"), 2 * len(folders))


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    root = images(tmp_path, train__a=3, val__a=2, test=0)
    with pytest.raises(DataError, match=r"split test of .* holds no image"):
        read(root)


@pytest.mark.parametrize("test", ["test", "test/images", "test/unknown", "test/test"])
def test_test_images_without_labels_give_way_to_validation_and_that_is_told(
    tmp_path: Path, test: str
) -> None:
    root = pictures(tmp_path, {"train/a": 3, "train/b": 3, "val/a": 2, test: 4})
    found = read(root)
    assert (sizes(found), found.test_origin) == ((6, 0, 2), "validation")
    assert found.classes == ("a", "b")
    assert found.describe()["left_out"] == {"unlabelled test image": 4}


def test_without_validation_a_share_takes_the_place_of_unlabelled_test_images(
    tmp_path: Path,
) -> None:
    root = images(tmp_path, train__a=6, train__b=6, test=4)
    with pytest.raises(DataError, match="only the split train with labels"):
        read(root)
    found = read(root, holdout=0.5)
    assert (sizes(found), found.classes) == ((6, 0, 6), ("a", "b"))


def test_images_beside_class_folders_are_told(tmp_path: Path) -> None:
    root = images(tmp_path, train=2, train__a=3, train__b=3, test__a=1, test__b=1)
    found = read(root)
    assert sizes(found) == (6, 0, 2)
    assert found.left_out == {"image outside of class folders": 2}


# Parquet files.

SHARDS: dict[str, tuple[dict[str, int], tuple[int, int, int]]] = {
    "as the hub names them": (
        {"data/train-00000-of-00002.parquet": 2, "data/train-00001-of-00002.parquet": 3,
         "data/test-00000-of-00001.parquet": 4},
        (5, 0, 4),
    ),
    "as the hub converts them": (
        {"default/train/0000.parquet": 5, "default/validation/0000.parquet": 2,
         "default/test/0000.parquet": 3},
        (5, 2, 3),
    ),
    "with the data set's name": (
        {"foo-train.parquet": 5, "foo-validation.parquet": 2, "foo-eval.parquet": 3},
        (5, 2, 3),
    ),
    "in folders of its own name": (
        {"eval/train.parquet": 5, "eval/test.parquet": 3},
        (5, 0, 3),
    ),
    "with the hub's checksums": (
        {"train-00000-of-00002-abcdef01.parquet": 5, "train-00001-of-00002-fedc.parquet": 4,
         "test-00000-of-00001-a1.parquet": 3},
        (9, 0, 3),
    ),
    "numbered before": (
        {"0-train.parquet": 5, "1-train.parquet": 4, "0-test.parquet": 3},
        (9, 0, 3),
    ),
}  # fmt: skip


SHARDS |= {
    "numbered after": ({"train_1.parquet": 5, "train_2.parquet": 4, "test.parquet": 3}, (9, 0, 3)),
    "in numbered parts": (
        {"train-part-1.parquet": 5, "train-part-2.parquet": 4, "test-part-1.parquet": 3},
        (9, 0, 3),
    ),
    "with checksums alone": (
        {"train-0a1b2c.parquet": 5, "train-ff00ee.parquet": 4, "test-1e9a.parquet": 3}, (9, 0, 3),
    ),
    "one packed": ({"train-0.snappy.parquet": 5, "train-1.snappy.parquet": 4,
                    "test-0.snappy.parquet": 3}, (9, 0, 3)),
    "of any name in folders": ({"train/a.parquet": 5, "train/b.parquet": 4, "test/a.parquet": 3},
                               (9, 0, 3)),
    "in folders and beside them": ({"train/0.parquet": 5, "test.parquet": 3}, (5, 0, 3)),
}  # fmt: skip


@pytest.mark.parametrize("case", SHARDS)
def test_shards_are_of_the_split_that_they_say(tmp_path: Path, case: str) -> None:
    files, expected = SHARDS[case]
    assert sizes(read(shards(tmp_path, files))) == expected


NO_SHARDS: dict[str, tuple[Iterable[str], str]] = {
    "configurations": (("en/train.parquet", "fr/train.parquet"), "en/train.*, fr/train"),
    "configurations in names": (("en-train.parquet", "fr-train.parquet"), "en-train.*, fr-train"),
    "splits of two configurations": (("en/train.parquet", "fr/test.parquet"), r"\(en, fr\)"),
    "configurations without splits": (("en/0.parquet", "fr/0.parquet"), "en/0.*, fr/0"),
    "one beside others": (("train.parquet", "en/train.parquet"), "en/train.*, train"),
    "no split": (("train.parquet", "test.parquet", "holdout.parquet"), "holdout.parquet .*say no"),
    "another split": (("train.parquet", "extra.parquet"), "extra.parquet .*say no"),
    "a folder against a name": (("train/test.parquet", "val/0.parquet"), "says test and train"),
    "two in a name": (("train-test.parquet",), "says test and train"),
}


NO_SHARDS |= {
    "a part of a split": (("train.parquet", "train_small.parquet", "test.parquet"), "train.*small"),
    "a variant of a split": (("train.parquet", "test.parquet", "test_corrupted.parquet"),
                             "test.parquet, test_corrupted.parquet, which all say test"),
    "a variant in a folder": (("train/0.parquet", "train_mini/0.parquet"), "which all say train"),
    "two words of a split": (("train.parquet", "val.parquet", "dev.parquet"),
                             "dev.parquet, val.parquet, which all say validation"),
    "variants of shards": (
        ("train-00000-of-00001.parquet", "train-clean-00000-of-00001.parquet"), "all say train"),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_SHARDS)
@pytest.mark.parametrize("holdout", [0.0, 0.2])
def test_shards_that_could_be_read_in_several_ways_are_refused(
    tmp_path: Path, case: str, holdout: float
) -> None:
    files, said = NO_SHARDS[case]
    with pytest.raises(DataError, match=said) as raised:
        read(shards(tmp_path, dict.fromkeys(files, 5)), holdout=holdout)
    assert "--holdout" not in str(raised.value)


def test_one_of_several_configurations_is_named_by_its_path(tmp_path: Path) -> None:
    files = {f"{name}/{split}.parquet": 4 for name in ("en", "fr") for split in ("train", "test")}
    shards(tmp_path, files)
    assert sizes(read(tmp_path / "fr")) == (4, 0, 4)


def test_one_file_of_any_name_is_training_data(tmp_path: Path) -> None:
    shards(tmp_path, {"holdout.parquet": 4})
    assert sizes(read(tmp_path / "holdout.parquet", holdout=0.5)) == (2, 0, 2)


# Arrays.


def test_arrays_are_of_the_splits_that_they_say(tmp_path: Path) -> None:
    pixels, labels = np.zeros((4, 8, 8), np.uint8), np.arange(4) % 2
    arrays = {"training": 4, "dev": 2, "eval": 3}
    held: dict[str, Any] = {f"x_{name}": pixels[:count] for name, count in arrays.items()}
    held |= {f"y_{name}": labels[:count] for name, count in arrays.items()}
    np.savez(tmp_path / "a.npz", **held)
    assert sizes(read(tmp_path / "a.npz")) == (4, 2, 3)


@pytest.mark.parametrize(("other", "said"), [("extra", "x_extra"), ("training", "x_training")])
def test_arrays_of_no_split_or_of_one_twice_are_refused(
    tmp_path: Path, other: str, said: str
) -> None:
    pixels, labels = np.zeros((4, 8, 8), np.uint8), np.arange(4) % 2
    held: dict[str, Any] = {
        "x_train": pixels,
        "y_train": labels,
        f"x_{other}": pixels,
        f"y_{other}": labels,
    }
    np.savez(tmp_path / "a.npz", **held)
    with pytest.raises(DataError, match=said):
        read(tmp_path / "a.npz", holdout=0.5)


def test_the_document_lists_the_words() -> None:
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text("utf-8")
    for split, words in KEYWORDS.items():
        assert f"| {split} | {', '.join(words)} |" in page
