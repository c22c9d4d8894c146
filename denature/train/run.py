"""A run on disk: one folder with its record, its weights and its events."""

import copy
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from filelock import FileLock, Timeout
from torch import Tensor, nn

from denature.core import record as records
from denature.core.errors import ConfigError, RunError
from denature.core.files import write_text
from denature.core.frames import Rows, Tabular, measured, percent
from denature.core.keywords import many
from denature.core.names import own_module
from denature.core.record import RECORD, InputRecord, Record, format_shape
from denature.core.stats import Estimate
from denature.core.untrusted import read_json
from denature.core.weights import (
    WEIGHTS,
    check_weights,
    digest,
    fit_weights,
    read_weights,
    save_weights,
)
from denature.nets import create, outline_of
from denature.train.identity import Plan, plan_of, what_changed
from denature.train.state import FORMER, STATE

STATE_FOLDER = "state"
"""Folder of an unfinished run's plan, state and events; removed when the run is finished."""

PLAN = "plan.json"

CLASS_NAMES = "class_names"
"""Key of `Record.given` for the names of an imported network's outputs."""

LOCK = ".run.lock"

PATIENCE_S = 5.0
"""Seconds to wait for a run that is ending: a killed parent's workers, or a stop that saves."""

EVENTS, SNAPSHOTS = "events", "snapshots"

RunState: TypeAlias = Literal["new", "unfinished", "finished"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Run(Tabular):
    """A finished run: a network with its record, and their folder, if they are on disk."""

    record: Record
    network: nn.Module
    folder: Path | None = None
    stored: str | None = None
    """Digest of the weights in the folder, where the network's classes were reordered; see
    `denature.train.classes`."""

    @property
    def summary(self) -> str:
        record = self.record
        data = "" if record.data is None else f" on {record.data.source}"
        score = "never measured"
        if (found := record.error if record.landmarks else record.accuracy) is not None:
            score = f"{'error' if record.landmarks else 'accuracy'} {percent(found)}"
        return f"{record.kind} {record.net.name}{data}, {score}"

    def rows(self) -> Rows:
        record, data = self.record, self.record.data
        return [
            {
                "kind": record.kind,
                "net": record.net.name,
                "data": None if data is None else data.source,
                "seed": record.seed,
                **(
                    measured("error", record.error)
                    if record.landmarks
                    else measured("accuracy", record.accuracy)
                ),
                "train": None if data is None else data.train,
                "test": None if data is None else data.test,
                "seconds": record.seconds,
                "id": record.id,
            }
        ]

    @property
    def accuracy(self) -> Estimate:
        """Accuracy on the test split.

        Raises:
            RunError: the run was imported and never measured.
        """
        if self.record.accuracy is None:
            raise RunError("This run was imported and never measured; see `denature eval`.")
        return self.record.accuracy

    @property
    def digest(self) -> str:
        """Digest of the weights."""
        return self.record.net.digest

    @property
    def recipe(self) -> str:
        return self.record.recipe

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the network's outputs; None where its weights were imported without names."""
        if self.record.data is not None:
            return self.record.data.classes
        names = self.record.given.get(CLASS_NAMES)
        return None if names is None else tuple(map(str, names))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; numbers where the run was imported and never saw data."""
        return self.class_names or tuple(map(str, range(self.record.net.classes)))

    def as_input(self) -> InputRecord:
        """The entry for this run in the record of another run."""
        return InputRecord(
            folder=None if self.folder is None else str(self.folder),
            kind=self.record.kind,
            net=self.record.net.name,
            digest=self.stored or self.digest,
            recipe=self.record.recipe,
            accuracy=self.record.accuracy,
            seed=self.record.seed,
            reordered=None if self.stored is None else self.digest,
        )


def check_alike(run: Run, other: Run) -> None:
    """Check that two runs' networks take the same images and have the same number of classes.

    Raises:
        ConfigError: the shapes differ.
    """
    a, b = run.record.net, other.record.net
    if a.shape != b.shape:
        raise ConfigError(
            f"{run.folder or a.name} answers {format_shape(a.shape)}, {other.folder or b.name} "
            f"{format_shape(b.shape)}; both must be of the same data."
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a run's folder against other processes; the lock ends with its process.

    Raises:
        RunError: another process still holds the lock after `PATIENCE_S`, or the folder cannot be
            created.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; a run needs a folder. Name another with --out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=PATIENCE_S)
        lock.acquire()
    except Timeout:
        raise RunError(f"Another process is at work in {folder}; wait for it.") from None
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror or error}.") from None
    try:
        yield
    finally:
        # Before the release: a waiting process would else hold a lock on a file that is gone, and
        # the next one another on a new file. Windows removes no open file, and filelock does there.
        if os.name != "nt":
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def open_folder(folder: Path, plan: Plan, *, overwrite: bool) -> RunState:
    """Determine the state of a run with this plan in a locked `folder`, and prepare the folder.

    The call removes only an outdated state: a finished run that will be overwritten stays until the
    new run is finished too.

    Raises:
        RunError: the folder holds another run or other files, or is not writable.
    """
    # A kill may leave a state without a plan, which is a part of no run.
    entries = [
        entry for entry in folder.iterdir() if not (_is_temporary(entry) or _is_state(entry))
    ]
    unfinished, finished = _unfinished_plan(folder), _finished_plan(folder)
    if entries and unfinished is None and finished is None:
        raise RunError(
            f"{folder} holds files that no run wrote, such as {entries[0].name}. Name another "
            "folder with --out; --overwrite replaces runs only."
        )
    if unfinished == plan:
        return "unfinished"
    if unfinished is None and finished == plan:
        return "finished"
    before = unfinished or finished
    if before is not None and not overwrite:
        raise RunError(
            f"{folder} already holds another run: {what_changed(before, plan)}. Name another "
            "folder with --out, or pass --overwrite to replace it."
        )
    try:
        _remove(folder / STATE_FOLDER)
        if finished == plan:
            return "finished"
        write_text(folder / STATE_FOLDER / PLAN, json.dumps(plan, indent=1) + "\n")
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror or error}.") from None
    return "new"


def is_finished(folder: Path, plan: Plan) -> bool:
    """Whether a folder holds a finished run of this plan, and none on the way; writes nothing."""
    return _unfinished_plan(folder) is None and _finished_plan(folder) == plan


def _unfinished_plan(folder: Path) -> Plan | None:
    path = folder / STATE_FOLDER / PLAN
    return read_plan(path) if path.exists() else None


def read_plan(path: Path) -> Plan:
    """The plan of an unfinished run.

    Raises:
        RunError: the file is damaged.
    """
    try:
        plan: Plan = read_json(path)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} is damaged: {error}. Delete {path.parent}, and the run starts again."
        ) from None
    return plan


def _finished_plan(folder: Path) -> Plan | None:
    return plan_of(records.read_record(folder)) if (folder / RECORD).exists() else None


def _is_temporary(entry: Path) -> bool:
    """Whether an entry is a lock file or the remains of a killed write."""
    return entry.name.startswith(".") and entry.name.endswith((".lock", ".tmp"))


def _is_state(entry: Path) -> bool:
    """Whether an entry is the folder of a run's state, and holds nothing else."""
    if entry.name != STATE_FOLDER or entry.is_symlink() or not entry.is_dir():
        return False
    known = {PLAN, STATE, FORMER, EVENTS, SNAPSHOTS}
    return all(_is_temporary(inner) or inner.name in known for inner in entry.iterdir())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def save_run(run: Run) -> None:
    """Write weights, then the record, and replace a run already in the folder.

    A folder with a record is complete. The old record is removed first and the new one written
    last; in between, the saved state allows the run to be concluded again.
    """
    if run.folder is None:
        return
    state = run.folder / STATE_FOLDER
    try:
        (run.folder / RECORD).unlink(missing_ok=True)
        _remove(run.folder / SNAPSHOTS)
        for name in (EVENTS, SNAPSHOTS):
            if (state / name).exists():
                _remove(run.folder / name)
                (state / name).rename(run.folder / name)
        save_weights(run.folder, run.network)
        records.write_record(run.folder, run.record)
    except OSError as error:
        raise RunError(
            f"The run could not be written to {run.folder}: {error.strerror or error}. "
            "The folder holds no run that looks complete."
        ) from None
    with suppress(OSError):
        # The plan first: a kill between would leave it without a state to go on from.
        (state / PLAN).unlink(missing_ok=True)
        shutil.rmtree(state)


def keep_run(run: Run, folder: Path, *, overwrite: bool = False) -> Run:
    """Write a run to its folder, unless the folder holds it.

    Raises:
        RunError: the folder holds another run or other files, or cannot be written.
    """
    kept = replace(run, folder=folder)
    plan = plan_of(run.record)
    if not (folder.is_dir() and is_finished(folder, plan)):
        with locked(folder):
            open_folder(folder, plan, overwrite=overwrite)
            save_run(kept)
    return kept


def load_run(
    folder: str | Path, *, trust: Collection[str] = (), network: nn.Module | None = None
) -> Run:
    """Read a run's folder without executing any of its content.

    Args:
        folder: the folder of a run.
        trust: custom modules that the record may name as the network's factory. Importing a module
            executes it, so a record alone does not suffice.
        network: a module of the record's kind to load the weights into, instead of a new network.

    Raises:
        RunError: no run, a damaged run, a newer schema, or weights that do not fit the record.
    """
    folder = Path(folder)
    record = records.read_record(folder)
    net = record.net
    module = own_module(net.name)
    if network is None and module is not None and module not in many(trust):
        raise RunError(
            f"{folder} was trained on the network {net.name!r}, whose module would be imported and "
            f"so executed. If you trust it, pass --trust {module}."
        )
    tensors, where = read_weights(folder / WEIGHTS), f"in {folder}"
    if network is None:
        network = network_of(net.name, net.shape, tensors, where=where)
    else:
        fit_weights(network, tensors, where=where)
    if digest(network) != net.digest:
        raise RunError(
            f"The weights in {folder} are not those that its record names; they were changed or "
            "belong to another run. Restore weights.safetensors from a copy, or make the run again "
            "with --overwrite."
        )
    return Run(record, network.eval(), folder)


def snapshots(run: Run) -> Iterator[tuple[int, Run]]:
    """Snapshots of a run's network with their epochs, earliest first.

    Raises:
        RunError: a snapshot is damaged.
    """
    if run.folder is None or not (run.folder / SNAPSHOTS).is_dir():
        return
    for folder in sorted((run.folder / SNAPSHOTS).iterdir()):
        network = copy.deepcopy(run.network)
        fit_weights(network, read_weights(folder / WEIGHTS), where=f"in {folder}")
        yield int(folder.name.rpartition("-")[2]), replace(run, network=network)


def network_of(
    name: str, shape: tuple[int, int, int], tensors: Mapping[str, Tensor], *, where: str
) -> nn.Module:
    """A network with these weights, checked before memory is taken for it.

    Raises:
        RunError: the weights do not fit.
        ConfigError: see `denature.nets.create`.
    """
    classes, channels, size = shape
    outline = outline_of(name, classes=classes, channels=channels, image_size=size)
    if outline is not None:  # a short name may stand for a network of any size
        check_weights(outline.state_dict(), tensors, where=where)
    network = create(name, classes=classes, channels=channels, image_size=size)
    fit_weights(network, tensors, where=where)
    return network
