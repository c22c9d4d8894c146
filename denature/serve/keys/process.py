"""A process of its own for a store of keys, so that no fault of the store ends a server.

A damaged file may end the process that reads it, a disk or a network may hang it; the server then
starts another one. Both speak in lines of JSON over pipes: charges there, bookings back. The
process ends when its server does.

    python -m denature.serve.keys.process PLACE
"""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, final

import orjson

from denature.core.errors import ConfigError
from denature.serve.keys import open_keys
from denature.serve.keys.base import Booking, Charge, Key, Keys, KeysUnavailable

REPLY_S = 3.0
"""Seconds for a reply; the stores' own bounds are shorter."""

START_S = 5.0
"""Seconds for the first reply of a process, its start included."""

END_S = 1.0
"""Seconds for a killed process to end; one that waits for a disk does not."""

LONGEST_LINE = 1 << 20
"""Bytes of a reply at most."""


@final
class StoreProcess:
    """A store of keys in a process of its own, which starts with the first charges.

    Args:
        place: see `denature.serve.keys.open_keys`.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._process: Process | None = None

    async def book(self, charges: Sequence[Charge]) -> list[Booking]:
        """See `denature.serve.keys.base.Keys.book`.

        Raises:
            KeysUnavailable: the store cannot be used, or its process ended or hangs.
        """
        try:
            async with asyncio.timeout(START_S if self._process is None else REPLY_S):
                line = await self._asked(orjson.dumps([list(charge) for charge in charges]))
            reply = orjson.loads(line)  # of a process that is killed, a part of a line may come
        except (TimeoutError, OSError, ValueError) as error:
            await self.close()
            cause = str(error) or "it did not reply"
            raise KeysUnavailable(f"The process of the keys failed: {cause}.") from None
        except asyncio.CancelledError:
            await self.close()
            raise
        if "error" in reply:
            raise KeysUnavailable(reply["error"])
        return [_booking(*pair) for pair in zip(charges, reply["bookings"], strict=True)]

    async def _asked(self, line: bytes) -> bytes:
        if self._process is None:
            # It imports from where the server does, and from nowhere else.
            path = os.pathsep.join(filter(None, sys.path))
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", __name__, self._place,
                stdin=PIPE, stdout=PIPE, limit=LONGEST_LINE,
                env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line + b"\n")
        reply = await process.stdout.readline()
        if not reply:
            raise OSError(f"it ended with {await process.wait()}")
        return reply

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            with suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await process.wait()


def _booking(charge: Charge, reply: Sequence[Any]) -> Booking:
    key, booked, lead_s = reply
    return Booking(charge, key and Key(**key), booked, lead_s)


def _reply(keys: Keys, line: bytes) -> dict[str, Any]:
    charges = [Charge(*charge) for charge in orjson.loads(line)]
    bookings = keys.book(charges)
    return {"bookings": [[booking.key, booking.booked, booking.lead_s] for booking in bookings]}


def main(place: str) -> None:
    """Book the charges on standard input until it ends."""
    for stop in (signal.SIGINT, signal.SIGTERM):  # the server ends this process, after its answers
        signal.signal(stop, signal.SIG_IGN)
    keys: Keys | None = None
    for line in sys.stdin.buffer:
        try:
            keys = keys or open_keys(place)
            reply = _reply(keys, line)
        except ConfigError as error:
            reply = {"error": str(error)}
        sys.stdout.buffer.write(orjson.dumps(reply) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1])
