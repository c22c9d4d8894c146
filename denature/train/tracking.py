"""Curves of a training: TensorBoard events always, other trackers through accelerate."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from denature.core.errors import ConfigError, MissingExtra, install_line, unknown
from denature.core.record import EpochRecord

Scalars: TypeAlias = Callable[[Mapping[str, float], int], None]
"""Writes scalars by name for an epoch."""

PROJECT = "denature"


def scalars_of(epoch: EpochRecord) -> dict[str, float]:
    """Scalars of an epoch that are plotted as curves."""
    scalars = {
        "loss/train": epoch.loss,
        "accuracy/train": epoch.train_accuracy,
        "accuracy/test": epoch.test_accuracy,
        "accuracy/validation": epoch.validation_accuracy,
        "error/test": epoch.test_error,
        "error/validation": epoch.validation_error,
        "learning_rate": epoch.lr,
    }
    return {name: value for name, value in scalars.items() if value is not None}


@contextmanager
def tensorboard(folder: Path, *, after: int) -> Iterator[Scalars]:
    """Write TensorBoard events into `folder`; events past epoch `after` are replaced."""
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder), purge_step=after + 1 if after else None) as writer:

        def write(scalars: Mapping[str, float], step: int) -> None:
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)

        yield write


@contextmanager
def trackers(
    names: Sequence[str], *, title: str, run: str, config: Mapping[str, Any]
) -> Iterator[Scalars]:
    """Report to trackers, as one run in each.

    Args:
        names: accelerate's names of trackers, such as `mlflow`, `wandb`, `trackio`; environment
            variables of the trackers configure them.
        title: name of the run in the trackers.
        run: an id; a resumed run continues under it where the tracker supports this.
        config: settings shown beside the run.

    Raises:
        ConfigError: the tracker is unknown, or its package is not installed.
        MissingExtra: accelerate is not installed.
    """
    with ExitStack() as stack:
        started = [
            stack.enter_context(_started(name, title=title, run=run, config=config))
            for name in names
        ]

        def write(scalars: Mapping[str, float], step: int) -> None:
            for tracker in started:
                tracker.log(dict(scalars), step=step)

        yield write


@contextmanager
def _started(name: str, *, title: str, run: str, config: Mapping[str, Any]) -> Iterator[Any]:
    try:
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS
    except ImportError:
        raise MissingExtra("accelerate", "track", f"Tracking with {name}") from None
    if name not in LOGGER_TYPE_TO_CLASS:
        raise unknown("tracker", name, LOGGER_TYPE_TO_CLASS)
    if find_spec(name) is None:
        raise ConfigError(
            f"The package of the tracker {name} is not installed. Install it with: "
            + install_line(name.replace("_", "-"))
        )
    PartialState()  # accelerate's trackers need it to find the main process
    kind = LOGGER_TYPE_TO_CLASS[name]
    options: dict[str, dict[str, Any]] = {
        "wandb": {"name": title, "id": run, "resume": "allow"},
        "mlflow": {"run_name": title},
        "trackio": {"name": title},
    }
    directory = {"logging_dir": "."} if kind.requires_logging_directory else {}
    tracker = kind(PROJECT, **directory, **options.get(name, {}))
    tracker.start()
    try:
        plain = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in config.items()
            if value is not None
        }
        tracker.store_init_configuration(plain)
        yield tracker
    finally:
        tracker.finish()
