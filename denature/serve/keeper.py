"""Writes the memories of served defenses while the server runs, and at its end."""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Sequence
from typing import final

from denature.serve.batching import Batcher
from denature.serve.model import Model

LOGGER = logging.getLogger("denature.serve")


@final
class MemoryKeeper:
    """Copies each memory between two batches of its model, and writes the copy beside them.

    Args:
        lines: models with the queues in front of them.
        every_s: seconds between two writes.
    """

    def __init__(self, lines: Sequence[tuple[Model, Batcher]], every_s: float) -> None:
        self._lines = lines
        self._every_s = every_s

    async def run(self, end: asyncio.Event) -> None:
        """Write memories that changed, every few seconds and at the end."""
        while not end.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(end.wait(), self._every_s)
            for model, line in self._lines:
                await self._keep(model, line)

    async def _keep(self, model: Model, line: Batcher) -> None:
        copy = await line.between(model.copy_memory)
        if copy is None:
            return
        write = functools.partial(model.write_memory, copy)
        try:
            await asyncio.get_running_loop().run_in_executor(None, write)
        except OSError as error:  # a full disk: the next turn tries again
            LOGGER.error(
                "The memory of the defense of %s was not written: %s.",
                model.signature.name,
                error.strerror or error,
            )
