"""A run as the one who answers: opened for training, or asked ahead of it."""

from typing import Any

from denature.answers.config import InferenceConfig
from denature.answers.inference import Inference
from denature.answers.opening import live, store_key, with_store
from denature.answers.sources import AnswerSource, StoredAnswers
from denature.core.compute import Compute, resolve
from denature.core.errors import ConfigError, RunError, Stopped
from denature.core.progress import SILENT, Progress
from denature.core.stopping import Stopper
from denature.core.weights import digest
from denature.data import DataConfig, Dataset, load
from denature.data.dataset import Split
from denature.data.feed import Feed
from denature.data.views import auto_views, views
from denature.train.classes import ClassMatcher
from denature.train.run import Run


def open_answers(
    run: Run,
    feed: Feed,
    dataset: Dataset,
    asking: InferenceConfig,
    compute: Compute,
    *,
    store: str,
    progress: Progress = SILENT,
) -> tuple[AnswerSource, dict[str, Any]]:
    """A run's network as a source of answers, with the form in which it answers.

    Args:
        run: who answers.
        feed: of the images that it will be asked about.
        dataset: what they are images of.
        asking: how it is asked, and how answers are kept.
        compute: where, and in which precision.
        store: see `denature.train.config.Keeping`.
        progress: told what is worth knowing about the store.
    """
    net = run.record.net
    if digest(run.network) != net.digest:
        raise RunError(
            f"The network of the {run.record.kind} {net.name} is not what its record says: its "
            "weights were changed after it was made. Load the run again, or train copies."
        )
    shape = (dataset.channels, dataset.image_size, dataset.image_size)
    inference = Inference(run.network, compute, asking, shape=shape)
    network = live(inference, asking.storage, classes=len(dataset.classes))
    key = store_key(network, feed, dataset, net=net.name, digest=net.digest, storage=asking.storage)
    about = {"data": dataset.config.source, "kind": run.record.kind, "seed": run.record.seed}
    source = with_store(network, feed, key, where=store, about=about, progress=progress)
    return source, inference.form


def fill(
    run: Run,
    data: str | DataConfig | Dataset,
    *,
    augment: str = "auto",
    epochs: int | None = None,
    view_seed: int = 0,
    asking: InferenceConfig | None = None,
    device: str = "auto",
    precision: str = "auto",
    store: str = "auto",
    stopper: Stopper | None = None,
    progress: Progress = SILENT,
) -> int:
    """Ask a run about training images ahead of time, and store what it answers.

    Args:
        run: who answers.
        data: whose training images.
        augment: how they are viewed.
        epochs: only the views that so many epochs under `view_seed` meet; all views if None.
        view_seed: see `denature.train.config.Training`.
        asking: how it is asked, and how answers are kept.
        device: where it computes.
        precision: in which precision, which must be that of the later training.
        store: where stores lie; `auto` is the cache.
        stopper: asked between batches whether to stop.
        progress: told how far it is.

    Returns:
        How many answers were looked at.

    Raises:
        ConfigError: the store would be larger than `auto` allows.
        Stopped: the stopper wanted it; what was asked is kept.
    """
    dataset, stopper = load(data, progress=progress), stopper or Stopper()
    run = ClassMatcher(dataset, progress)("run", run)
    compute = resolve(run.network, device=device, precision=precision)
    if augment == "auto":
        augment = auto_views(channels=dataset.channels, image_size=dataset.image_size)
    family = views(augment, channels=dataset.channels, image_size=dataset.image_size)
    split: Split = dataset.train
    feed = Feed(split, compute=compute, views=family)
    source, _ = open_answers(
        run, feed, dataset, asking or InferenceConfig(), compute, store=store, progress=progress
    )
    if not isinstance(source, StoredAnswers):
        raise ConfigError(
            f"Nothing can be stored of {family.count} views of {len(split):,} images: there is no "
            "room, or they are more than auto allows. Name a folder for stores."
        )
    passes = family.count if epochs is None else epochs
    seen = 0
    with progress.task(f"asking {run.record.net.name}", passes * len(split), "images") as task:
        for number in range(passes):
            batches = (
                feed.every_view(number)
                if epochs is None
                else feed.epoch(number + 1, view_seed=view_seed, batch_size=512)
            )
            for batch, _ in source.answered(batches):
                seen += len(batch.samples)
                task.advance(len(batch.samples), f"pass {number + 1} of {passes}")
                if stopper.reason:
                    raise Stopped(
                        stopper.reason,
                        f"Stopped by {stopper.reason} after {seen:,} answers; they are kept. "
                        "Run the same command again to go on.",
                    )
    return seen
