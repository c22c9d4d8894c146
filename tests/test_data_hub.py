"""Data sets of the hub, as the library datasets reads them."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from denature.core.errors import MissingExtra
from denature.data import load
from tests.samples import CLASSES, Splits, assert_holds, broken, encoded, pair, samples


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


def test_paths_of_the_hub_lie_in_its_caches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Data of strangers must not read, and so send away, other files of this machine."""
    import datasets

    train, test = pair().values()

    def place(folder: Path) -> None:
        folder.mkdir(parents=True)
        built = {}
        for name, held in (("train", train), ("test", test)):
            paths = [folder / f"{name}-{number}.png" for number in range(len(held.images))]
            for path, image in zip(paths, held.images, strict=True):
                path.write_bytes(encoded(image))
            cells = [{"bytes": None, "path": str(path)} for path in paths]
            built[name] = datasets.Dataset.from_dict(
                {"picture": cells, "kind": held.labels},
                features=datasets.Features(
                    {"picture": datasets.Image(), "kind": datasets.Value("int64")}
                ),
            )
        monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(built))

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    place(tmp_path / "cache" / "owner___pictures")
    assert_holds(load("hf:owner/pictures"), pair())
    place(tmp_path / "cache" / "me___private")
    broken("hf:owner/thief", "row 0", "outside of", "refused")
    place(tmp_path / "private")
    broken("hf:owner/thief", "row 0", "outside of", "refused")
