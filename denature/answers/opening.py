"""Opening a network as a source of answers, with a store in front where one pays off."""

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
"""Largest store, in bytes, that `auto` creates for one teacher on one data set."""

SPOT_CHECKS = 16
"""Stored answers that are computed again when a store is opened."""


def live(inference: Inference, storage: str, *, classes: int) -> LiveAnswers:
    """Answers of a network that are computed at each call, rounded so that they can be stored."""
    return LiveAnswers(inference, coding(storage, classes=classes, dtype=inference.dtype))


def store_key(
    source: LiveAnswers, feed: Feed, dataset: Dataset, *, net: str, digest: str, storage: str
) -> StoreKey:
    """The key of this network's answers to the training images of a data set.

    Args:
        source: the network that answers.
        feed: of any of the training images; defines their views.
        dataset: of the training images.
        net: name of the network.
        digest: of the network's weights.
        storage: the coding of answers; see `denature.answers.config.InferenceConfig`.
    """
    used = ("data", "views", "nets", "answers")
    return StoreKey(
        network=digest,
        net=net,
        form=source.inference.form,
        data=dataset.digest,
        samples=len(feed.split.labels),
        views=asdict(feed.views),
        view_count=feed.views.count,
        classes=len(dataset.classes),
        storage=storage,
        words=source.coding.words,
        revisions={name: REVISIONS[name] for name in used},
    )


def answers_root() -> Path:
    """The default folder of stores."""
    return cache_root() / "answers"


def with_store(
    source: LiveAnswers,
    feed: Feed,
    key: StoreKey,
    *,
    where: str,
    about: dict[str, Any],
    progress: Progress = SILENT,
) -> AnswerSource:
    """Put a store in front of a network, unless stores are off or this one would be too large.

    Args:
        source: the network that answers.
        feed: of the images to be answered.
        key: see `store_key`.
        where: `auto`, `off`, or a folder for stores of any size.
        about: facts for listings of stores.
        progress: receives a message when a store is discarded.
    """
    if source.inference.mixes:
        return source  # an answer depends on the rest of its batch, so none can be reused
    if where == "off" or (where == "auto" and key.nbytes > STORE_LIMIT):
        return source
    root = answers_root() if where == "auto" else Path(where)
    try:
        store = open_store(root, key, source.coding, about=about)
        if not _still_valid(source, store, feed):
            # Name and weights are the same, forward is not: the code of a custom network changed.
            progress.say(
                f"The answers stored in {store.folder} differ from what the network answers now; "
                "they are discarded and computed again."
            )
            store.discard()
            store = open_store(root, key, source.coding, about=about)
    except RunError as error:
        if where != "auto":
            raise
        progress.say(f"Answers are not stored. {error}")
        return source
    return StoredAnswers(source, store)


def _still_valid(source: LiveAnswers, store: Store, feed: Feed) -> bool:
    """Whether a few stored answers equal those that the network computes now."""
    places = store.some_present(SPOT_CHECKS)
    if not len(places):
        return True
    keys = torch.from_numpy(places)
    count = store.key.view_count
    now = source.ask(feed.look(keys // count, keys % count).pixels).cpu()
    then = torch.from_numpy(store.read(places)[0])
    if source.inference.compute.device.type == "cpu":
        return torch.equal(now, then)
    # On other devices libraries choose their kernels again in every process.
    bf16 = source.inference.compute.precision == "bf16"
    spread = float(then.max() - then.min())
    tolerance = BF16_TOLERANCE if bf16 else FOLD_TOLERANCE
    return float((now - then).abs().max()) <= tolerance * spread
