"""Labels in Parquet files: which column they are in, and what a cell of it means."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from denature.core.errors import DataError
from denature.data import DataConfig, load
from tests.heard import Heard
from tests.layouts import CATS, labels_of, png, read, table

BESIDE: dict[str, list[Any]] = {
    "id": list(range(100, 106)),
    "width": [16] * 6,
    "split_number": [0, 1] * 3,
    "bbox": [[0.1, 0.2, 0.3, 0.4]] * 6,
    "caption": [f"caption {number}" for number in range(6)],
    "weight": [0.5] * 6,
}


@pytest.mark.parametrize("name", ["label", "Label", "labels", "class", "target", "category"])
@pytest.mark.parametrize("beside", BESIDE)
def test_a_column_of_a_usual_name_is_never_passed_over(
    tmp_path: Path, name: str, beside: str
) -> None:
    table(tmp_path / "train.parquet", {beside: BESIDE[beside], name: CATS})
    table(tmp_path / "test.parquet", {beside: BESIDE[beside], name: CATS})
    found = read(tmp_path)
    assert found.classes == ("cat", "dog", "emu")
    assert labels_of(found) == [1, 0, 1, 0, 2, 1]


KINDS = {
    "strings": pa.array(CATS),
    "large strings": pa.array(CATS, pa.large_string()),
    "a dictionary": pa.array(CATS).dictionary_encode(),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["label", "Tierart"])
def test_texts_are_the_names_of_classes_in_order(tmp_path: Path, kind: str, name: str) -> None:
    table(tmp_path / "train.parquet", {name: KINDS[kind]})
    found = read(tmp_path, holdout=0.5)
    assert found.classes == ("cat", "dog", "emu")
    assert labels_of(found) == [1, 0, 1, 0, 2, 1]


NUMBERS: dict[str, tuple[pa.Array, tuple[str, ...]]] = {
    "truths": (pa.array([True, False, True, False]), ("False", "True")),
    "whole floats": (pa.array([1.0, 0.0, 1.0, 0.0]), ("0", "1")),
    "bytes": (pa.array([1, 0, 1, 0], pa.uint8()), ("0", "1")),
    "a dictionary of numbers": (pa.array([1, 0, 1, 0]).dictionary_encode(), ("0", "1")),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_of_any_kind_are_classes(tmp_path: Path, kind: str) -> None:
    cells, classes = NUMBERS[kind]
    table(tmp_path / "train.parquet", {"label": cells})
    found = read(tmp_path, holdout=0.5)
    assert (found.classes, labels_of(found)) == (classes, [1, 0, 1, 0])


UNFIT: dict[str, Any] = {
    "list<element: int64>": [[0, 1]] * 4,
    "struct<a: int64>": [{"a": 1}] * 4,
    "timestamp": pa.array([0] * 4, pa.timestamp("s")),
    "binary": [b"cat"] * 4,
}


@pytest.mark.parametrize("kind", UNFIT)
@pytest.mark.parametrize("holdout", [0.0, 0.5])
def test_a_column_of_a_usual_name_that_cannot_serve_is_refused_with_its_type(
    tmp_path: Path, kind: str, holdout: float
) -> None:
    table(tmp_path / "train.parquet", {"label": UNFIT[kind], "number": [0, 1] * 2})
    with pytest.raises(DataError, match=rf"column label of .* is {kind}.*--label-column.*number"):
        read(tmp_path, holdout=holdout)
    config = DataConfig(source=str(tmp_path), holdout=0.5, label_column="number")
    assert labels_of(load(config)) == [0, 1, 0, 1]


def test_a_class_written_one_hot_is_no_landmark(tmp_path: Path) -> None:
    cells = [[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    table(tmp_path / "train.parquet", {"label": pa.array(cells)})
    with pytest.raises(DataError, match=r"row 0: the label is \[0\.0, 0\.0, 1\.0.*one-hot.*number"):
        read(tmp_path, holdout=0.5)


SHARES: dict[str, list[list[float]]] = {
    "one-hot of two": [[1, 0], [0, 1]] * 3,
    "one-hot of three": [[1, 0, 0], [0, 1, 0]] * 3,
    "several classes": [[1, 1, 0, 0], [0, 1, 0, 1]] * 3,
    "probabilities": [[0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]] * 3,
    "rounded probabilities": [[0.33, 0.33, 0.33], [0.9, 0.06, 0.04]] * 3,
}


@pytest.mark.parametrize("how", SHARES)
@pytest.mark.parametrize("kind", ["list", "fixed"])
@pytest.mark.parametrize("name", ["label", "soft"])
def test_shares_of_classes_are_no_landmarks(tmp_path: Path, how: str, kind: str, name: str) -> None:
    made = pa.list_(pa.float32(), len(SHARES[how][0]) if kind == "fixed" else -1)
    table(tmp_path / "train.parquet", {name: pa.array(SHARES[how], made)})
    with pytest.raises(DataError, match=rf"column {name} .*one-hot or as probabilities.*number of"):
        read(tmp_path, holdout=0.5)


def test_landmarks_may_add_up_to_one_in_some_rows(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", {"label": [[0.5, 0.5], [0.2, 0.8], [0.3, 0.3], [0.1, 0.9]]})
    assert read(tmp_path, holdout=0.5).classes == ("0.x", "0.y")
    table(tmp_path / "train.parquet", {"keypoints": [[0.5, 0.5], [0.2, 0.8]] * 2})
    assert read(tmp_path, holdout=0.5).classes == ("0.x", "0.y")


def test_broken_numbers_are_no_labels(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", {"label": [0.0, 1.0, 1.5, 0.0]})
    with pytest.raises(DataError, match=r"row 2: the label is 1\.5"):
        read(tmp_path, holdout=0.5)


@pytest.mark.parametrize("absent", [None, float("nan")])
def test_a_training_image_without_a_label_is_named(tmp_path: Path, absent: float | None) -> None:
    labels = pa.array([0.0, 1.0, absent, 0.0], pa.float64(), from_pandas=False)
    table(tmp_path / "train.parquet", {"label": labels})
    with pytest.raises(DataError, match=rf"row 2: the label is {absent}"):
        read(tmp_path, holdout=0.5)


@pytest.mark.parametrize("name", ["id", "width", "bbox", "caption", "weight"])
def test_a_column_that_is_no_label_is_not_guessed(tmp_path: Path, name: str) -> None:
    table(tmp_path / "train.parquet", {name: BESIDE[name]})
    with pytest.raises(DataError, match="--label-column"):
        read(tmp_path, holdout=0.5)


def test_texts_that_differ_from_image_to_image_are_no_classes(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", {"said": [f"picture {number}" for number in range(8)]})
    with pytest.raises(DataError, match=r"said .* 8 different texts for 8 images.*--label-column"):
        read(tmp_path, holdout=0.5)


NUMBERS_BESIDE: dict[str, list[Any]] = {
    "age": [3, 50] * 6,
    "patient_id": [100 + number // 2 for number in range(12)],
    "img_width": [16] * 12,
    "year": [2019, 2020] * 6,
    "frame": list(range(12)),
    "timestamp": [1_700_000_000 + number for number in range(12)],
}


@pytest.mark.parametrize("name", NUMBERS_BESIDE)
@pytest.mark.parametrize("labels", [["ill", "well"] * 6, [True, False] * 6, [[0.1, 0.2]] * 12])
def test_an_unnamed_number_beside_what_could_be_the_label_is_refused(
    tmp_path: Path, name: str, labels: list[Any]
) -> None:
    table(tmp_path / "train.parquet", {name: NUMBERS_BESIDE[name], "diagnosis": labels})
    with pytest.raises(DataError, match=rf"2 columns .*\({name}, diagnosis\).*--label-column"):
        read(tmp_path, holdout=0.5)
    config = DataConfig(source=str(tmp_path), holdout=0.5, label_column="diagnosis")
    assert len(load(config).classes) == 2


@pytest.mark.parametrize("name", ["patient_id", "img_width", "year", "frame", "timestamp"])
def test_numbers_that_do_not_count_classes_are_not_guessed(tmp_path: Path, name: str) -> None:
    table(tmp_path / "train.parquet", {name: NUMBERS_BESIDE[name]})
    with pytest.raises(DataError, match=rf"column {name} .*look like no classes.*--label-column"):
        read(tmp_path, holdout=0.5)


def test_a_column_that_its_file_calls_one_of_classes_is_no_guess(tmp_path: Path) -> None:
    feature = {"names": ["ant", "bee"], "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"animal": feature}}})}
    columns = {"animal": [0, 1] * 4, "age": [3, 50] * 4, "said": ["a", "b"] * 4}
    table(tmp_path / "train.parquet", columns, metadata)
    assert said(tmp_path) == []
    assert read(tmp_path, holdout=0.5).classes == ("ant", "bee")


def said(source: Path) -> list[str]:
    lines = Heard()
    load(DataConfig(source=str(source), holdout=0.5), progress=lines)
    return lines.lines


def test_a_label_column_without_a_usual_name_is_told(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", {"Tierart": CATS})
    said_of_it = (
        f"{tmp_path}: labels are read from the column Tierart; --label-column names another"
    )
    for _ in range(2):
        assert said(tmp_path) == [said_of_it]
    table(tmp_path / "train.parquet", {"label": CATS})
    assert said(tmp_path) == []


UNLABELLED: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "-1": ([0, 1, 0, 1], {"label": [-1] * 3}),
    "nulls": ([0, 1, 0, 1], {"label": pa.array([None] * 3, pa.int64())}),
    "nulls without a type": ([0, 1, 0, 1], {"label": pa.array([None] * 3)}),
    "NaN": ([0.0, 1.0, 0.0, 1.0], {"label": [float("nan")] * 3}),
    "no column": ([0, 1, 0, 1], {"id": [1, 2, 3]}),
    "one name": (["a", "b"] * 2, {"label": ["unknown"] * 3}),
    "nulls of names": (["a", "b"] * 2, {"label": pa.array([None] * 3, pa.string())}),
}


@pytest.mark.parametrize("how", UNLABELLED)
def test_test_images_without_labels_give_way_to_validation_and_that_is_told(
    tmp_path: Path, how: str
) -> None:
    labels, test = UNLABELLED[how]
    table(tmp_path / "train.parquet", {"label": labels})
    table(tmp_path / "validation.parquet", {"label": labels[:2]})
    table(tmp_path / "test.parquet", test)
    for _ in range(2):  # also where the images are in the cache
        found = read(tmp_path)
        assert (found.test_origin, len(found.test)) == ("validation", 2)
        assert found.describe()["left_out"] == {"unlabelled test image": 3}


def test_test_images_of_other_classes_are_named(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", {"label": ["cat", "dog"] * 2})
    table(tmp_path / "test.parquet", {"label": ["cat", "Dog"]})
    with pytest.raises(DataError, match=r"test split has images of Dog.*\(cat, dog\)"):
        read(tmp_path)


def test_shards_with_labels_of_several_kinds_are_refused(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", {"label": [0, 1]})
    table(tmp_path / "test.parquet", {"label": ["0", "1"]})
    with pytest.raises(DataError, match=r"label of .*test.parquet is string, of .*int64"):
        read(tmp_path)


def test_a_split_with_labels_in_some_shards_only_is_refused(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", {"label": [0, 1]})
    table(tmp_path / "test-0.parquet", {"label": [0, 1]})
    table(tmp_path / "test-1.parquet", {"id": [0, 1]})
    with pytest.raises(DataError, match=r"test-1.parquet has no labels"):
        read(tmp_path)


def test_a_path_beside_an_image_may_hold_anything(tmp_path: Path) -> None:
    cells = [{"bytes": png(number), "path": f"a\0{number}.png"} for number in range(4)]
    made = pa.table({"image": cells, "label": [0, 1, 0, 1]})
    pq.write_table(made, tmp_path / "train.parquet")
    for _ in range(2):  # decoded, then from the cache
        config = DataConfig(source=str(tmp_path), holdout=0.5, group=r"(\d).png")
        assert len(load(config).train) == 2


def test_truth_values_and_numbers_are_not_mixed(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", {"label": [0, 1] * 2})
    table(tmp_path / "test.parquet", {"label": [True, False] * 2})
    with pytest.raises(DataError, match="holds truth values in one of"):
        read(tmp_path)


def test_the_hub_has_the_same_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    kinds = {"id": "int64", "label": "string"}
    features = {name: datasets.Value(kind) for name, kind in kinds.items()}
    labels: dict[str, list[str | None]] = {
        "training": ["dog", "cat", "dog", "cat"],
        "validation": ["cat", "dog"],
        "testing": [None] * 3,
        "extra": ["dog"] * 5,
    }
    built = {
        split: datasets.Dataset.from_dict(
            {
                "id": list(range(len(held))),
                "picture": [{"bytes": png(number), "path": None} for number in range(len(held))],
                "label": held,
            },
            features=datasets.Features({"picture": datasets.Image(), **features}),
        )
        for split, held in labels.items()
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(built))
    found = load("hf:owner/strings")
    assert (found.classes, labels_of(found)) == (("cat", "dog"), [1, 0, 1, 0])
    assert (found.test_origin, len(found.test)) == ("validation", 2)
    assert found.left_out == {"image of the split extra": 5, "unlabelled test image": 3}
