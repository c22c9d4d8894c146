"""The memory of a served defense on disk, kept over restarts.

One safetensors file for each model, replaced atomically; reading it executes nothing. It holds what
defenses remember of the answers that they gave, and no state of a generator: a server that was
killed would otherwise use the noise since its last write once more.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import final

from filelock import FileLock, Timeout
from torch import Tensor

from denature.core.errors import ConfigError, RunError
from denature.core.sealed import write_tensors
from denature.defenses.base import Defended, Stream
from denature.train.state import read_state

LARGEST = 1 << 30
"""Bytes of a memory's file at most."""

LOCK = ".serve.lock"

Tensors = Mapping[str, Tensor]


@contextmanager
def locked_folder(folder: Path) -> Iterator[Path]:
    """A folder of memories, locked against other servers.

    Raises:
        ConfigError: another server uses the folder, or it cannot be written.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"Another server keeps the memory of its defenses in {folder}; name another folder "
            "with --defense-state."
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written: {error.strerror or error}. Name another folder with "
            "--defense-state."
        ) from None
    try:
        yield folder
    finally:
        lock.release()


@final
class MemoryFile:
    """What the defenses of one model remember.

    Args:
        path: the file.
        defended: the model with its chain, which must be those that wrote the file.
    """

    def __init__(self, path: Path, defended: Defended) -> None:
        self._path = path
        self._defended = defended
        self._about = {"chain": defended.chain.name, "answers": defended.digest}

    def restore(self, check: Callable[[Stream], None]) -> None:
        """Let the model's stream go on with what was written last, if anything was.

        Args:
            check: answers a few images through another stream with the same memory.

        Raises:
            RunError: the file is damaged, too large, or of another model or defense.
        """
        if not self._path.exists():
            return
        tensors = self._read()
        trial = self._defended.chain.start(self._defended.networks)
        try:
            _restore(trial, tensors)
            check(trial)
            _restore(self._defended.stream, tensors)
        except Exception as error:  # of any kind, since the tensors may be anything
            raise RunError(
                f"{self._path} is no memory of {self._defended.chain.name}: {error} Delete it, and "
                "the defense begins anew."
            ) from None

    def _read(self) -> dict[str, Tensor]:
        if (size := self._path.stat().st_size) > LARGEST:
            raise RunError(
                f"{self._path} has {size:,} bytes; the memory of a defense has at most "
                f"{LARGEST:,}. Delete it, and the defense begins anew."
            )
        tensors, about = read_state(self._path)
        if about != self._about:
            chain = about.get("chain") if isinstance(about, dict) else None
            differs = "another model" if chain == self._about["chain"] else f"the defense {chain}"
            raise RunError(
                f"{self._path} is the memory of {differs}, not of {self._about['chain']} before "
                "this model. Name another folder with --defense-state, or delete the file, and the "
                "defense begins anew."
            )
        return tensors

    def write(self, tensors: Tensors) -> None:
        """Replace the file.

        Raises:
            OSError: it could not be written.
        """
        write_tensors(self._path, tensors, {"plain": json.dumps(self._about)})


def snapshot(stream: Stream) -> dict[str, Tensor]:
    """A copy of what the defenses of a stream remember, on the CPU."""
    return {
        name: tensor.detach().to("cpu", copy=True)
        for name, tensor in stream.state(random=False).items()
    }


def _restore(stream: Stream, tensors: Tensors) -> None:
    """Let a stream go on with what `snapshot` returned; its generators stay as they are."""
    own = stream.state(random=False).keys()
    generators = {name: value for name, value in stream.state().items() if name not in own}
    # Copied, since a memory may change its tensors in place.
    stream.restore(generators | {name: value.clone() for name, value in tensors.items()})
