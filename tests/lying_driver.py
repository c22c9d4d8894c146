"""Files of at most 20 MB that lie about their contents, and the memory that each loader takes.

Run as a program, it makes each file in a folder, loads it in a forked process whose peak of
resident memory is measured, and prints one JSON object a line: name, error and MiB over the start.
"""

import ctypes
import gc
import gzip
import io
import json
import os
import pickle
import resource
import signal
import struct
import sys
import tarfile
import traceback
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
from PIL import Image

from denature.answers.program import open_program
from denature.answers.transfer_file import load_transfer
from denature.core.errors import DenatureError
from denature.core.hits import Hits
from denature.core.record import find_records, read_record
from denature.core.weights import read_weights
from denature.data import DataConfig, load
from denature.extract.theft import read_theft
from denature.recipes.nose.service_answers import _read as read_answers
from denature.recipes.upstream.folders import Overrides
from denature.recipes.upstream.folders import read as read_folder
from denature.remote.protocol import read_reply, read_signature
from denature.report.results import read_outcome
from denature.train.importing import import_run
from denature.train.run import load_run
from denature.train.state import read_state

MIB = 2**20
LARGEST = 20_000_000
"""Bytes of a lying file."""

Load = Callable[[], object]
CASES: dict[str, Callable[[Path], Load]] = {}


def case(make: Callable[[Path], Load]) -> Callable[[Path], Load]:
    CASES[make.__name__] = make
    return make


def written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data[:LARGEST])
    return path


def loading(path: Path, **options: Any) -> Load:
    return lambda: load(DataConfig(source=str(path), **options))


def many(piece: bytes) -> bytes:
    return piece * (LARGEST // len(piece))


def nested(piece: str) -> bytes:
    """A JSON list of as many pieces as fit."""
    return b"[" + many(piece.encode() + b",")[:-1] + b"]"


def deflated(head: bytes, zeros: int) -> bytes:
    """Raw deflate of a head and at least so many zeros, made of one repeated block."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(16 * MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    count, rest = divmod(zeros, 16 * MIB)
    return start + block * count + packer.compress(bytes(rest)) + packer.flush()


def zip_of(members: dict[str, tuple[bytes, int, int]]) -> bytes:
    """A zip archive of names with packed bytes, declared sizes and methods.

    Checksums are right for what is small.
    """
    body, listed = io.BytesIO(), io.BytesIO()
    for name, (data, size, method) in members.items():
        at, plain = body.tell(), data
        if method == 8 and size < 256 * MIB:
            plain = zlib.decompress(data, -15)
        crc = zlib.crc32(plain)
        body.write(
            b"PK\3\4"
            + struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 0, crc, len(data), size, len(name), 0)
            + name.encode()
            + data
        )
        listed.write(
            b"PK\1\2"
            + struct.pack(
                "<HHHHHHIIIHHHHHII",
                20,
                20,
                0,
                method,
                0,
                0,
                crc,
                len(data),
                size,
                len(name),
                0,
                0,
                0,
                0,
                0,
                at,
            )
            + name.encode()
        )
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), listed.tell(), body.tell(), 0)
    return body.getvalue() + listed.getvalue() + b"PK\5\6" + end


def npy(shape: tuple[int, ...], kind: str, *, by_columns: bool = False) -> bytes:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": kind, "fortran_order": by_columns, "shape": shape}
    )
    return head.getvalue()


def npz(path: Path, **arrays: tuple[tuple[int, ...], str, bool]) -> Path:
    members = {}
    for name, (shape, kind, by_columns) in arrays.items():
        head = npy(shape, kind, by_columns=by_columns)
        size = int(np.prod(shape, dtype=object)) * np.dtype(kind).itemsize
        data = deflated(head, size)
        members[f"{name}.npy"] = (data, min(2**32 - 2, len(head) + size), 8)
    return written(path, zip_of(members))


# Data


@case
def archive_of_a_large_member(folder: Path) -> Load:
    first, test = (tarfile.TarInfo(f"c/{name}") for name in ("data_batch_1", "test_batch"))
    first.size = 448 * 8 * MIB
    data = gzip.compress(first.tobuf()) + gzip.compress(bytes(8 * MIB)) * 448
    return loading(written(folder / "a.tar.gz", data + gzip.compress(test.tobuf() + bytes(1024))))


@case
def archive_of_a_large_header(folder: Path) -> Load:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 448 * 8 * MIB
    data = gzip.compress(info.tobuf()) + gzip.compress(bytes(8 * MIB)) * 448
    return loading(written(folder / "a.tar.gz", data))


@case
def archive_of_many_members(folder: Path) -> Load:
    block = gzip.compress(tarfile.TarInfo("a").tobuf() * 4096)
    return loading(written(folder / "a.tar.gz", block * (LARGEST // len(block))))


@case
def zip_of_many_members(folder: Path) -> Load:
    entry = b"PK\1\2" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"a"
    count = LARGEST // len(entry) - 10
    end = struct.pack("<HHHHIIH", 0, 0, 65535, 65535, count * len(entry), 0, 0)
    return loading(written(folder / "a.zip", entry * count + b"PK\5\6" + end))


@case
def zip_packed_by_lzma(folder: Path) -> Load:
    head = struct.pack("<HH", 0, 5) + b"\x5d" + struct.pack("<I", 2**31)
    names = {"t/wnids.txt": (head + bytes(99), 99, 14), "t/val/val_annotations.txt": (b"", 0, 0)}
    return loading(written(folder / "a.zip", zip_of(names)))


def cifar(folder: Path, data: bytes) -> Load:
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        written(folder / name, data)
    return loading(folder)


@case
def pickle_of_many_objects(folder: Path) -> Load:
    return cifar(folder, b"\x80\x02" + many(b"}"))


@case
def packed_pickle_of_many_objects(folder: Path) -> Load:
    first, test = (tarfile.TarInfo(f"c/{name}") for name in ("data_batch_1", "test_batch"))
    first.size = 160 * MIB
    data = gzip.compress(first.tobuf()) + gzip.compress(b"}" * (8 * MIB)) * 20
    return loading(written(folder / "a.tar.gz", data + gzip.compress(test.tobuf() + bytes(1024))))


@case
def packed_pickle_within_the_limit(folder: Path) -> Load:
    first, test = (tarfile.TarInfo(f"c/{name}") for name in ("train", "test"))
    head = b"\x80\x02}X\4\0\0\0dataB" + struct.pack("<I", 148 * MIB)
    first.size = 152 * MIB + len(head)
    zeros = gzip.compress(bytes(8 * MIB)) * 19
    data = gzip.compress(first.tobuf() + head) + zeros
    pad = bytes(-len(head) % 512)
    end = gzip.compress(pad + test.tobuf() + bytes(1024))
    return loading(written(folder / "a.tar.gz", data + end))


@case
def pickle_of_shared_lists(folder: Path) -> Load:
    levels: list[Any] = [0] * 1000
    for _ in range(3):
        levels = [levels] * 1000
    return cifar(folder, pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": levels}, 2))


@case
def pickle_that_encodes_again(folder: Path) -> Load:
    text = pickle.dumps("a" * (8 * MIB), 2)[2:-1]
    again = b"c_codecs\nencode\nq\x01h\x00X\6\0\0\0latin1\x86q\x02R" + b"h\x01h\x02R" * 1000
    return cifar(folder, b"\x80\x02(" + text + again + b"l.")


@case
def npz_of_zeros(folder: Path) -> Load:
    shape = (900_000, 32, 32, 3)
    return loading(npz(folder / "a.npz", x_train=(shape, "|u1", False),
                       y_train=((900_000,), "<i8", False)), holdout=0.5)  # fmt: skip


@case
def npz_of_many_labels(folder: Path) -> Load:
    shapes: dict[str, Any] = {"x_train": ((MIB, 1, 1), "|u1", False)}
    return loading(npz(folder / "a.npz", **shapes, y_train=((480 * MIB,), "<i8", False)))


@case
def npz_by_columns(folder: Path) -> Load:
    shapes: dict[str, Any] = {"x_train": ((900_000, 32, 32, 3), "|u1", True)}
    return loading(npz(folder / "a.npz", **shapes, y_train=((900_000,), "<i8", False)))


@case
def npz_of_an_absurd_shape(folder: Path) -> Load:
    head = npy((10**30, 8, 8), "|u1")
    members = {"x_train.npy": (head, len(head), 0), "y_train.npy": (head, len(head), 0)}
    return loading(written(folder / "a.npz", zip_of(members)))


@case
def parquet_of_large_cells(folder: Path) -> Load:
    cells = pa.array([b"\0" * (30 * MIB)] * 8, pa.binary())
    table = pa.table({"image": cells, "label": [0, 1] * 4})
    pq.write_table(table, folder / "train.parquet", compression="zstd")
    return loading(folder, holdout=0.5)


@case
def parquet_of_cells_within_the_limit(folder: Path) -> Load:
    cells = pa.array([np.random.default_rng(0).bytes(18 * MIB) + bytes(17 * MIB)] * 8, pa.binary())
    table = pa.table({"image": cells, "label": [0, 1] * 4})
    pq.write_table(table, folder / "train.parquet", compression="zstd")
    return loading(folder, holdout=0.5)


@case
def parquet_of_large_pages(folder: Path) -> Load:
    table = pa.table({"image": [bytes([n]) * (30 * MIB) for n in range(6)], "label": [0, 1] * 3})
    pq.write_table(table, folder / "train.parquet", compression="zstd", use_dictionary=False)
    return loading(folder, holdout=0.5)


@case
def parquet_of_large_names(folder: Path) -> Load:
    table = pa.table({"image": [b"0"] * 8, "label": ["a" * (30 * MIB)] * 8})
    pq.write_table(table, folder / "train.parquet", compression="zstd")
    return loading(folder, holdout=0.5)


@case
def parquet_of_long_lists(folder: Path) -> Load:
    lists = pa.ListArray.from_arrays([0, 2, 8 * MIB], pa.array(np.zeros(8 * MIB, np.float32)))
    table = pa.table({"image": [b"0"] * 2, "landmarks": lists})
    pq.write_table(table, folder / "train.parquet", compression="zstd")
    return loading(folder, holdout=0.5)


def picture(folder: Path, image: Image.Image, name: str, **options: Any) -> Load:
    for place in "ab":
        (folder / place).mkdir(parents=True)
    image.save(folder / "a" / name, **options)
    for copy in ("a/1", "b/0", "b/1"):
        os.link(folder / "a" / name, folder / f"{copy}{name}")
    return loading(folder, image_size=8, holdout=0.5)


@case
def picture_png_of_one_bit(folder: Path) -> Load:
    return picture(folder / "x", Image.new("1", (6324, 6324)), "a.png")


@case
def picture_png_with_transparency(folder: Path) -> Load:
    return picture(folder / "x", Image.new("P", (6324, 6324)), "a.png", transparency=b"\0\1")


@case
def picture_progressive_jpeg(folder: Path) -> Load:
    return picture(folder / "x", Image.new("RGB", (6324, 6324)), "a.jpg", progressive=True)


@case
def picture_lossless_webp(folder: Path) -> Load:
    return picture(folder / "x", Image.new("RGBA", (4000, 4000)), "a.webp", lossless=True, method=0)


@case
def picture_packed_tiff(folder: Path) -> Load:
    return picture(folder / "x", Image.new("RGB", (6324, 6324)), "a.tif",
                   compression="tiff_adobe_deflate")  # fmt: skip


@case
def pictures_of_any_size(folder: Path) -> Load:
    image = Image.new("L", (3000, 3000))
    for number in range(12):
        path = folder / "x" / "abcd"[number % 4] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return loading(folder / "x", holdout=0.5)


@case
def lists_of_tiny_imagenet(folder: Path) -> Load:
    written(folder / "wnids.txt", many(b"ab\n"))
    written(folder / "val" / "val_annotations.txt", many(b"a\tb\n"))
    return loading(folder)


@case
def list_of_classes(folder: Path) -> Load:
    written(folder / "classes.txt", many(b"ab\n"))
    pq.write_table(pa.table({"image": [b"0"], "label": [0]}), folder / "train.parquet")
    return loading(folder)


@case
def images_enlarged_for_a_victim(folder: Path) -> Load:
    images = np.zeros((1000, 8, 8), np.uint8)
    np.savez(folder / "a.npz", x_train=images, y_train=np.arange(1000) % 10)
    return loading(folder / "a.npz", image_size=512, holdout=0.5)


# Runs and weights


def run_of(folder: Path, **net: Any) -> Path:
    made = import_run("cnn", saved(folder / "w.safetensors"), classes=10, out=folder / "run",
                      mean=(0.5,) * 3, std=(0.5,) * 3)  # fmt: skip
    assert made.folder is not None
    path = made.folder / "record.json"
    record = json.loads(path.read_text())
    record["net"] |= net
    path.write_text(json.dumps(record))
    return made.folder


def saved(path: Path) -> Path:
    from denature.nets import create

    network: Any = create("cnn", classes=10)
    safetensors.torch.save_file(network.body.state_dict(), path)
    return path


@case
def record_of_a_huge_network(folder: Path) -> Load:
    run = run_of(folder, name="cnn@width=4096")
    return lambda: load_run(run)


@case
def record_of_huge_images(folder: Path) -> Load:
    run = run_of(folder, name="mlp", image_size=4096)
    return lambda: load_run(run)


@case
def record_of_many_values(folder: Path) -> Load:
    written(folder / "record.json", nested('{"":[]}'))
    return lambda: read_record(folder)


@case
def record_of_values_within_the_limit(folder: Path) -> Load:
    written(folder / "record.json", b"[" + b'{"":0},' * 320_000 + b"0]")
    return lambda: read_record(folder)


@case
def records_of_many_values(folder: Path) -> Load:
    path = written(folder / "records.jsonl", nested("[]"))
    return lambda: find_records([path])


@case
def hits_of_many_images(folder: Path) -> Load:
    import base64

    packed = base64.b64encode(zlib.compress(bytes(16 * MIB))).decode()
    return lambda: Hits(test="", packed=packed).unpack(10**12)


def checkpoint(folder: Path, value: Any, method: int = zipfile.ZIP_STORED) -> Path:
    torch.save(value, folder / "plain.pt")
    with (
        zipfile.ZipFile(folder / "plain.pt") as plain,
        zipfile.ZipFile(folder / "a.pt", "w", method) as packed,
    ):
        for info in plain.infolist():
            packed.writestr(info.filename, plain.read(info))
    (folder / "plain.pt").unlink()
    return folder / "a.pt"


@case
def checkpoint_that_is_packed(folder: Path) -> Load:
    path = checkpoint(folder, {"w": torch.zeros(20 * MIB)}, zipfile.ZIP_DEFLATED)
    return lambda: read_weights(path)


@case
def checkpoint_of_repeated_values(folder: Path) -> Load:
    torch.save({"a.w": torch.zeros(1).expand(2**20, 2**10)}, folder / "a.pt")
    return lambda: import_run("cnn", folder / "a.pt", classes=10)


@case
def checkpoint_of_many_objects(folder: Path) -> Load:
    path = written(folder / "a.pt", b"\x80\x02" + many(b"}"))
    return lambda: read_weights(path)


@case
def packed_checkpoint_of_many_objects(folder: Path) -> Load:
    data = b"\x80\x02" + many(b"\x8f")[:-400]
    path = written(folder / "a.pt", zip_of({"a/data.pkl": (data, len(data), 0)}))
    return lambda: read_weights(path)


@case
def weights_of_many_names(folder: Path) -> Load:
    entries = {f"{n:x}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
               for n in range(310_000)}  # fmt: skip
    head = json.dumps(entries, separators=(",", ":")).encode()
    path = written(folder / "a.safetensors", struct.pack("<Q", len(head)) + head)
    return lambda: read_weights(path)


def with_metadata(path: Path, key: str, piece: str) -> Path:
    head = json.dumps({"__metadata__": {key: nested(piece).decode()[: 10**7 - 1] + "]"}}).encode()
    return written(path, struct.pack("<Q", len(head)) + head)


@case
def state_of_many_values(folder: Path) -> Load:
    path = with_metadata(folder / "state.safetensors", "plain", "[]")
    return lambda: read_state(path)


@case
def transfer_set_of_many_values(folder: Path) -> Load:
    path = with_metadata(folder / "a.safetensors", "header", "[]")
    return lambda: load_transfer(path)


@case
def onnx_of_a_large_constant(folder: Path) -> Load:
    import onnx
    from onnx import TensorProto, helper

    shape = helper.make_tensor("s", TensorProto.INT64, [1], [240 * MIB])
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["z"]),
        helper.make_node("ReduceSum", ["z"], ["r"], keepdims=0),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    taken = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 32, 32])
    given = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 32, 32])
    graph = helper.make_graph(nodes, "g", [taken], [given], [shape])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "a.onnx")
    return lambda: open_program(folder / "a.onnx")


# Results, configs, answers


@case
def result_of_many_values(folder: Path) -> Load:
    written(folder / "result.json", nested("[]"))
    return lambda: read_outcome(folder)


@case
def theft_of_many_values(folder: Path) -> Load:
    written(folder / "result.json", nested("[0]"))
    return lambda: read_theft(folder)


@case
def config_of_many_values(folder: Path) -> Load:
    path = written(folder / "a.toml", b"a = " + nested("{}")[: LARGEST - 9] + b"]")

    def read() -> None:
        from denature.cli.options import _read

        _read(path, "train")

    return read


@case
def parameters_of_many_values(folder: Path) -> Load:
    written(folder / "params.json", nested("[]"))
    return lambda: read_folder(folder, Overrides())


@case
def recorded_answers_of_many_values(folder: Path) -> Load:
    path = written(folder / "labels.json", nested("[]"))
    return lambda: read_answers(path)


SIGNATURE = {
    "name": "m", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3, 8, 8]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 10]}],
}  # fmt: skip


@case
def reply_of_many_values(folder: Path) -> Load:
    body, signature = nested("[]"), read_signature(SIGNATURE, None)
    return lambda: refused(lambda: read_reply(body, None, signature, count=1))


@case
def reply_of_far_classes(folder: Path) -> Load:
    signature = read_signature(SIGNATURE | {"outputs": [
        {"name": "y", "datatype": "BYTES", "shape": [-1, 1]}]}, None)  # fmt: skip
    tensor = {"name": "y", "datatype": "BYTES", "shape": [256, 1], "data": ["0.5:999999"] * 256}
    body = json.dumps({"outputs": [tensor]}).encode()
    return lambda: refused(lambda: read_reply(body, None, signature, count=256))


def refused(read: Load) -> object:
    try:
        return read()
    except (ValueError, RecursionError) as error:  # as the client does
        raise DenatureError(str(error)) from None


# Measuring


def peak(load: Load) -> dict[str, Any]:
    """The error and the MiB of resident memory that a load takes, in this process."""
    signal.alarm(120)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status("VmRSS")
    resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") * 1024 + 4096 * MIB,) * 2)
    try:
        load()
        error = ""
    except DenatureError as raised:
        error = f"{type(raised).__name__}: {raised}"
    except BaseException:
        error = f"Traceback: {traceback.format_exc(limit=-4)}"
    return {"error": error, "mib": round((status("VmHWM") - before) / 1024, 1)}


def status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def forked(name: str, folder: Path) -> None:
    """Make a file and measure its load in a process of its own, and print the outcome."""
    child = os.fork()
    if not child:
        load = CASES[name](folder)
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        assert max(sizes, default=0) <= LARGEST, name
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # else freed memory would serve the load
        pa.default_memory_pool().release_unused()
        print(json.dumps({"name": name, **peak(load)}), flush=True)
        os._exit(0)
    _, code = os.waitpid(child, 0)
    if code:
        print(json.dumps({"name": name, "error": f"Traceback: ended by {code}", "mib": 0}))


def main(root: Path, names: list[str]) -> None:
    import shutil

    for name in names or CASES:
        folder = root / name
        folder.mkdir(parents=True)
        os.environ["DENATURE_CACHE"] = str(folder / "cache")
        forked(name, folder)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
