"""From a network and what it is to answer to a source, with a store behind it where one pays."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from denature.answers.coding import coding
from denature.answers.inference import BF16_TOLERANCE, FOLD_TOLERANCE, Inference
from denature.answers.sources import AnswerSource, LiveAnswers, StoredAnswers
from denature.answers.store import Store, StoreKey, open_store
from denature.core.errors import RunError
from denature.core.progress import SILENT, Progress
from denature.core.revisions import REVISIONS
from denature.data.dataset import Dataset
from denature.data.feed import Feed
from denature.data.places import cache_root

STORE_LIMIT = 2 * 2**30
"""`auto` stores no more bytes than this for one teacher on one data set."""

SPOT_CHECKS = 16
"""Stored answers that are asked for again when a store is opened."""


def live(inference: Inference, storage: str, *, classes: int) -> LiveAnswers:
    """Ask a network anew each time, in a form that can be stored."""
    return LiveAnswers(inference, coding(storage, classes=classes, dtype=inference.dtype))


def store_key(
    asked: LiveAnswers, feed: Feed, dataset: Dataset, *, net: str, digest: str, storage: str
) -> StoreKey:
    """The key of this network's answers to the training images of a data set.

    Args:
        asked: the network.
        feed: of any of the training images; says how they are viewed.
        dataset: what they are images of.
        net: name of the network.
        digest: of its weights.
        storage: how answers are kept.
    """
    used = ("data", "views", "nets", "answers")
    return StoreKey(
        network=digest,
        net=net,
        form=asked.inference.form,
        data=dataset.digest,
        samples=len(feed.split.labels),
        views=asdict(feed.views),
        view_count=feed.views.count,
        classes=len(dataset.classes),
        storage=storage,
        words=asked.coding.words,
        revisions={name: REVISIONS[name] for name in used},
    )


def answers_root() -> Path:
    """Where stores are by default."""
    return cache_root() / "answers"


def with_store(
    asked: LiveAnswers,
    feed: Feed,
    key: StoreKey,
    *,
    where: str,
    about: dict[str, Any],
    progress: Progress = SILENT,
) -> AnswerSource:
    """Put a store in front of a network, unless it is not wanted or would get too large.

    Args:
        asked: the network.
        feed: of the images that it is asked about.
        key: see `store_key`.
        where: `auto`, `off`, or a folder for stores of any size.
        about: for people who list stores.
        progress: told when a store is put away.
    """
    if asked.inference.mixes:
        return asked  # an answer depends on its neighbours, so it is none of its image's
    if where == "off" or (where == "auto" and key.nbytes > STORE_LIMIT):
        return asked
    root = answers_root() if where == "auto" else Path(where)
    try:
        store = open_store(root, key, asked.coding, about=about)
        if not _still_true(asked, store, feed):
            # The same name and weights with another forward: a network of one's own was edited.
            progress.say(
                f"The answers stored in {store.folder} are not what the network answers now; "
                "they are thrown away and asked for again."
            )
            store.discard()
            store = open_store(root, key, asked.coding, about=about)
    except RunError as error:
        if where != "auto":
            raise
        progress.say(f"Answers are not stored. {error}")
        return asked
    return StoredAnswers(asked, store)


def _still_true(asked: LiveAnswers, store: Store, feed: Feed) -> bool:
    """Ask again about a few answers that are there."""
    places = store.some_present(SPOT_CHECKS)
    if not len(places):
        return True
    keys = torch.from_numpy(places)
    count = store.key.view_count
    now = asked.ask(feed.look(keys // count, keys % count).pixels).cpu()
    then = torch.from_numpy(store.read(places)[0])
    if asked.inference.compute.device.type == "cpu":
        return torch.equal(now, then)
    # Elsewhere libraries choose their kernels anew in every process.
    bf16 = asked.inference.compute.precision == "bf16"
    spread = float(then.max() - then.min())
    tolerance = BF16_TOLERANCE if bf16 else FOLD_TOLERANCE
    return float((now - then).abs().max()) <= tolerance * spread
