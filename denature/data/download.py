"""Data sets by name, fetched once from the sites of their authors, and checked."""

import hashlib
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from denature.core.errors import DataError
from denature.core.files import atomic_path
from denature.core.progress import Progress
from denature.data.places import cache_root

PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Download:
    """An archive on the site of its authors."""

    url: str
    md5: str
    """MD5 digest that the authors state."""


PUBLISHED: Mapping[str, Download] = {
    "cifar10": Download(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
    ),
    "cifar100": Download(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
    ),
    "tiny-imagenet": Download(
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"
    ),
}


def fetched(name: str, progress: Progress) -> Path:
    """Path of a published archive in the cache's downloads/; fetched the first time.

    Raises:
        DataError: the archive cannot be fetched, or differs from the published one.
    """
    published = PUBLISHED[name]
    target = cache_root() / "downloads" / published.url.rsplit("/", 1)[-1]
    if target.exists():
        return target
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with (
            urllib.request.urlopen(published.url, timeout=30) as answer,
            atomic_path(target) as new,
        ):
            total = int(answer.headers.get("Content-Length") or 0)
            with progress.task(f"fetching {name}", total, "bytes") as task, open(new, "wb") as file:
                while piece := answer.read(PIECE):
                    file.write(piece)
                    digest.update(piece)
                    task.advance(len(piece))
            if digest.hexdigest() != published.md5:
                raise DataError(
                    f"{published.url} gave other bytes than its authors published: MD5 "
                    f"{digest.hexdigest()}, wanted {published.md5}. Try again, or name a copy "
                    "of your own: its path in the place of the name."
                )
    except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError) as error:
        raise DataError(
            f"{name} could not be fetched from {published.url}: {error}. Without a network, "
            "name a copy's path instead, or --data-root for a folder of copies: the archive, what "
            "it unpacks into, or a hub-style folder."
        ) from None
    return target
