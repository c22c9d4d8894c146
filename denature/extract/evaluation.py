"""Accuracy of a model that is not a run, measured through its answers."""

from pathlib import Path

from denature.core.progress import SILENT, Progress
from denature.core.stats import Estimate
from denature.core.stopping import Stopper
from denature.data.dataset import Dataset
from denature.extract.asking.ledger import Ledger
from denature.extract.asking.limits import check_max_cost
from denature.extract.asking.oracle import UNLIMITED, Oracle
from denature.extract.asking.pool import pool_of_tests
from denature.extract.compatibility import about_of, fitted
from denature.extract.measure import ask_reference
from denature.extract.theft import LEDGER
from denature.extract.victims.base import Victim
from denature.remote.config import RequestConfig

USUAL = 1000
"""Test images of which a model is asked, unless more are wanted."""


def evaluate_victim(
    victim: Victim,
    dataset: Dataset,
    *,
    images: int | None,
    folder: Path,
    pace: RequestConfig,
    price: float | None = None,
    max_cost: float | None = None,
    stopper: Stopper | None = None,
    progress: Progress = SILENT,
) -> Estimate:
    """A victim's accuracy on test images, or its error on landmarks.

    Args:
        victim: the model; each image is one query.
        dataset: its test split is the sample's.
        images: size of the random sample; `USUAL` by default.
        folder: of the ledger that keeps the answers; images that it holds are not queried again.
        pace: rate and retries of the requests.
        price: US dollars a query.
        max_cost: US dollars for all queries in the folder, at most; fewer images are measured where
            it ends them.
        stopper: ends the queries; received answers are kept.
        progress: receives the number of answers.

    Raises:
        ConfigError: the victim takes other images, or answers other classes.
        AskFailed, RunError: the victim does not answer.
    """
    check_max_cost(max_cost, price)
    about = fitted(about_of(victim), dataset, progress, option="--data")
    folder.mkdir(parents=True, exist_ok=True)
    with Ledger(folder / LEDGER) as ledger:
        oracle = Oracle(
            victim=victim,
            ledger=ledger,
            about=about,
            budget=UNLIMITED,
            purpose="evaluation",
            pace=pace,
            price=price,
            max_cost=max_cost,
            stopper=stopper or Stopper(),
            progress=progress,
        )
        count = min(USUAL if images is None else images, len(dataset.test))
        return ask_reference(oracle, dataset, pool_of_tests(dataset), images=count).accuracy
