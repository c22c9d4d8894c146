"""A bound on the bytes that all requests hold together."""

import threading
from typing import final

from denature.serve.refusal import Refused


@final
class InFlight:
    """Bytes of bodies, pictures and images that are held at one time.

    A caller may hold as much as it leaves free (a dynamic threshold, Choudhury and Hahne 1998): one
    caller alone gets half of all bytes, and some are free for the next however many fill theirs.

    Args:
        most: bytes of all requests.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._used = 0
        self._of: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def most_of_one(self) -> int:
        """Bytes that one request can get at most."""
        return self.most // 2

    def share(self, caller: str) -> "Share":
        """The bytes of one request, none at first."""
        return Share(self, caller)

    def take(self, caller: str, size: int) -> None:
        """Count more bytes of a caller, or fewer where `size` is negative.

        Raises:
            Refused: with 503, where too few are free.
        """
        with self._lock:
            own = self._of.get(caller, 0)
            if size > 0 and own + 2 * size > self.most - self._used:
                raise Refused(
                    503, "The server holds too many bytes of requests; retry later.", retry_after=1
                )
            self._used += size
            if own + size:
                self._of[caller] = own + size
            else:
                self._of.pop(caller, None)


@final
class Share:
    """The bytes that one request holds; they are given back when the context ends."""

    def __init__(self, whole: InFlight, caller: str) -> None:
        self._whole, self.caller = whole, caller
        self.size = 0

    def add(self, size: int) -> None:
        """Hold more bytes, or fewer where `size` is negative.

        Raises:
            Refused: with 503, where too few are free.
        """
        if size:
            self._whole.take(self.caller, size)
            self.size += size

    def __enter__(self) -> "Share":
        return self

    def __exit__(self, *error: object) -> None:
        self.add(-self.size)
