"""The cache of decoded images: what it keeps, and what is decoded again."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from denature.core.errors import DataError
from denature.data import DataConfig, Dataset, load
from denature.data.places import cache_root
from tests.samples import (
    CLASSES,
    LAYOUTS,
    Samples,
    assert_holds,
    encoded,
    folders,
    pair,
    samples,
    write_npz,
)

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


def test_an_error_of_the_system_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many open files say nothing of the folder."""
    root = LAYOUTS[DECODED[0]](tmp_path / "data", pair())
    load(str(root))
    kept = [path for path in cache_root().rglob("*") if path.is_file()]
    assert kept

    def fails(*given: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("denature.data.cache._read", fails)
    with pytest.raises(OSError, match="Too many open files"):
        load(str(root))
    assert all(path.is_file() for path in kept)


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
