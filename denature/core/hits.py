"""Correctly answered test images of a run, packed small enough for its record."""

import base64
import binascii
import hashlib
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from denature.core.errors import RunError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


MOST = 2**26
"""Test images at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hits:
    """One bit per test image, 1 for a correct answer, in the order of the test split."""

    test: str
    """Digest of the test images; hits with another digest belong to other images."""
    packed: str
    """The bits, eight a byte, deflated, as base64: 1.7 kB at most for 10,000 images."""

    @classmethod
    def pack(cls, right: "NDArray[np.bool_]", *, test: str) -> "Hits":
        import numpy as np

        packed = zlib.compress(np.packbits(right).tobytes(), 9)
        return cls(test=test, packed=base64.b64encode(packed).decode())

    def unpack(self, n: int) -> "NDArray[np.bool_]":
        """Whether each of the `n` test images was answered correctly; bool, n.

        Raises:
            RunError: these are not the bits of `n` images.
        """
        import numpy as np

        if not 0 <= n <= MOST:
            raise RunError(f"A record names {n:,} test images; wanted are at most {MOST:,}.")
        wanted = (n + 7) // 8
        try:
            # Bounded: a record may come from any source, and deflate can hide any size.
            found = zlib.decompressobj().decompress(
                base64.b64decode(self.packed, validate=True), wanted + 1
            )
        except (zlib.error, binascii.Error) as error:
            raise RunError(f"The hits of a record are damaged: {error}.") from None
        if len(found) != wanted:
            raise RunError(
                f"The hits of a record are {len(found)} bytes or more; {wanted} are wanted for {n} "
                "test images. Make the run again."
            )
        bits: NDArray[np.bool_] = np.unpackbits(np.frombuffer(found, np.uint8), count=n) != 0
        return bits


def digest_of_test(data: str, rows: "NDArray[np.int64]") -> str:
    """Digest that identifies a set of test images.

    Args:
        data: digest of the data set.
        rows: row numbers of the test images, in order.
    """
    return hashlib.sha256(data.encode() + rows.data).hexdigest()[:16]
