"""Remote batches: orders in a form that other processes can carry out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from denature.answers.answerer import AnswerChange
from denature.answers.transfer import Transfer
from denature.answers.transfer_file import save_transfer
from denature.core.errors import ConfigError
from denature.core.names import own_module
from denature.core.progress import Task
from denature.core.stopping import Stopper
from denature.data.config import DataConfig
from denature.data.dataset import Dataset
from denature.train.config import CheckpointConfig
from denature.train.order import Input, Order
from denature.train.run import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteBatch:
    """The orders of one pass, in a form that can be sent to another process."""

    orders: tuple[Order, ...]
    """Orders without inputs, which are sent as folders."""
    inputs: tuple[dict[str, Path], ...]
    """For each order the folders of its input runs, by role; full paths."""
    transfer: Path | None
    """File of the transfer set of all orders, with their data; see
    `denature.answers.transfer_file`."""
    defense: AnswerChange | None
    """Defense of the transfer set's answers, which are stored undefended."""
    known_as: dict[Path, Path]
    """The same folders, and that of the transfer set, as the sender named them; records refer to
    these names."""
    trust: tuple[str, ...]
    """Modules of the inputs' networks, which the sender has already imported."""
    data: DataConfig
    """Data with a full path; without effect beside a transfer set."""
    data_as: DataConfig
    """Data as the sender named it."""
    overwrite: bool
    checkpointing: CheckpointConfig
    seconds: float | None
    """Remaining seconds; after them the worker saves its states and stops."""

    @staticmethod
    def of(
        orders: Sequence[Order],
        inputs: Sequence[dict[str, Input]],
        dataset: Dataset,
        *,
        overwrite: bool,
        checkpointing: CheckpointConfig,
        seconds: float | None,
    ) -> "RemoteBatch":
        """Pack the orders of one pass with the folders of their input runs.

        A transfer set is written to its folder, with the data set.

        Raises:
            ConfigError: a network or a run exists in this process only.
        """
        for order in orders:
            if not isinstance(order.net, str):
                raise ConfigError(
                    "A network that is a module cannot be sent to another process; name a factory "
                    "of it, package.module:factory."
                )
            if order.out is None and order.under is None:
                raise ConfigError(
                    "Runs made in other processes come back in folders; name one with "
                    "--out, or `under` of an order."
                )

        known_as = {
            _folder(role, run): run.folder
            for given in inputs
            for role, run in given.items()
            if isinstance(run, Run) and run.folder is not None
        }
        sources = (order.source for order in orders if isinstance(order.source, Transfer))
        transfer, file = next(sources, None), None
        if transfer is not None:
            file = save_transfer(transfer, dataset)
            assert transfer.folder is not None
            known_as[file] = transfer.folder
        names = {
            run.record.net.name
            for given in inputs
            for run in given.values()
            if isinstance(run, Run)
        }
        return RemoteBatch(
            orders=tuple(_abroad(order) for order in orders),
            inputs=tuple(
                {
                    role: _folder(role, run)
                    for role, run in given.items()
                    if isinstance(run, Run)  # each worker loads its own published weights
                }
                for given in inputs
            ),
            trust=tuple(
                sorted({module for name in names if (module := own_module(name)) is not None})
            ),
            transfer=file,
            defense=None if transfer is None else transfer.defense,
            known_as=known_as,
            data=_abroad_data(dataset.config),
            data_as=dataset.config,
            overwrite=overwrite,
            checkpointing=_abroad_checkpointing(checkpointing),
            seconds=seconds,
        )


def _abroad_data(data: DataConfig) -> DataConfig:
    path = Path(data.source)
    return replace(data, source=str(path.resolve())) if path.exists() else data


def _abroad_checkpointing(checkpointing: CheckpointConfig) -> CheckpointConfig:
    if checkpointing.store in ("auto", "off"):
        return checkpointing
    return replace(checkpointing, store=str(Path(checkpointing.store).resolve()))


def _abroad(order: Order) -> Order:
    """An order without its inputs and with full paths."""
    out, under = (
        None if folder is None else Path(folder).resolve() for folder in (order.out, order.under)
    )
    backbone = order.backbone if isinstance(order.backbone, str) else None
    return replace(order, source=None, init=None, backbone=backbone, out=out, under=under)


def _folder(role: str, run: Run) -> Path:
    if run.folder is None:
        raise ConfigError(f"The {role} is in this process's memory only; give it a folder.")
    return run.folder.resolve()


class WorkerPool(Protocol):
    """Workers that make the runs of remote batches."""

    size: int
    """Number of workers."""

    def carry_out(
        self,
        batches: Sequence[RemoteBatch],
        stopper: Stopper,
        task: Task,
        made: Callable[[int], None],
    ) -> None:
        """Have workers make the runs of all batches, and wait.

        Args:
            batches: the runs to make.
            stopper: is checked meanwhile.
            task: receives the images that workers train, as they go.
            made: is called with the number of runs that were finished.

        Raises:
            Stopped: the stopper fired; the workers have saved the states of their runs.
            DenatureError: a worker raised it; the other workers have saved theirs and stopped.
        """

    def close(self) -> None:
        """Shut down the workers."""
