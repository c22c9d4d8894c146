"""Files that hold a digest of their own content, so that a changed bit is found on reading.

Tensors lie in a safetensors file whose metadata has the plain values as JSON, and the digest; so
reading executes nothing. Files without a digest, which earlier versions wrote, are read unchecked.
The digest finds damage, not malice.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from denature.core.files import atomic_path

SEAL = "denature-sha256"
"""Key of the digest, in metadata and in JSON objects; files of others have keys of their own."""


class Damaged(ValueError):
    """Content that is not what was written."""


def content_digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """sha256 over a text and over names, types, shapes and values of tensors, as 64 hex digits."""
    found = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        tensor = tensor.detach().cpu().contiguous()
        found.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        found.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    *,
    former: Path | None = None,
) -> None:
    """Write a sealed file atomically.

    Args:
        path: the file.
        tensors: on any device.
        metadata: texts by name.
        former: where the file that is replaced stays; see `atomic_path`.

    Raises:
        OSError: the file could not be written, for any reason.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # Cloned, because safetensors refuses tensors that share memory, as tied weights do.
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    seal = content_digest(copies, _text(metadata))
    with atomic_path(path, former=former) as temporary:
        try:
            save_file(copies, temporary, metadata={**metadata, SEAL: seal})
        except SafetensorError as error:  # a full disk, in the library's own words
            raise OSError(str(error)) from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file and its metadata without the seal.

    Raises:
        Damaged: the content is not what the seal says.
        OSError, SafetensorError: the file cannot be read.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    seal = metadata.pop(SEAL, None)
    if seal is not None and seal != content_digest(tensors, _text(metadata)):
        raise Damaged("its content is not what was written")
    return tensors, metadata


def sealed(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Plain JSON values with their seal."""
    return {**plain, SEAL: hashlib.sha256(_text(plain).encode()).hexdigest()}


def unsealed(plain: object) -> dict[str, Any]:
    """The values of a JSON object without their seal.

    Raises:
        Damaged: it is no object, or its values are not what the seal says.
    """
    if not isinstance(plain, dict):
        raise Damaged(f"it is no JSON object, but {type(plain).__name__}")
    values = {key: value for key, value in plain.items() if key != SEAL}
    if SEAL in plain and plain[SEAL] != sealed(values)[SEAL]:
        raise Damaged("its content is not what was written")
    return values


def _text(plain: Mapping[str, Any]) -> str:
    return json.dumps(plain, sort_keys=True)
