"""Records, checkpoints, weights and programs that lie about their contents."""

import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from denature.answers.program import open_program
from denature.answers.transfer_file import load_transfer
from denature.core.hits import Hits
from denature.core.record import find_records, read_record
from denature.core.weights import read_weights
from denature.train.importing import import_run
from denature.train.run import load_run
from denature.train.state import read_state
from tests.lies import MIB, Load, case, many, nested, written, zip_of


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
