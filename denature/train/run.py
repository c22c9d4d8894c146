"""A run on disk: one folder with its record, its weights and its events."""

import datetime
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from denature.core import record as records
from denature.core.errors import ConfigError, RunError
from denature.core.record import RECORD, InputRecord, NetRecord, Record
from denature.core.stats import Estimate
from denature.core.weights import WEIGHTS, digest, fit_weights, read_weights, save_weights
from denature.nets import create, parameter_count
from denature.nets.normalize import Normalized


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A finished run: a network with its record, and the folder where both lie, if they do."""

    record: Record
    network: nn.Module
    folder: Path | None = None

    @property
    def accuracy(self) -> Estimate:
        """Accuracy on the test split.

        Raises:
            RunError: the run was imported and never measured.
        """
        if self.record.accuracy is None:
            raise RunError("This run was imported and never measured; see `denature eval`.")
        return self.record.accuracy

    def as_input(self) -> InputRecord:
        """How another run's record refers to this one."""
        return InputRecord(
            folder=None if self.folder is None else str(self.folder),
            kind=self.record.kind,
            net=self.record.net.name,
            digest=self.record.net.digest,
            accuracy=self.record.accuracy,
            seed=self.record.seed,
        )


def claim(folder: Path, *, overwrite: bool) -> Path:
    """Make sure that a run may be written to `folder`, before any work is done for it.

    Raises:
        RunError: another run is there, or things that are no run, or it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; a run needs a folder. Name another with --out.")
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            holds = "a run" if (folder / RECORD).exists() else "files"
            raise RunError(
                f"{folder} already holds {holds}. Name another folder with --out, or pass "
                "--overwrite to replace a run."
            )
        if not (folder / RECORD).exists() and any(map(_is_foreign, folder.iterdir())):
            raise RunError(
                f"{folder} holds files that no run wrote; --overwrite replaces runs only."
            )
        # The record goes first, so that a kill in between leaves nothing that looks complete.
        (folder / RECORD).unlink(missing_ok=True)
        for entry in folder.iterdir():
            if not _is_foreign(entry):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror}.") from None
    return folder


def _is_foreign(entry: Path) -> bool:
    name = entry.name
    ours = {RECORD, WEIGHTS, "events"}
    return not (name in ours or (name.startswith(".") and name.endswith(".tmp")))


def save_run(run: Run) -> None:
    """Write weights, then the record: a folder with a record is complete."""
    if run.folder is None:
        return
    try:
        save_weights(run.folder, run.network)
        records.write_record(run.folder, run.record)
    except OSError as error:
        raise RunError(
            f"The run could not be written to {run.folder}: {error.strerror or error}. "
            "Nothing that looks complete was left there."
        ) from None


def load_run(folder: str | Path, *, trust: Collection[str] = ()) -> Run:
    """Read a run's folder; nothing in it is executed.

    Args:
        folder: what a run left.
        trust: modules of the user's own that the record may name as the network's factory.
            Importing one executes it, so a record alone does not suffice.

    Raises:
        RunError: no run, damaged, a newer schema, weights that do not fit or were changed since.
    """
    folder = Path(folder)
    record = records.read_record(folder)
    net = record.net
    module = net.name.partition(":")[0]
    if ":" in net.name and module not in trust:
        raise RunError(
            f"{folder} was trained on the network {net.name!r}, whose module would be imported and "
            f"so executed. If you trust it, pass --trust {module}."
        )
    network = create(
        net.name, classes=net.classes, channels=net.channels, image_size=net.image_size
    )
    fit_weights(network, read_weights(folder / WEIGHTS), where=f"in {folder}")
    if digest(network) != net.digest:
        raise RunError(
            f"The weights in {folder} are not those that its record names; they were changed or "
            "belong to another run."
        )
    return Run(record, network.eval(), folder)


def import_run(
    net: str,
    weights: str | Path,
    *,
    classes: int,
    channels: int = 3,
    image_size: int = 32,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> Run:
    """Make a run of somebody's own weights.

    The file may hold all of a catalogue network or its body alone, as other code leaves it; then
    `mean` and `std` say what its images were normalised with.

    Raises:
        RunError: the weights cannot be read or do not fit.
        ConfigError: unknown network, a shape that it cannot take, mean and std where the file
            brings its own.
    """
    clock = time.perf_counter()
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    shape = {"classes": classes, "channels": channels, "image_size": image_size}
    network = create(net, **shape, mean=mean, std=std)
    tensors = read_weights(Path(weights))
    target = network
    if isinstance(network, Normalized):
        if not {"mean", "std"} <= tensors.keys():
            target = network.body
        elif mean or std:
            raise ConfigError(f"{weights} brings its own normalisation; leave out mean and std.")
    fit_weights(target, tensors, where=f"in {weights}")
    network.eval()
    folder = None if out is None else claim(Path(out), overwrite=overwrite)
    record = Record(
        kind="imported",
        net=NetRecord(
            name=net, parameters=parameter_count(network), digest=digest(network), **shape
        ),
        data=None,
        given={"weights": str(weights), "mean": mean, "std": std},
        config={},
        accuracy=None,
        chosen_on="unknown",
        chosen_epoch=None,
        seconds=time.perf_counter() - clock,
        images_per_second=None,
        started=started,
        environment=records.environment(),
    )
    run = Run(record, network, folder)
    save_run(run)
    return run
