"""Names of classes in Parquet files: from labels, lists of classes and metadata."""

import json
from pathlib import Path

import pytest

from denature.core.errors import DataError
from tests.layouts import CATS, labels_of, pictures, read, table


def test_the_names_of_all_shards_are_classes(tmp_path: Path) -> None:
    table(tmp_path / "train-0.parquet", {"label": ["b", "c"]})
    table(tmp_path / "train-1.parquet", {"label": ["a", "c"]})
    found = read(tmp_path, holdout=0.5)
    assert (found.classes, labels_of(found)) == (("a", "b", "c"), [1, 2, 0, 2])


@pytest.mark.parametrize("line", ["{}", "{}\twith words"])
def test_a_list_of_classes_gives_names_their_order(tmp_path: Path, line: str) -> None:
    listed = [line.format(name) for name in ("emu", "dog", "cat")]
    (tmp_path / "classes.txt").write_text("\n".join(listed), "utf-8")
    table(tmp_path / "train.parquet", {"label": CATS})
    found = read(tmp_path, holdout=0.5)
    assert (found.classes, labels_of(found)) == (tuple(listed), [1, 2, 1, 2, 0, 1])
    (tmp_path / "classes.txt").write_text("emu\ndog\n", "utf-8")
    with pytest.raises(DataError, match=r"holds cat, which the list of classes \(emu, dog\) lacks"):
        read(tmp_path, holdout=0.5)


def test_a_list_with_words_after_the_names_serves_all_splits(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("emu\ta bird\ndog\tno bird\ncat\tnone either\n", "utf-8")
    table(tmp_path / "train.parquet", {"label": CATS})
    table(tmp_path / "test.parquet", {"label": CATS})
    found = read(tmp_path)
    assert found.test.labels.tolist() == found.train.labels.tolist() == [1, 2, 1, 2, 0, 1]


@pytest.mark.parametrize("root", ["", "data"])
@pytest.mark.parametrize("where", ["", "data", "data/train"])
def test_a_list_of_classes_is_found_wherever_it_lies_above_the_shards(
    tmp_path: Path, root: str, where: str
) -> None:
    table(tmp_path / "data" / "train" / "0.parquet", {"label": CATS})
    table(tmp_path / "data" / "test" / "0.parquet", {"label": CATS})
    (tmp_path / where / "classes.txt").write_text("emu\ndog\ncat\n", "utf-8")
    listed = where.startswith(root)
    assert read(tmp_path / root).classes == (
        ("emu", "dog", "cat") if listed else ("cat", "dog", "emu")
    )


def test_lists_of_classes_that_differ_are_refused(tmp_path: Path) -> None:
    table(tmp_path / "data" / "train.parquet", {"label": CATS})
    (tmp_path / "classes.txt").write_text("emu\ndog\ncat\n")
    (tmp_path / "data" / "classes.txt").write_text("cat\ndog\nemu\n")
    with pytest.raises(DataError, match=r"data/classes.txt .*differ.*Keep one"):
        read(tmp_path, holdout=0.5)
    (tmp_path / "data" / "classes.txt").write_text("emu\n dog\n\ncat")
    assert read(tmp_path, holdout=0.5).classes == ("emu", "dog", "cat")


@pytest.mark.parametrize("line", ["{} {}", "{}: {}", "{},{}", "{}\t{}", "{}) {}"])
def test_a_list_that_numbers_its_classes_is_read_by_its_numbers(tmp_path: Path, line: str) -> None:
    listed = [line.format(number, name) for number, name in ((1, "dog"), (2, "emu"), (0, "cat"))]
    (tmp_path / "classes.txt").write_text("\n".join(listed))
    table(tmp_path / "train.parquet", {"label": [0, 1, 2, 0]})
    assert read(tmp_path, holdout=0.5).classes == ("cat", "dog", "emu")


def test_a_list_that_numbers_its_classes_from_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("1 cat\n2 dog\n")
    table(tmp_path / "train.parquet", {"label": [0, 1, 1, 0]})
    with pytest.raises(DataError, match=r"classes.txt numbers its classes from 1.*from 0"):
        read(tmp_path, holdout=0.5)


@pytest.mark.parametrize("names", [("0", "1"), ("2 door", "4 door"), ("0 a", "b")])
def test_names_with_numbers_that_do_not_count_are_names(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(names))
    table(tmp_path / "train.parquet", {"label": [0, 1, 1, 0]})
    assert read(tmp_path, holdout=0.5).classes == names


@pytest.mark.parametrize("forms", [("caf\xe9", "cafe\u0301"), ("cafe\u0301", "caf\xe9")])
def test_one_name_in_two_forms_of_unicode_is_one_class(
    tmp_path: Path, forms: tuple[str, str]
) -> None:
    train, test = forms
    table(tmp_path / "names" / "train.parquet", {"label": [train, "tea"] * 2})
    table(tmp_path / "names" / "test.parquet", {"label": [test, "tea", test, train]})
    (tmp_path / "names" / "classes.txt").write_text(f"tea\n{test}\n", "utf-8")
    found = read(tmp_path / "names")
    assert (found.classes, found.test.labels.tolist()) == (("tea", "caf\xe9"), [1, 0, 1, 1])
    folders = {"train/tea": 2, f"train/{train}": 3, f"test/{test}": 2, "test/tea": 1}
    found = read(pictures(tmp_path / "folders", folders))
    assert found.classes == ("caf\xe9", "tea")
    assert (found.train.labels.tolist(), found.test.labels.tolist()) == ([0, 0, 0, 1, 1], [0, 0, 1])


def test_names_in_a_files_metadata_come_first(tmp_path: Path) -> None:
    feature = {"names": ["ant", "bee"], "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": feature}}})}
    table(tmp_path / "train.parquet", {"label": [0, 1] * 2}, metadata)
    assert read(tmp_path, holdout=0.5).classes == ("ant", "bee")


def test_a_list_that_names_a_class_twice_is_refused(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", {"label": ["cat", "dog"] * 2})
    (tmp_path / "classes.txt").write_text("cat\ndog\ncat\n")
    with pytest.raises(DataError, match=r"classes.txt names cat more than once"):
        read(tmp_path, holdout=0.5)


def test_a_name_that_no_record_can_hold_is_refused_before_training(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", {"label": ["cat", "do\0g", "cat", "emu"]})
    with pytest.raises(DataError, match=r"class 'do\\x00g' has a NUL character"):
        read(tmp_path, holdout=0.5)


@pytest.mark.parametrize("others", [["bee", "ant"], ["ant", "cow"]])
def test_class_names_of_all_splits_are_compared(tmp_path: Path, others: list[str]) -> None:
    """Else the numbers of one split would stand for the classes of another."""
    for split, names in (("train", ["ant", "bee"]), ("test", others)):
        feature = {"names": names, "_type": "ClassLabel"}
        metadata = {"huggingface": json.dumps({"info": {"features": {"label": feature}}})}
        table(tmp_path / f"{split}.parquet", {"label": [0, 1] * 2}, metadata)
    with pytest.raises(DataError, match=rf"test.parquet are {', '.join(others)}, of .*ant, bee"):
        read(tmp_path)
