"""Data that a caller has in Python."""

import random
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeAlias, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)
from torch.utils.data import Dataset as TorchDataset

from denature.answers.config import InferenceConfig
from denature.core.errors import ConfigError, DataError
from denature.data import DataConfig, Dataset, load
from denature.data.loading import config_of, loads_again
from denature.extract import FunctionVictim, steal
from denature.train import Distilled, Nasty, Normal, Training, normal
from denature.train.predict import predict
from denature.train.runs import train
from denature.train.shorthand import DistilledOptions, NastyOptions, NormalOptions, RunKeywords
from tests.heard import Heard

COUNT = 20
IMAGES: np.ndarray = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), np.uint8)
LABELS: np.ndarray = np.arange(COUNT) % 4
FIRST: np.ndarray = IMAGES.transpose(0, 3, 1, 2)
SHARES = torch.from_numpy(FIRST / 255)

Given: TypeAlias = Any


class Pictures(TorchDataset[tuple[Any, int]]):
    """Pictures of Pillow, as torchvision's data sets give them without a transform."""

    classes = ("ant", "bee", "cat", "dog")

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return Image.fromarray(IMAGES[row]), int(LABELS[row])


class Mappings(TorchDataset[dict[str, Any]]):
    """Samples with names, as data sets of Hugging Face give them to a loader."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"pixel_values": SHARES[row], "labels": LABELS[row]}


class Flipped(Pictures):
    """The same with a random transform."""

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return IMAGES[row] // random.choice((1, 2, 3)), int(LABELS[row])


def tensors() -> TensorDataset:
    return TensorDataset(SHARES, torch.from_numpy(LABELS))


def hub(count: int = COUNT) -> Any:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list("abcd"))}
    )
    cells = [Image.fromarray(image) for image in IMAGES[:count]]
    return datasets.Dataset.from_dict(
        {"image": cells, "label": LABELS[:count].tolist()}, features=features
    )


FORMS: dict[str, Callable[[], Given]] = {
    "channels last": lambda: (IMAGES, LABELS),
    "channels first": lambda: (FIRST, LABELS),
    "floats": lambda: (IMAGES / 255, LABELS[:, None]),
    "tensors": lambda: (SHARES, torch.from_numpy(LABELS).to(torch.int32)),
    "lists": lambda: ([*IMAGES], LABELS.tolist()),
    "data set of torch": tensors,
    "pictures": Pictures,
    "loader": lambda: DataLoader(tensors(), batch_size=7),
    "shuffled loader": lambda: DataLoader(tensors(), batch_size=7, shuffle=True, drop_last=True),
    "loader of mappings": lambda: DataLoader(Mappings(), batch_size=7),
    "part": lambda: Subset(tensors(), range(COUNT)),
    "Hugging Face": hub,
    "Hugging Face, of tensors": lambda: hub().with_format("torch"),
    "mapping": lambda: {"training": (IMAGES, LABELS)},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    np.savez(tmp_path / "d.npz", x_train=IMAGES, y_train=LABELS)
    return tmp_path / "d.npz"


@pytest.mark.parametrize("form", FORMS)
def test_data_in_memory_are_those_of_a_file(form: str, file: Path) -> None:
    given, read = load(FORMS[form]()), load(file, holdout=0.2)
    assert given.digest == read.digest
    assert torch.equal(given.train.rows, read.train.rows)
    assert torch.equal(given.test.images, read.test.images)
    assert given.config.source.startswith("memory:")


PAIRS: dict[str, Callable[[], Given]] = {
    "pairs": lambda: ((IMAGES, LABELS), (IMAGES[:8], LABELS[:8])),
    "splits by name": lambda: {"train": tensors(), "eval": (IMAGES[:8], LABELS[:8])},
    "loaders": lambda: (
        DataLoader(tensors(), 5, shuffle=True), DataLoader(Subset(tensors(), range(8)), 5)
    ),
    "Hugging Face": lambda: (hub(), hub(8)),
    "Hugging Face, by name": lambda: {"train": hub(), "test": hub(8)},
}  # fmt: skip


@pytest.mark.parametrize("form", PAIRS)
def test_two_splits_are_training_and_test_data(form: str) -> None:
    given = load(PAIRS[form]())
    assert (len(given.train), len(given.test), given.test_origin) == (COUNT, 8, "test")
    assert given.digest == load(PAIRS["pairs"]()).digest


def test_a_split_that_was_not_given_is_said_once_and_the_same_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("denature.data.loading._HELD_OUT", {})
    told = Heard()
    config = config_of((IMAGES, LABELS), progress=told)
    assert not told.lines  # the call that gives the data may still be refused
    first, second = (load((IMAGES, LABELS), progress=told) for _ in range(2))
    assert config == first.config == second.config
    assert first.holdout == 0.2
    [line] = told.lines
    assert "20%" in line
    assert load((IMAGES, LABELS), holdout=0.5, progress=Heard()).holdout == 0.5


def test_data_in_memory_are_the_same_by_their_name() -> None:
    given = load((IMAGES, LABELS))
    named = load(given.config.source)
    assert (named.digest, named.config) == (given.digest, given.config)
    assert torch.equal(named.test.rows, given.test.rows)
    assert load(given.config.source, holdout=0.5).holdout == 0.5
    pair = load(PAIRS["pairs"]())
    assert load(pair.config.source).config == pair.config


def test_class_names_are_those_given_or_those_of_the_data_set() -> None:
    assert load((IMAGES, LABELS)).classes == ("0", "1", "2", "3")
    assert load((IMAGES, LABELS), classes=["w", "x", "y", "z"]).classes == ("w", "x", "y", "z")
    assert load(Subset(Pictures(), range(COUNT))).classes == Pictures.classes
    named, plain = load(Pictures()).config, load((IMAGES, LABELS)).config
    assert named != plain  # other names are other data, although their digest is of pixels


class Classed(TensorDataset):
    """Tensors with class names, as `ImageFolder` finds them in folders."""

    def __init__(self, classes: str, count: int) -> None:
        super().__init__(SHARES[:count], torch.arange(count) % len(classes))
        self.classes = [*classes]


@pytest.mark.parametrize("names", ["ac", "acb"])
def test_splits_of_other_class_names_are_refused(names: str) -> None:
    given = (Classed("abc", COUNT), Subset(Classed(names, 8), range(8)))
    with pytest.raises(DataError, match=rf"{', '.join(names)}, of the train split a, b, c.*same"):
        load(given)
    assert load(given, classes=["x", "y", "z"]).classes == ("x", "y", "z")
    assert load((Classed("abc", COUNT), tensors_of(3))).classes == ("a", "b", "c")


def tensors_of(count: int) -> TensorDataset:
    return TensorDataset(SHARES[:count], torch.arange(count))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("dcba", r"d, c, b, a, of the train split a, b, c, d"),
        ("abc", r"a, b, c, of the train split a, b, c, d"),
        (None, r"string, of the train split int64"),
        (True, r"truth values"),
    ],
)
def test_splits_of_hugging_face_with_other_labels_are_refused(other: Any, message: str) -> None:
    datasets = pytest.importorskip("datasets")
    test = hub(3)
    if isinstance(other, str):
        test = test.cast_column("label", datasets.ClassLabel(names=[*other]))
    else:
        cells = ["a", "b", "c"] if other is None else [True, False, True]
        test = test.remove_columns("label").add_column("label", cells)
    with pytest.raises(DataError, match=message):
        load((hub(), test))


def test_a_split_of_hugging_face_without_labels_is_left_out() -> None:
    splits = {"train": hub(), "validation": hub(8), "test": hub(3).remove_columns("label")}
    told = Heard()
    assert load(splits, progress=told).test_origin == "validation"
    assert told.lines == ["the given data: left out 3 unlabelled test image"]


class Streamed(IterableDataset[tuple[Any, int]]):
    """Rows that have no number."""

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        yield from zip(SHARES, LABELS, strict=True)


def test_rows_without_a_number_are_data_alone_and_in_a_loader() -> None:
    alone, loader = load(Streamed()), load(DataLoader(Streamed(), batch_size=7))
    assert alone.digest == loader.digest == load((IMAGES, LABELS)).digest


def test_a_cache_that_cannot_take_the_data_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENATURE_CACHE", str(tmp_path))

    def full(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(DataError, match=r"could not be written to .*DENATURE_CACHE"):
        load((IMAGES, LABELS))


def test_the_name_of_given_data_loads_them_again_in_any_size() -> None:
    given = load((IMAGES, LABELS), progress=Heard())
    assert load(given.config).digest == given.digest
    assert load(replace(given.config, image_size=4)).image_size == 4
    assert load((IMAGES, LABELS), image_size=4).image_size == 4


def test_a_name_that_the_cache_does_not_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load((IMAGES, LABELS), progress=Heard()).config
    monkeypatch.setenv("DENATURE_CACHE", str(tmp_path))
    for source in (config.source, "memory:../x", "memory:"):
        with pytest.raises(DataError, match=r"given from Python.*Give the data"):
            load(source)


def test_a_data_set_that_was_changed_gets_a_name_of_its_own(digits: Dataset) -> None:
    assert config_of(digits) == digits.config
    half = replace(digits, train=digits.train.fraction(0.5))
    config = config_of(half)
    again = load(config)
    assert (len(again.train), len(again.test)) == (len(half.train), len(half.test))
    assert torch.equal(again.test.images, half.test.images[half.test.rows])
    assert again.classes == digits.classes
    assert loads_again(again)


@pytest.mark.parametrize("part", ["images", "labels"])
def test_a_data_set_with_other_test_images_or_labels_is_not_its_source(
    part: str, digits: Dataset
) -> None:
    other = getattr(digits.test, part).clone()
    other[digits.test.rows] = other[digits.test.rows].flip(0)
    changed = replace(digits, test=replace(digits.test, **{part: other}))
    config = config_of(changed)
    assert config != digits.config
    found = load(config).test
    assert torch.equal(getattr(found, part), other[digits.test.rows])


SMALL = IMAGES[:, :3, :3]
WRONG: dict[str, tuple[Given, str]] = {
    "int64": ((IMAGES.astype(int), LABELS), r"int64 from 0 to 255.*astype"),
    "0..255": ((IMAGES.astype(float), LABELS), r"float64 from 0 to 255.*divide by 255"),
    "0..16": (
        (IMAGES.astype(float) / 16, LABELS),
        r"from 0 to 15.9.*white; the largest one is 15.9",
    ),
    "normalised": ((IMAGES / 64 - 2, LABELS), r"from -2 to .*normalisation"),
    "NaN": ((np.full((4, 8, 8), np.nan), LABELS[:4]), r"from nan to nan"),
    "ambiguous": ((SMALL, LABELS), r"\(20, 3, 3, 3\).*first or last"),
    "transparent": ((np.zeros((4, 8, 8, 4), np.uint8), LABELS[:4]), r"\(4, 8, 8, 4\).*1 or 3"),
    "oblong": ((IMAGES[:, :4], LABELS), r"\(20, 4, 8, 3\)"),
    "one image": ((IMAGES[0], LABELS), r"\(8, 8, 3\).*20 labels"),
    "one-hot": ((IMAGES, np.eye(4)[LABELS]), r"float64 of the shape \(20, 4\).*argmax"),
    "float labels": ((IMAGES, LABELS / 1), r"labels.*float64.*whole number"),
    "names": ((IMAGES, [*"abcd"] * 5), r"labels.*<U1"),
    "negative": ((IMAGES, LABELS - 1), r"label -1"),
    "too large": ((IMAGES, LABELS * 99_999), r"label is 199998"),
    "other number": ((IMAGES, LABELS[:5]), r"5 labels"),
    "sizes": (([IMAGES[0], IMAGES[0, :4, :4]], [0, 1]), r"\(4, 4, 3\), \(8, 8, 3\).*Resize"),
    "number": (3, r"Data is int; wanted is"),
    "no train": ({"test": (IMAGES, LABELS)}, r"splits are test; wanted is train"),
    "strange split": ({"train": tensors(), "mine": tensors()}, r"train, mine"),
    "random transform": (Flipped(), r"differs when it is read twice.*augment"),
    "drawn rows": (
        DataLoader(tensors(), sampler=WeightedRandomSampler([1.0] * COUNT, COUNT)),
        r"WeightedRandomSampler.*Subset",
    ),
    "three parts": (TensorDataset(SHARES, SHARES, SHARES), r"3 parts; wanted is a pair"),
}


@pytest.mark.parametrize("case", WRONG)
def test_other_data_are_refused_with_what_is_wanted(case: str) -> None:
    random.seed(0)
    given, message = WRONG[case]
    with pytest.raises(DataError, match=message):
        load(given, holdout=0.5)


@pytest.mark.parametrize("given", [DataConfig(source="digits"), load])
def test_options_beside_data_that_have_theirs_are_refused(given: Any) -> None:
    data = load("digits") if given is load else given
    with pytest.raises(ConfigError, match="Options of reading"):
        load(data, image_size=4)
    with pytest.raises(ConfigError, match="Classes are given"):
        load("digits", classes=["a"])
    with pytest.raises(ConfigError, match="group"):
        load((IMAGES, LABELS), group="(.*)_")


# Functions


def test_a_run_on_arrays_is_that_on_a_file(file: Path) -> None:
    quick = {"epochs": 1, "device": "cpu", "precision": "fp32"}
    given = normal("mlp", (IMAGES, LABELS), **quick)  # type: ignore[arg-type]
    read = normal("mlp", load(file, holdout=0.2), **quick)  # type: ignore[arg-type]
    assert given.record.id == read.record.id
    assert given.digest == read.digest
    many = np.concatenate([IMAGES] * 4)
    at_once, in_parts = predict(given, many[:64], device="cpu"), predict(given, many, device="cpu")
    assert len(in_parts) == len(many) > 64
    assert [p.label for p in in_parts[:64]] == [p.label for p in at_once]
    shown = predict(given, IMAGES[:3], device="cpu")
    assert [prediction.image for prediction in shown] == ["0", "1", "2"]
    with pytest.raises(DataError, match=r"3x4x4.*3x8x8"):
        predict(given, IMAGES[:, :4, :4], device="cpu")


def test_a_pool_and_tests_may_be_in_memory(tmp_path: Path) -> None:
    victim = FunctionVictim(lambda pixels: pixels.mean((2, 3)), name="mean", kind="logits")
    others = (255 - IMAGES, LABELS % 3)
    theft = steal(
        victim, net="mlp", pool=(IMAGES, LABELS), test=(others, others), budgets=[12],
        out=tmp_path / "out",
        training=Training(epochs=1, device="cpu", precision="fp32"),
    )  # fmt: skip
    assert theft.pool.startswith("memory:")
    assert theft.clones[0].answers + 2 == 12


@pytest.mark.parametrize(
    ("options", "objective"),
    [(NormalOptions, Normal), (NastyOptions, Nasty), (DistilledOptions, Distilled)],
)
def test_the_options_of_the_shorthands_are_the_fields_of_the_configs(
    options: type[Any], objective: type[Any]
) -> None:
    configs = [objective, Training, *([] if objective is Normal else [InferenceConfig])]
    wanted = {f.name: get_type_hints(c)[f.name] for c in configs for f in fields(c)}
    found = get_type_hints(options)
    own = set(get_type_hints(train)) & set(RunKeywords.__annotations__)
    assert found.keys() == wanted.keys() | own
    differing = {name for name, of in wanted.items() if found[name] != of}
    assert differing == {"milestones"}  # a list is as good


# Hugging Face, in memory and saved


def test_what_the_library_saves_is_what_it_holds(tmp_path: Path) -> None:
    given = hub()
    given.save_to_disk(str(tmp_path / "d"), num_shards=2)
    assert load(tmp_path / "d", holdout=0.2).digest == load(given).digest


@pytest.mark.parametrize("labels", [[True, False], ["b", "a"], [1, 0]])
def test_labels_have_the_same_names_in_memory_and_saved(labels: list[Any], tmp_path: Path) -> None:
    given = hub().remove_columns("label").add_column("label", labels * (COUNT // 2))
    given.save_to_disk(str(tmp_path / "d"))
    saved = load(tmp_path / "d", holdout=0.2)
    assert (load(given).classes, load(given).digest) == (saved.classes, saved.digest)
