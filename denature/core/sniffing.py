"""Identify files of unexpected contents: failed downloads, and archives of other files."""

import itertools
import pickletools
import re
import zipfile
from pathlib import Path

from denature.core.untrusted import open_regular, open_zip

MOST_OPCODES = 1_000_000
"""Opcodes of a pickle that are looked at."""

HEAD = 512
"""Leading bytes that identify the format of a file."""

LONGEST_HEADER = 100_000_000
"""Most bytes of a safetensors header, as in the library."""

PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "rar",
}

INDEX = "is the index of weights that lie in several files beside it. Join those into one"

AGAIN = "The server may require a login, or its quota is exhausted; download the file again"


def what_else(path: Path) -> str | None:
    """Describe a file that cannot be a checkpoint, with the next step; None where it may be one."""
    head = head_of(path)
    if path.name.endswith(".index.json") and _text(head) is not None:
        return INDEX
    if (found := instead_of(head, "Name the file with the weights")) is not None:
        return found
    for magic, name in PACKED.items():
        if head.startswith(magic):
            return f"is packed with {name}. Unpack it first"
    if head.startswith(b"\x89HDF"):
        return "is an HDF5 file, as Keras writes. Convert it to a torch state_dict"
    if head[257:262] == b"ustar":
        return "is a tar archive of other files. Unpack it, and name the checkpoint inside"
    return _kind_of_zip(path) if head.startswith(b"PK") else None


def instead_of(data: bytes, otherwise: str | None = None) -> str | None:
    """Describe an empty file, or text in place of a binary file, with the next step; else None.

    Args:
        data: bytes of the file, or the first `HEAD` of them.
        otherwise: next step for text that is no failed download; None where such text may be
            right.
    """
    if not data:
        return "is empty. Download it again"
    text = _text(data[:HEAD])
    return None if text is None else _kind_of_text(text, otherwise)


def head_of(path: Path) -> bytes:
    """The leading bytes that identify the format of a file."""
    with open_regular(path) as file:
        return file.read(HEAD)


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors does: the length of a JSON object, and the object."""
    with open_regular(path) as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= LONGEST_HEADER


def is_pickle(path: Path) -> bool:
    """Whether a file begins as a pickle, or as the zip archive that torch puts one into."""
    with open_regular(path) as file:
        return file.read(2) in (b"PK", *(bytes([0x80, protocol]) for protocol in range(2, 6)))


def is_cut_pickle(path: Path) -> bool:
    """Whether a file is a pickle without its end; nothing in it is executed."""
    with open_regular(path) as file:
        if file.read(1) != b"\x80":
            return False
        file.seek(0)
        try:
            for _ in itertools.islice(pickletools.genops(file), MOST_OPCODES):
                pass
        except Exception:  # any fault means that the pickle does not reach its end
            return True
    return False


def _text(head: bytes) -> str | None:
    """The beginning of a text file; None where it is binary."""
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(head) < HEAD or error.start < len(head) - 3:  # the last character may be cut in two
            return None
        text = head[: error.start].decode("utf-8-sig")
    return None if re.search(r"[\x00-\x08\x0e-\x1f]", text) else text.strip()


def left_by_download(text: str) -> str | None:
    """Describe a failed download by the beginning of its text, with the next step; else None."""
    start = text.lstrip("\ufeff \t\r\n")[:HEAD].lower()
    if start.startswith("version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself. Fetch the file with `git lfs pull`"
    if re.match(r"(<!--.*?-->\s*)?<(!doctype html|html|head|body)\b", start, re.DOTALL):
        return f"is an HTML page. {AGAIN}"
    return f"is an XML document. {AGAIN}" if start.startswith("<") else None


def _kind_of_text(text: str, otherwise: str | None) -> str | None:
    if (left := left_by_download(text)) is not None:
        return left
    start = text.lower()
    if re.match(r'\{.*"weight_map"', start, re.DOTALL):
        return INDEX
    if start.startswith(("{", "[")):
        return f"is JSON. {AGAIN}"
    return None if otherwise is None else f"is text that begins with {text[:40]!r}. {otherwise}"


def _kind_of_zip(path: Path) -> str | None:
    try:
        with open_zip(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return "is cut off or damaged (a zip archive or a torch checkpoint). Download it again"
    if any(re.search(r"(^|/)constants\.pkl$", name) for name in names):
        return "is a TorchScript archive, whose code would be executed. Save its state_dict() alone"
    if any(re.search(r"(^|/)data\.pkl$", name) for name in names):
        return None
    if names and all(name.endswith(".npy") for name in names):
        return "is an .npz of NumPy. Save its arrays as a torch state_dict, or as .safetensors"
    inside = f"{len(names)} files, such as {names[0][:60]!r}" if names else "no file"
    return f"is a zip archive of {inside}, and no checkpoint. Name the checkpoint itself"
