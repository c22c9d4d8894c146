"""Parts of files of at most 20 MB that lie about their contents, and the list of such files."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from denature.data import DataConfig, load

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
