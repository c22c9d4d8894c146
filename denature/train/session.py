"""What the calls that take long have in common: saved states, stops, workers and progress."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from denature.core.progress import SILENT, Progress
from denature.core.stopping import Stopper
from denature.core.usual import usual
from denature.train.config import CheckpointConfig

if TYPE_CHECKING:
    from denature.train.remote import WorkerPool


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """How a call runs; the threads of workers alone change a number, in its last bits."""

    checkpointing: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Intervals of states and snapshots, the place of stored answers, and trackers."""
    stopper: Stopper = field(default_factory=Stopper)
    """Is checked between steps; a requested stop raises `Stopped`, and the same call resumes."""
    workers: "WorkerPool | None" = None
    """Worker processes that make the runs; None makes them in this process."""
    progress: Progress = SILENT
    """Receives the progress of all parts."""


def default_session() -> Session:
    """The session of a call that names none, which shows its progress."""
    return Session(progress=usual())
