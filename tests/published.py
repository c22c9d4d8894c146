"""CIFAR and Tiny-ImageNet with random images, as their authors publish them."""

import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from denature.data import Dataset

Files = dict[str, bytes]
GENERATOR = np.random.default_rng(0)
TRAIN = GENERATOR.integers(0, 256, (20, 3, 32, 32), np.uint8)
TEST = GENERATOR.integers(0, 256, (6, 3, 32, 32), np.uint8)
TRAIN_LABELS, TEST_LABELS = np.arange(20) % 10, np.arange(6) % 10
NAMES = [f"thing {number}" for number in range(100)]


def binary(images: np.ndarray, labels: np.ndarray, coarse: bool) -> bytes:
    records = [
        bytes([0] * coarse + [label]) + image.tobytes()
        for image, label in zip(images, labels, strict=True)
    ]
    return b"".join(records)


def cifar10_binary() -> Files:
    parts = np.split(np.arange(20), 5)
    files = {
        f"data_batch_{n}.bin": binary(TRAIN[part], TRAIN_LABELS[part], False)
        for n, part in enumerate(parts, 1)
    }
    files["test_batch.bin"] = binary(TEST, TEST_LABELS, False)
    files["batches.meta.txt"] = ("\n".join(NAMES[:10]) + "\n\n").encode()
    return files


def cifar100_binary() -> Files:
    return {
        "train.bin": binary(TRAIN, TRAIN_LABELS, True),
        "test.bin": binary(TEST, TEST_LABELS, True),
        "fine_label_names.txt": "\n".join(NAMES).encode(),
    }


def pickled(images: np.ndarray, labels: np.ndarray, key: bytes) -> bytes:
    found = {b"data": images.reshape(len(images), -1), key: labels.tolist(), b"batch_label": b"x"}
    return pickle.dumps(found, protocol=2)


def cifar10_python() -> Files:
    parts = np.split(np.arange(20), 5)
    files = {
        f"data_batch_{n}": pickled(TRAIN[part], TRAIN_LABELS[part], b"labels")
        for n, part in enumerate(parts, 1)
    }
    files["test_batch"] = pickled(TEST, TEST_LABELS, b"labels")
    files["batches.meta"] = pickle.dumps({"label_names": NAMES[:10]}, protocol=0)
    return files


def cifar100_python() -> Files:
    names = {b"fine_label_names": [name.encode() for name in NAMES]}
    return {
        "train": pickled(TRAIN, TRAIN_LABELS, b"fine_labels"),
        "test": pickled(TEST, TEST_LABELS, b"fine_labels"),
        "meta": pickle.dumps(names, protocol=2),
    }


CIFARS: dict[str, tuple[Callable[[], Files], str]] = {
    "cifar10-binary": (cifar10_binary, "cifar-10-batches-bin"),
    "cifar100-binary": (cifar100_binary, "cifar-100-binary"),
    "cifar10-python": (cifar10_python, "cifar-10-batches-py"),
    "cifar100-python": (cifar100_python, "cifar-100-python"),
}


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def tiny_imagenet() -> Files:
    """As published: val/ is one folder, and a file says which of its images is of which class."""
    wnids = ["n02", "n01", "n03"]
    files: Files = {"wnids.txt": "\n".join(wnids).encode()}
    files["words.txt"] = b"n01\tgoldfish\nn02\tnewt\nn03\tfrog\nn99\tno class here\n"
    for number, image in enumerate(TRAIN[:12]):
        wnid = sorted(wnids)[number // 4]
        files[f"train/{wnid}/images/{wnid}_{number % 4}.PNG"] = png(image)
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b"0 0 1 1"
    lines = []
    for number, image in enumerate(TEST):
        files[f"val/images/val_{number}.PNG"] = png(image)
        lines.append(f"val_{number}.PNG\t{sorted(wnids)[number % 3]}\t0\t0\t9\t9")
    files["val/val_annotations.txt"] = "\n".join(lines).encode()
    files["test/images/test_0.PNG"] = png(TEST[0])
    return files


def as_folder(files: Files, root: Path) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def as_tar(files: Files, path: Path, inner: str) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{inner}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def as_zip(files: Files, path: Path, inner: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"{inner}/{name}", data)
    return path


def check(dataset: Dataset, classes: int) -> None:
    assert np.array_equal(dataset.train.images.numpy(), TRAIN)
    assert np.array_equal(dataset.test.images.numpy(), TEST)
    assert dataset.train.labels.tolist() == TRAIN_LABELS.tolist()
    assert dataset.test.labels.tolist() == TEST_LABELS.tolist()
    assert dataset.classes == tuple(NAMES[:classes])
    assert dataset.test_origin == "test"
