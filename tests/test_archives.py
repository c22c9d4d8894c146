"""CIFAR and Tiny-ImageNet as their authors publish them, in every layout, also damaged."""

import hashlib
import io
import os
import pickle
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from denature.core.errors import DataError
from denature.data import download, load
from denature.data.readers import pickles
from tests.published import (
    CIFARS,
    TEST,
    TRAIN,
    TRAIN_LABELS,
    Files,
    as_folder,
    as_tar,
    as_zip,
    check,
    cifar10_binary,
    cifar100_binary,
    cifar100_python,
    pickled,
    tiny_imagenet,
)


@pytest.mark.parametrize("layout", CIFARS)
def test_all_layouts_of_cifar_hold_the_same_images(layout: str, tmp_path: Path) -> None:
    make, inner = CIFARS[layout]
    files, classes = make(), 100 if "100" in layout else 10
    check(load(str(as_folder(files, tmp_path / "bare"))), classes)
    as_folder(files, tmp_path / "around" / inner)
    check(load(str(tmp_path / "around")), classes)
    check(load(str(as_tar(files, tmp_path / "archive.tar.gz", inner))), classes)


def test_tiny_imagenet_is_read_as_published(tmp_path: Path) -> None:
    files = tiny_imagenet()
    places = (
        as_folder(files, tmp_path / "bare"),
        as_folder(files, tmp_path / "around" / "tiny-imagenet-200").parent,
        as_zip(files, tmp_path / "tiny.zip", "tiny-imagenet-200"),
    )
    for place in places:
        dataset = load(str(place))
        assert np.array_equal(dataset.train.images.numpy(), TRAIN[:12])
        assert dataset.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
        assert np.array_equal(dataset.test.images.numpy(), TEST)
        assert dataset.test.labels.tolist() == [0, 1, 2, 0, 1, 2]
        assert dataset.test_origin == "validation"
        assert dataset.classes == ("n01\tgoldfish", "n02\tnewt", "n03\tfrog")


VAL = [f"val_{number}.PNG" for number in range(6)]


def sorted_files(pattern: str) -> Files:
    """Validation images in folders of their classes, as common scripts sort them."""
    files = tiny_imagenet()
    for number, name in enumerate(VAL):
        wnid = f"n0{number % 3 + 1}"
        files[pattern.format(wnid=wnid, name=name)] = files.pop(f"val/images/{name}")
    return files


@pytest.mark.parametrize(
    "pattern", ["val/{wnid}/{name}", "val/{wnid}/images/{name}", "val/images/{wnid}/{name}"]
)
def test_tiny_imagenet_with_sorted_validation_images_is_the_same_data(
    pattern: str, tmp_path: Path
) -> None:
    published = load(str(as_folder(tiny_imagenet(), tmp_path / "published")))
    files = sorted_files(pattern)
    for place in (
        as_folder(files, tmp_path / "sorted"),
        as_zip(files, tmp_path / "sorted.zip", "tiny-imagenet-200"),
    ):
        dataset = load(str(place))
        assert dataset.digest == published.digest
        assert dataset.classes == published.classes
        assert dataset.left_out == {"unlabelled test image": 1}
    without = {name: data for name, data in files.items() if "annotations" not in name}
    dataset = load(str(as_folder(without, tmp_path / "without")))
    assert (dataset.classes, dataset.test_origin) == (("n01", "n02", "n03"), "validation")
    assert dataset.train.labels.tolist() == published.train.labels.tolist()
    assert sorted(dataset.test.labels.tolist()) == sorted(published.test.labels.tolist())


def test_validation_images_that_were_made_a_test_split_are_one(tmp_path: Path) -> None:
    files = sorted_files("val/{wnid}/images/{name}")
    moved = [name for name in files if name.rsplit("/", 1)[-1] in VAL[3:]]
    for name in moved:
        files[name.replace("val/", "test/", 1)] = files.pop(name)
    dataset = load(str(as_folder(files, tmp_path / "tiny")))
    assert dataset.test_origin == "test"
    assert np.array_equal(dataset.test.images.numpy(), TEST[3:])
    assert dataset.validation is not None
    assert np.array_equal(dataset.validation.images.numpy(), TEST[:3])


def test_validation_images_that_were_copied_count_once(tmp_path: Path) -> None:
    files = tiny_imagenet() | sorted_files("val/{wnid}/{name}")
    dataset = load(str(as_folder(files, tmp_path / "tiny")))
    assert np.array_equal(dataset.test.images.numpy(), TEST)
    assert dataset.left_out["second copy of an image"] == 6


def test_a_validation_image_in_the_folder_of_another_class_is_named(tmp_path: Path) -> None:
    files = sorted_files("val/{wnid}/{name}")
    files["val/n02/val_0.PNG"] = files.pop("val/n01/val_0.PNG")
    with pytest.raises(DataError, match=r"val_0.PNG lies in the folder of n02, .* says n01"):
        load(str(as_folder(files, tmp_path / "tiny")))


def test_hidden_files_of_archives_are_left_out(tmp_path: Path) -> None:
    files = tiny_imagenet() | {"train/n01/images/._n01_0.PNG": b"no image"}
    path = as_zip(files, tmp_path / "tiny.zip", "tiny")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/tiny/train/n01/images/._n01_0.PNG", b"no image")
    for place in (path, as_folder(files, tmp_path / "tiny")):
        dataset = load(str(place))
        assert np.array_equal(dataset.train.images.numpy(), TRAIN[:12])
        assert dataset.left_out["hidden"] == 1 + (place == path)


def lists(root: Path, change: dict[str, bytes]) -> Path:
    """Lists with other contents, of the same size and time."""
    for name, data in change.items():
        before = (root / name).stat()
        assert len(data) == before.st_size
        (root / name).write_bytes(data)
        os.utime(root / name, ns=(before.st_atime_ns, before.st_mtime_ns))
    return root


def test_lists_of_tiny_imagenet_are_part_of_the_caches_key(tmp_path: Path) -> None:
    files = tiny_imagenet()
    root = as_folder(files, tmp_path / "tiny")
    assert load(str(root)).test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    swapped = files["val/val_annotations.txt"].replace(b"n01", b"n0x").replace(b"n02", b"n01")
    lists(root, {"val/val_annotations.txt": swapped.replace(b"n0x", b"n02")})
    assert load(str(root)).test.labels.tolist() == [1, 0, 2, 1, 0, 2]
    lists(root, {"words.txt": files["words.txt"].replace(b"goldfish", b"GOLDFISH")})
    assert load(str(root)).classes[0] == "n01\tGOLDFISH"


@pytest.mark.parametrize("layout", CIFARS)
def test_class_names_of_cifar_are_part_of_the_caches_key(layout: str, tmp_path: Path) -> None:
    files = CIFARS[layout][0]()
    root = as_folder(files, tmp_path / "cifar")
    assert load(str(root)).classes[7] == "thing 7"
    [name] = [name for name, data in files.items() if b"thing 7" in data]
    lists(root, {name: files[name].replace(b"thing 7", b"THING 7", 1)})
    assert load(str(root)).classes[7] == "THING 7"


def test_a_folder_of_several_published_data_sets_is_refused(tmp_path: Path) -> None:
    as_folder(cifar10_binary(), tmp_path / "cifar-10-batches-bin")
    as_folder(cifar100_binary(), tmp_path / "cifar-100-binary")
    with pytest.raises(DataError, match=r"several data sets: cifar10, cifar100\. Name one"):
        load(str(tmp_path))


class Call:
    """Pickled as a call of something with arguments."""

    def __init__(self, what: Any, *arguments: Any) -> None:
        self.given = what, arguments

    def __reduce__(self) -> Any:
        return self.given


POINTERS = Call(np.ndarray, (2,), np.dtype("O"), b"A" * 16)
"""An array of Python objects that lie wherever the file says."""

EVIL: dict[str, tuple[Any, str]] = {
    "a call": (Call(os.system, "touch executed"), "system, which an array does not"),
    "pointers": (POINTERS, "no pickle of CIFAR"),
    "objects": (np.array([1, "x"], dtype=object), "an array of the kind 'O8'"),
    "texts": (np.array(["a", "bc"]), "an array of the kind 'U2'"),
    "a view of an array": (Call(memoryview, b"x"), "memoryview, which an array does not"),
}


@pytest.mark.parametrize("place", [b"data", b"fine_labels"])
@pytest.mark.parametrize("evil", EVIL)
def test_a_pickle_of_anything_but_numbers_is_refused(
    evil: str, place: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files, (thing, said) = cifar100_python(), EVIL[evil]
    found = {b"data": TRAIN.reshape(20, -1), b"fine_labels": TRAIN_LABELS.tolist()} | {place: thing}
    files["train"] = pickle.dumps(found, protocol=2)
    with pytest.raises(DataError, match=said):
        load(str(as_folder(files, tmp_path / "evil")))
    assert not (tmp_path / "executed").exists()


def test_a_pickle_that_claims_much_memory_gets_none(tmp_path: Path) -> None:
    """The place 2^31 of a memory that holds two things."""
    files = cifar100_python()
    files["train"] = b"\x80\x02}r\x00\x00\x00\x80" + pickle.dumps({}, protocol=2)[3:]
    with pytest.raises(DataError, match="lacks `data`"):
        load(str(as_folder(files, tmp_path / "evil")))


def test_arrays_of_pickles_are_read_in_any_order_and_with_either_end_first() -> None:
    wanted = {
        b"plain": np.arange(6, dtype=np.int64).reshape(2, 3),
        b"by columns": np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
        b"big end first": np.arange(3, dtype=">i4"),
    }
    for protocol in range(5):
        data = pickle.dumps(wanted, protocol=protocol)
        found = pickles.load(io.BytesIO(data), len(data))
        assert found.keys() == wanted.keys()
        for key, array in wanted.items():
            np.testing.assert_array_equal(found[key], array, strict=True)


@pytest.mark.parametrize(
    ("layout", "name", "change", "said"),
    [
        ("cifar10-binary", "data_batch_3.bin", lambda b: b[:-1], "multiple of 3073, the bytes"),
        ("cifar10-binary", "data_batch_3.bin", lambda b: b"", "has 0 bytes"),
        ("cifar10-binary", "data_batch_3.bin", lambda b: b"\x0a" + b[1:], "labels from 0 to 10"),
        ("cifar10-binary", "data_batch_3.bin", None, "data_batch_3.bin is missing"),
        ("cifar10-python", "data_batch_3", lambda b: b[:-9], "is no pickle of CIFAR"),
        ("cifar10-python", "test_batch", lambda b: pickle.dumps({}), "lacks `data` or `labels`"),
        ("cifar100-python", "train", lambda b: pickled(TRAIN[:2], TRAIN_LABELS, b"fine_labels"),
         r"shape \(2, 3072\); wanted is uint8 of \(20, 3072\)"),
    ],
)  # fmt: skip
def test_damaged_cifar_says_where(
    layout: str, name: str, change: Callable[[bytes], bytes] | None, said: str, tmp_path: Path
) -> None:
    files = CIFARS[layout][0]()
    if change is None:
        del files[name]
    else:
        files[name] = change(files[name])
    with pytest.raises(DataError, match=said):
        load(str(as_folder(files, tmp_path / "damaged")))
    with pytest.raises(DataError, match=said):
        load(str(as_tar(files, tmp_path / "damaged.tar.gz", "inner")))


def test_damaged_tiny_imagenet_says_where(tmp_path: Path) -> None:
    files = tiny_imagenet()
    lines = files["val/val_annotations.txt"]
    cases: list[tuple[Files, str]] = [
        (
            {"val/val_annotations.txt": lines + b"\nval_9.PNG\tn77\t0"},
            "'val_9.*wanted is image",
        ),
        ({"train/n77/images/a.png": b"x"}, r"images/a.png is of no class in wnids.txt"),
        ({"val/val_annotations.txt": lines + b"\nval_9.PNG\tn01\t0"}, "lacks .*val_9.PNG"),
    ]
    for number, (change, said) in enumerate(cases):
        with pytest.raises(DataError, match=said):
            load(str(as_zip({**files, **change}, tmp_path / f"{number}.zip", "tiny")))


def test_annotations_name_no_file_outside(tmp_path: Path) -> None:
    files = tiny_imagenet()
    files["val/val_annotations.txt"] += b"\n../../../secret.PNG\tn01\t0"
    (tmp_path / "secret.PNG").write_bytes(files["val/images/val_0.PNG"])
    with pytest.raises(DataError, match=r"secret.PNG.*wanted is image, tab, class"):
        load(str(as_folder(files, tmp_path / "tiny")))


def test_names_may_begin_with_a_dot_and_archives_lie_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "cifar10").mkdir()
    as_tar(cifar10_binary(), tmp_path / "cifar10" / "cifar-10-binary.tar.gz", "./inner")
    check(load(str(tmp_path / "cifar10")), 10)


def damaged(content: bytes, place: bytes, shift: int) -> bytes:
    """With one byte changed, so far behind a place."""
    at = content.index(place) + shift
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


def test_a_damaged_archive_is_said(tmp_path: Path) -> None:
    path = as_tar(cifar10_binary(), tmp_path / "tar.tar.gz", "cifar-10-batches-bin")
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF  # of the checksum; what was packed is whole
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"CRC check failed.*Copy it again"):
        load(str(path))
    path = as_zip(tiny_imagenet(), tmp_path / "tiny.zip", "tiny")
    path.write_bytes(damaged(path.read_bytes(), b"tiny/wnids.txt", 16))
    with pytest.raises(DataError, match=r"tiny/wnids.txt cannot be read.*Copy it again"):
        load(str(path))


def test_an_archive_that_is_cut_off_is_said(tmp_path: Path) -> None:
    path = as_tar(cifar10_binary(), tmp_path / "cut.tar.gz", "cifar-10-batches-bin")
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(DataError, match="Copy it again"):
        load(str(path))


# Published data sets, from a server on this machine


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A web site whose cifar10 archive is ours, and a cache that is empty."""
    root = tmp_path / "site"
    root.mkdir()
    archive = as_tar(cifar10_binary(), root / "cifar-10-binary.tar.gz", "cifar-10-batches-bin")
    handler = partial(Quiet, directory=str(root))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
        md5 = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
        monkeypatch.setattr(download, "PUBLISHED", {"cifar10": download.Download(url, md5)})
        monkeypatch.setenv("DENATURE_CACHE", str(tmp_path / "cache"))
        monkeypatch.chdir(tmp_path)
        yield root
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_a_published_data_set_is_fetched_once_and_checked(site: Path, tmp_path: Path) -> None:
    check(load("cifar10"), 10)
    (site / "cifar-10-binary.tar.gz").unlink()
    check(load("cifar10"), 10)


def test_other_bytes_than_those_published_are_refused(site: Path, tmp_path: Path) -> None:
    (site / "cifar-10-binary.tar.gz").write_bytes(b"something else")
    with pytest.raises(
        DataError, match=r"other bytes than its authors published.*a copy of your own"
    ):
        load("cifar10")
    assert list((tmp_path / "cache" / "downloads").iterdir()) == []


def test_without_a_network_it_says_what_to_do(site: Path) -> None:
    (site / "cifar-10-binary.tar.gz").unlink()
    with pytest.raises(DataError, match=r"could not be fetched.*404.*Without a network"):
        load("cifar10")


def test_a_folder_of_that_name_comes_first(site: Path, tmp_path: Path) -> None:
    (site / "cifar-10-binary.tar.gz").unlink()
    as_folder(cifar10_binary(), tmp_path / "cifar10")
    check(load("cifar10"), 10)
