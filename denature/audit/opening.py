"""What an audit works on: the model as a source of true answers, pools, test images."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from torch import Tensor, nn

from denature.answers.looks import ENOUGH
from denature.audit.attempt import PoolOrder, contents_of_tests, owned_images, seed_of
from denature.audit.config import AuditConfig
from denature.audit.result import CHECK_MODEL
from denature.audit.score import constant_hits
from denature.audit.source import Harvest
from denature.core.errors import ConfigError
from denature.core.frames import percent
from denature.core.stats import proportion
from denature.core.types import Pixels
from denature.data import DataConfig, Dataset
from denature.data.dataset import Split
from denature.extract.asking.ledger import Ledger
from denature.extract.asking.oracle import UNLIMITED, Oracle
from denature.extract.asking.pool import StoredPool, open_pool
from denature.extract.compatibility import about_of, fitted
from denature.extract.config import thief_training
from denature.extract.feasibility import check_clone, check_count, sample_of
from denature.extract.strategies.common import as_labels
from denature.extract.victims.base import Victim
from denature.extract.victims.local import local
from denature.nets.activations import ActivationRecorder
from denature.remote.config import RequestConfig
from denature.train.classes import ClassMatcher
from denature.train.config import Device, Training
from denature.train.objectives.cloned import Cloned
from denature.train.run import Run
from denature.train.session import Session

SERVICE_TESTS = 1000
"""Test images that a model other than a run is asked about, at most, unless more are wanted."""


@final
@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class QueryContext:
    """Data, ledger and limits of all queries of an audit."""

    data: Dataset
    ledger: Ledger
    pace: RequestConfig
    max_queries: int | None
    device: Device
    session: Session
    price: float | None = None
    """US dollars a query of a model that is no run."""
    max_cost: float | None = None
    """US dollars for all queries, at most."""

    def harvest(self, model: Run | Victim, wanted: int | None, *, least: int = 0) -> Harvest:
        """A model's true answers: the logits of a run, and what a service or function shows.

        Args:
            model: is asked about the first of its test images, unless it states that it answers
                with labels.
            wanted: number of test images, see `tests`.
            least: queries of a thief at least.

        Raises:
            ConfigError: the model does not fit the data, or the limits do not allow the test images
                and these queries.
        """
        price = None if isinstance(model, Run) else self.price
        if isinstance(model, Run):
            model = ClassMatcher(self.data, self.session.progress)("run", model)
            victim: Victim = local(model, kind="logits", device=self.device)
        else:
            victim = model
        about = fitted(about_of(victim), self.data, self.session.progress, option="--data")
        oracle = Oracle(
            victim=victim,
            ledger=self.ledger,
            about=about,
            budget=UNLIMITED if self.max_queries is None else self.max_queries,
            purpose="audit",
            pace=self.pace,
            price=price,
            max_cost=self.max_cost,
            stopper=self.session.stopper,
            progress=self.session.progress,
        )
        split, spent = self.tests(model, wanted), oracle.ledger.spent(oracle.target, oracle.purpose)
        _check_limits(oracle, spent, tests=len(split), least=least)
        harvest = Harvest(oracle, classes=len(self.data.classes))
        if about.kind == "label":
            return harvest
        if not isinstance(model, Run) and not spent:
            self.session.progress.say(
                f"{about.target} is asked {ENOUGH} test images, to see what it answers with. They "
                "count as queries, and their answers are kept."
            )
        # The first answers settle their kind, which fewer than `ENOUGH` cannot if they are percent.
        harvest(split.images[split.rows[:ENOUGH]].numpy())
        return harvest

    def check_images(self, role: str, run: Run) -> None:
        """Check that a run takes the data's images; its classes may be others.

        Raises:
            ConfigError: it takes images of another shape.
        """
        net, data = run.record.net, self.data
        if (net.channels, net.image_size) != (data.channels, data.image_size):
            raise ConfigError(
                f"The {role} {run.folder or net.name} takes {net.channels}-channel images of "
                f"{net.image_size} pixels a side, and those of {data.config.source} have "
                f"{data.channels} channels and {data.image_size} pixels. Take a run on such images."
            )

    def pool(self, config: DataConfig) -> PoolOrder:
        """The images of a source that are no test images.

        Raises:
            ConfigError: the source is noise, or its images do not have the data's shape.
        """
        data = self.data
        pool = open_pool(
            config,
            channels=data.channels,
            image_size=data.image_size,
            progress=self.session.progress,
        )
        if not isinstance(pool, StoredPool):
            raise ConfigError("Noise is no pool of an audit; name images with --pool.")
        return PoolOrder(pool, contents_of_tests(data))

    def check_plan(
        self,
        config: AuditConfig,
        *,
        pool: PoolOrder,
        other: PoolOrder | None,
        net: str,
        training: Training,
    ) -> None:
        """Refuse what is impossible, as far as it is known before the model is asked.

        Raises:
            DenatureError: a pool is too small, or no clone can be trained.
        """
        data = self.data
        budgets = config.budgets(len(pool.rows), channels=data.channels)
        check_count(pool.name, len(pool.rows), budgets[-1])
        if other is not None:
            check_count(other.name, len(other.rows), budgets[-1], option="--other-pool")
        owned = config.owned(len(data.classes))
        owned_images(data, contents_of_tests(data), count=owned, seed=seed_of(training, 0))
        rows = pool.rows[: budgets[0]]
        check_clone(
            net,
            sample_of(pool.pool, rows, data),
            objective=Cloned(),
            training=thief_training(len(rows), training, net=net),
        )

    def tests(self, model: Run | Victim, wanted: int | None) -> Split:
        """The test images; a stratified share of them where fewer are wanted."""
        split = self.data.test
        if wanted is None:
            wanted = len(split) if isinstance(model, Run) else SERVICE_TESTS
        return split if wanted >= len(split) else split.fraction(wanted / len(split))


def no_better_than_chance(harvest: Harvest, tests: Split, classes: Sequence[str]) -> list[str]:
    """A warning, where the model's accuracy on the test images may be that of chance.

    The model was asked these images before.
    """
    labels = tests.labels[tests.rows]
    found = as_labels(harvest(tests.images[tests.rows].numpy())).values
    accuracy = proportion(int((found == labels).sum()), len(labels))
    chance = float(np.mean(constant_hits(labels.numpy(), len(classes))))
    if accuracy.low > chance:
        return []
    guess = "chance" if chance == 1 / len(classes) else "the largest class for all"
    return [
        f"The model is right on {percent(accuracy)} of {accuracy.n:,} test images, and {guess} on "
        f"{chance:.0%}: what a clone takes of it will hardly be measurable. {CHECK_MODEL}"
    ]


def _check_limits(oracle: Oracle, spent: int, *, tests: int, least: int) -> None:
    """Refuse limits that end an audit before its first cell; `spent` are earlier queries.

    Raises:
        ConfigError: they do.
    """
    allowed = spent + oracle.left
    if spent < tests + least and allowed < tests + least:
        raise ConfigError(
            f"{allowed:,} queries are allowed, and an audit needs {tests + least:,} at least: "
            f"{tests:,} test images and a budget of {least:,}. Take a larger --max-queries or "
            "--max-cost, or fewer --test-images."
        )


def identity(model: Run | Victim, harvest: Harvest) -> str:
    """Identity of a model's answers, 16 hex digits."""
    if isinstance(model, Run):
        return model.digest
    about = harvest.oracle.about
    text = f"{about.target} {about.options} {harvest.kind}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@final
class Encoder(nn.Module):
    """The layers of a network before the one that computes the logits.

    Args:
        network: any network of the catalogue; from pixels in [0, 1] to logits.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval()

    def forward(self, pixels: Pixels) -> Tensor:
        """Features, batch x d."""
        with ActivationRecorder(self.network) as recorder:
            self.network(pixels)
            return recorder.features
