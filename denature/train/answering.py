"""A run as a source of answers, during training or ahead of training."""

from typing import Any

from denature.answers.config import InferenceConfig
from denature.answers.inference import Inference
from denature.answers.opening import live, store_key, with_store
from denature.answers.sources import AnswerSource, StoredAnswers
from denature.core.compute import Compute, resolve
from denature.core.errors import ConfigError, RunError, Stopped
from denature.core.progress import SILENT, Progress
from denature.core.weights import digest
from denature.data import Dataset, load
from denature.data.dataset import Split
from denature.data.feed import Feed
from denature.data.given import DataLike
from denature.data.views import auto_views, views
from denature.train.classes import ClassMatcher
from denature.train.run import Run
from denature.train.session import Session, default_session


def open_answers(
    run: Run,
    feed: Feed,
    dataset: Dataset,
    config: InferenceConfig,
    compute: Compute,
    *,
    store: str,
    progress: Progress = SILENT,
) -> tuple[AnswerSource, dict[str, Any]]:
    """A run's network as a source of answers, with the form in which it answers.

    Args:
        run: the network that answers.
        feed: of the images to be answered.
        dataset: of these images.
        config: settings of inference and storage.
        compute: device and precision.
        store: see `denature.train.config.CheckpointConfig`.
        progress: receives messages about the store.

    Raises:
        RunError: the weights differ from the record, or the store cannot be created.
    """
    net = run.record.net
    if digest(run.network) != net.digest:
        raise RunError(
            f"The network of the {run.record.kind} {net.name} is not what its record says: its "
            "weights were changed after it was made. Load the run again, or train copies."
        )
    shape = (dataset.channels, dataset.image_size, dataset.image_size)
    inference = Inference(run.network, compute, config, shape=shape)
    network = live(inference, config.storage, classes=len(dataset.classes))
    key = store_key(network, feed, dataset, net=net.name, digest=net.digest, storage=config.storage)
    about = {"data": dataset.config.source, "kind": run.record.kind, "seed": run.record.seed}
    source = with_store(network, feed, key, where=store, about=about, progress=progress)
    return source, inference.form


def fill(
    run: Run,
    data: DataLike,
    *,
    augment: str = "auto",
    epochs: int | None = None,
    view_seed: int = 0,
    inference: InferenceConfig | None = None,
    device: str = "auto",
    precision: str = "auto",
    store: str = "auto",
    session: Session | None = None,
) -> int:
    """Compute and store a run's answers to training images ahead of training.

    Args:
        run: the network that answers.
        data: the training images; see `denature.data.load`.
        augment: views of the images.
        epochs: limits the views to those of so many epochs under `view_seed`; None takes all views.
        view_seed: see `denature.train.config.Training`.
        inference: settings of inference and storage.
        device: device of the network.
        precision: must equal the precision of the later training.
        store: folder of the stores; `auto` is the cache.
        session: saved states, stops, workers and progress.

    Returns:
        Number of answers that were computed or found in the store.

    Raises:
        ConfigError: the store would be larger than `auto` allows.
        Stopped: the stopper fired; answers computed before are kept.
    """
    session = session or default_session()
    dataset, stopper = load(data, progress=session.progress), session.stopper
    run = ClassMatcher(dataset, session.progress)("run", run)
    compute = resolve(run.network, device=device, precision=precision)
    if augment == "auto":
        augment = auto_views(channels=dataset.channels, image_size=dataset.image_size)
    family = views(augment, channels=dataset.channels, image_size=dataset.image_size)
    split: Split = dataset.train
    feed = Feed(split, compute=compute, views=family)
    source, _ = open_answers(
        run, feed, dataset, inference or InferenceConfig(), compute,
        store=store, progress=session.progress,
    )  # fmt: skip
    if not isinstance(source, StoredAnswers):
        raise ConfigError(
            f"The answers to {family.count} views of {len(split):,} images cannot be stored: the "
            "disk is full, or they take more than auto allows. Name a folder for stores."
        )
    passes = family.count if epochs is None else epochs
    seen = 0
    title = f"answers of {run.record.net.name}"
    with session.progress.task(title, passes * len(split), "images") as task:
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
