"""The accuracy of a model on a test split: of a run by its network, of others by their answers."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from denature.core.stats import Estimate
from denature.data import Dataset
from denature.extract.evaluation import evaluate_victim
from denature.extract.victims.base import Victim
from denature.recipes.given import check_paid
from denature.remote.config import RequestConfig
from denature.train.config import Device, Precision
from denature.train.run import Run
from denature.train.runs import evaluate_run
from denature.train.session import Session


@final
@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ModelEvaluation:
    """A model and the data that measure it.

    Raises:
        ConfigError: `max_cost` limits a network of this process.
    """

    model: Run | Victim
    name: str
    dataset: Dataset
    """Its test split measures."""
    folder: Path
    """Of the stored answers of a model that is no run."""
    test_images: int | None
    """At most; by default all for a run, and 1,000 for other models."""
    price: float | None
    """US dollars a query."""
    max_cost: float | None
    """US dollars for all queries in the folder, at most."""
    pace: RequestConfig
    device: Device
    """Where a run computes."""
    precision: Precision
    """Of a run's inference."""

    def __post_init__(self) -> None:
        check_paid(self.max_cost, {self.name: self.model})

    @property
    def chosen_on_test(self) -> bool:
        """Whether these test images chose the kept epoch of the run."""
        if not isinstance(self.model, Run):
            return False
        record = self.model.record
        same = record.data is not None and record.data.digest == self.dataset.digest
        return same and record.chosen_on == "test"

    def measure(self, session: Session) -> Estimate:
        """The accuracy, or the error on landmarks; stored answers are not asked again.

        Raises:
            DenatureError: see `evaluate_victim`.
        """
        if not isinstance(self.model, Run):
            return evaluate_victim(
                self.model,
                self.dataset,
                images=self.test_images,
                folder=self.folder,
                pace=self.pace,
                price=self.price,
                max_cost=self.max_cost,
                stopper=session.stopper,
                progress=session.progress,
            )
        dataset, most = self.dataset, self.test_images
        if most is not None and most < len(dataset.test):
            dataset = replace(dataset, test=dataset.test.fraction(most / len(dataset.test)))
        return evaluate_run(
            self.model,
            dataset,
            device=self.device,
            precision=self.precision,
            progress=session.progress,
        )
