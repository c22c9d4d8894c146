"""Turns between callers: the caller that was served least goes next."""

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar, final

T = TypeVar("T")

FORGET = 1024
"""Callers without waiting items whose service is remembered, at most."""


@final
class FairQueue(Generic[T]):
    """Waiting items of several callers, by start-time fair queueing (Goyal and others, 1996).

    Items of one caller keep their order. Each item has a cost, and callers with waiting items are
    served equal costs, whatever the number of their items.

    Args:
        credit: cost by which a caller that returns may be behind the others. It makes up for the
            moments in which a caller that sends one request after another has none here.
    """

    def __init__(self, credit: float = 0) -> None:
        self._credit = credit
        self._lines: dict[str, deque[tuple[float, T]]] = {}
        self._turns: list[tuple[float, int, str]] = []
        self._served: dict[str, float] = {}
        self._clock = 0.0
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._turns)

    def push(self, caller: str, cost: float, item: T) -> None:
        """Let an item of this cost wait."""
        if (line := self._lines.get(caller)) is None:
            line = self._lines[caller] = deque()
            served = self._served.pop(caller, 0.0)
            self._take_turn(max(served, self._clock - self._credit), caller)
        line.append((cost, item))

    def peek(self) -> T:
        """The item that `pop` takes."""
        return self._lines[self._turns[0][2]][0][1]

    def pop(self) -> T:
        """Take the first item of the caller that was served least."""
        start, _, caller = heapq.heappop(self._turns)
        self._clock = max(self._clock, start)
        line = self._lines[caller]
        cost, item = line.popleft()
        if line:
            self._take_turn(start + cost, caller)
        else:
            del self._lines[caller]
            self._remember(caller, start + cost)
        return item

    def _take_turn(self, served: float, caller: str) -> None:
        self._count += 1  # callers that were served equally go in the order of their arrival
        heapq.heappush(self._turns, (served, self._count, caller))

    def _remember(self, caller: str, served: float) -> None:
        self._served[caller] = served
        if len(self._served) > FORGET:
            oldest = self._clock - self._credit
            late = {name: value for name, value in self._served.items() if value > oldest}
            self._served = late if len(late) <= FORGET else {}


@final
class FairGate:
    """Lets a number of works run at once; callers take turns at what waits."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()

    @asynccontextmanager
    async def turn(self, caller: str, cost: float) -> AsyncIterator[None]:
        """A place for one work of this cost."""
        if self._free:
            self._free -= 1
        else:
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.push(caller, cost, place)
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self._leave()
                raise
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        while self._waiting:
            if not (place := self._waiting.pop()).done():
                place.set_result(None)
                return
        self._free += 1
