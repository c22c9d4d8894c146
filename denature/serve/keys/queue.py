"""Charges of all requests, booked in batches."""

import asyncio
from collections import Counter
from typing import TypeAlias, final

from denature.serve.keys.base import Booking, Charge, KeysUnavailable, digest_of, unavailable
from denature.serve.keys.process import StoreProcess

MOST_AT_ONCE = 256
"""Charges in one transaction at most."""

MOST_WAITING = 4096
"""Charges that may wait for a transaction; more are refused."""

Waiting: TypeAlias = tuple[Charge, "asyncio.Future[Booking]"]


@final
class ChargeQueue:
    """A queue in front of a store of keys; the next charges gather while a transaction runs.

    Callers wait side by side: a store that is locked or stopped refuses all of them after one
    wait. What was booked for a caller that no longer waits, or for a request that was not answered,
    is given back with the next transaction.
    """

    def __init__(self, store: StoreProcess) -> None:
        self._store = store
        self._waiting: list[Waiting] = []
        self._owed: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the store's process before the first request; a fault refuses requests later."""
        await self._book([])

    async def book(self, key: str, images: int) -> Booking:
        """Book images on a key's account, or look it up with 0 images.

        Raises:
            Refused: with 503, where the store cannot be used or too many requests wait for it.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise unavailable(f"{MOST_WAITING} charges wait already.")
        future: asyncio.Future[Booking] = asyncio.get_running_loop().create_future()
        self._waiting.append((Charge(digest_of(key), images), future))
        self._start()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.give_back(future.result())
            raise

    def give_back(self, booking: Booking) -> None:
        """Take images off an account again, since their request was not answered."""
        if booking.booked and booking.charge.images > 0:
            self._owed[booking.charge.digest] += booking.charge.images
            self._start()

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        """Book until no charge waits; the next one starts this task again."""
        usable = True
        try:
            while self._waiting or (self._owed and usable):
                batch = [pair for pair in self._waiting[:MOST_AT_ONCE] if not pair[1].done()]
                del self._waiting[:MOST_AT_ONCE]
                usable = await self._book(batch)
        finally:
            self._task = None

    async def _book(self, batch: list[Waiting]) -> bool:
        """Book what waits and give back what is owed; whether the store could be used."""
        owed, self._owed = self._owed, Counter()
        back = [Charge(digest, -images) for digest, images in owed.items()]
        try:
            bookings = await self._store.book([*back, *(charge for charge, _ in batch)])
        except KeysUnavailable as error:
            self._owed.update(owed)
            for _, future in batch:
                if not future.done():
                    future.set_exception(unavailable(str(error)))
            return False
        for (_, future), booking in zip(batch, bookings[len(back) :], strict=True):
            if future.done():  # its caller waits no longer
                self.give_back(booking)
            else:
                future.set_result(booking)
        return True

    async def close(self) -> None:
        """Give back what is owed, and end the store's process."""
        if self._task is not None:
            await self._task
        if self._owed:
            await self._book([])
        await self._store.close()
