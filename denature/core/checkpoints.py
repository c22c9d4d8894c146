"""Checks of weight files before a library reads them: what they declare fits what they hold."""

import os
import pickletools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from denature.core.errors import RunError
from denature.core.untrusted import MIB, check_cost, open_regular, open_zip

MOST_OPCODES = 1_000_000
"""Opcodes of a checkpoint's pickles at most: those of 25,000 tensors."""

MOST_ENCODED = 64 * MIB
"""Bytes that a pickle may encode at most: a text in its memo can be named any number of times."""

PICKLES = 5
"""Pickles at the beginning of a checkpoint from before torch 1.6."""


def check_checkpoint(path: Path) -> None:
    """Check a checkpoint that torch saved; nothing in it is executed.

    Raises:
        ValueError: it unpacks to more than its size, or has too many opcodes.
        OSError, zipfile.BadZipFile: it is damaged.
    """
    with open_regular(path) as file:
        packed = file.read(2) == b"PK"
        file.seek(0)
        if not packed:
            for _ in range(PICKLES):
                if not _walk(file):
                    return
            return
        size = os.fstat(file.fileno()).st_size
    with open_zip(path) as archive:
        infos = archive.infolist()
        stored = all(info.compress_type == zipfile.ZIP_STORED for info in infos)
        declared = sum(info.file_size for info in infos)
        if not stored or declared > size:
            raise ValueError(
                f"its {size:,} bytes declare {declared:,}; torch stores its files as they are"
            )
        for info in infos:
            if info.filename.rpartition("/")[2] == "data.pkl":
                with archive.open(info) as opened:
                    _walk(opened)


def _walk(file: IO[bytes]) -> bool:
    """Walk over one pickle; returns whether it has an end.

    Raises:
        ValueError: it has too many opcodes, or encodes too much.
    """
    longest = calls = 0
    encodes = ended = False
    try:
        for number, (opcode, value, _) in enumerate(pickletools.genops(file)):
            if number == MOST_OPCODES:
                break
            calls += opcode.name == "REDUCE"
            if isinstance(value, str):
                longest = max(longest, len(value))
                encodes = encodes or value == "_codecs encode"
                if value.rpartition(" ")[2] == "bytearray":
                    raise ValueError("its pickle makes a bytearray, of any size, and weights none")
            ended = opcode.name == "STOP"
        else:
            number = 0
    except ValueError as error:
        if "bytearray" in str(error):
            raise
        return False
    except Exception:  # torch says what is wrong with it
        return False
    if number == MOST_OPCODES:
        raise ValueError(f"its pickle has more than {MOST_OPCODES:,} opcodes")
    if encodes and calls * longest > MOST_ENCODED:
        raise ValueError("its pickle encodes more texts than it holds")
    return ended


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """A safetensors file, as `safetensors.safe_open` for torch, whose header is of bounded size.

    Raises:
        OSError, ValueError, SafetensorError: the file cannot be read.
    """
    from safetensors import safe_open

    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if length <= size:
            check_cost(file.read(length))
    with safe_open(path, framework="pt") as opened:
        yield opened


def check_total(path: Path, declared: int) -> None:
    """Check the bytes of a file's tensors, which may share their memory and repeat their values.

    Raises:
        RunError: the tensors have much more bytes than the file.
    """
    size = path.stat().st_size
    if declared > max(64 * MIB, 4 * size):
        raise RunError(
            f"{path} has {size:,} bytes, and declares tensors of {declared:,}. Save plain tensors, "
            "none of them expanded, best as .safetensors."
        )
