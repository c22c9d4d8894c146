"""Curves of a training: TensorBoard events always, other trackers through accelerate."""

import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
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
    """Write TensorBoard events into `folder`; events past epoch `after` are replaced.

    Raises:
        OSError: the disk is full; an error that is under way already is not hidden by it.
    """
    # tensorboardX's SummaryWriter writes in a thread that dies of a full disk: ten scalars later
    # its queue is full and the training waits for ever. What it would write is written here.
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.record_writer import masked_crc32c
    from tensorboardX.summary import scalar

    folder.mkdir(parents=True, exist_ok=True)
    # Nanoseconds: a run that goes on within the same second must not empty the file of before.
    name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{time.time_ns()}"
    file = (folder / name).open("wb")

    def add(**event: Any) -> None:
        content = Event(wall_time=time.time(), **event).SerializeToString()
        for part in (struct.pack("<Q", len(content)), content):
            file.write(part + struct.pack("<I", masked_crc32c(part)))

    def write(scalars: Mapping[str, float], step: int) -> None:
        for name, value in scalars.items():
            add(step=step, summary=scalar(name, value))
        file.flush()  # a saved state counts the epoch as done, and a resumed run writes the next

    try:
        add(file_version="brain.Event:2")
        if after:
            add(step=after + 1, session_log=SessionLog(status=SessionLog.START))
        yield write
    except BaseException:
        with suppress(OSError):
            file.close()
        raise
    file.close()


def check_trackers(names: Sequence[str]) -> None:
    """Check that trackers are known and installed.

    Raises:
        ConfigError: a tracker is unknown, or its package is not installed.
        MissingExtra: accelerate is not installed.
    """
    for name in names:
        try:
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
    check_trackers([name])
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

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
