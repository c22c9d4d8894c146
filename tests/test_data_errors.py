"""What is said of a data set that is broken."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from denature.core.errors import ConfigError
from denature.data import DataConfig, load
from tests.samples import (
    CLASSES,
    LAYOUTS,
    STRUCT,
    Samples,
    as_path,
    assert_holds,
    broken,
    encoded,
    folders,
    in_struct,
    pair,
    samples,
    shards_of,
    truncated_jpeg,
    write_cells,
    write_npz,
    write_shard,
)


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
