"""Options that several commands share, and files that can stand for them."""

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    TypeAlias,
    get_args,
    get_origin,
    get_type_hints,
)

from cyclopts import App, Argument, ArgumentCollection, Group, Parameter
from cyclopts.config import Dict

from denature.answers.config import InferenceConfig
from denature.cli import former
from denature.core.errors import ConfigError, unknown
from denature.core.names import own_module
from denature.core.record import Record, read_record
from denature.core.schema import check_fields
from denature.core.stopping import Stopper, parse_duration
from denature.core.threads import default_workers
from denature.core.untrusted import read_toml
from denature.data.config import DataConfig, ReaderConfig
from denature.datafree.config import Dafl
from denature.train.config import CheckpointConfig, Device, Training
from denature.train.objectives import Distilled, Nasty, Normal, Skeptical
from denature.train.session import Session

if TYPE_CHECKING:
    from denature.cli.show import Display
    from denature.train.remote import WorkerPool

OUTPUT = Group("Output", sort_key=9)
DATA = Group("Data", sort_key=2)
INFERENCE = Group("Answers", sort_key=3)
TRAINING = Group("Training", sort_key=4)

RunFolder: TypeAlias = Path
"""The folder of a finished run."""

TRAINERS: dict[str, type[Any]] = {
    "train": Normal, "nasty": Nasty, "distill": Distilled, "skeptical": Skeptical, "dafl": Dafl,
}  # fmt: skip
"""Commands that make a run of each combination of values, where their options are lists, with the
objectives of their runs."""

SWEPT = {"--net"} | {
    f"--{name.replace('_', '-')}"
    for kind in (Training, *TRAINERS.values(), InferenceConfig)
    for name, of in get_type_hints(kind).items()
    if of is not bool and get_origin(of) is not ClassVar and name != "milestones"
}
"""Options whose lists, as in `--alpha 0.1,0.9`, make a run of each value."""

COMMAND_OF_KIND = {objective.kind: command for command, objective in TRAINERS.items()}


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Options of every command: amount and format of its output, and its threads."""

    json: Annotated[bool, Parameter(negative="")] = False
    """Print the result as one line of JSON, the last on standard output."""
    verbose: Annotated[bool, Parameter(name=("--verbose", "-v"), negative="")] = False
    """Print more; with an error, its traceback."""
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"), negative="")] = False
    """Show no progress."""
    threads: int | None = None
    """Threads that each process computes with. By default OMP_NUM_THREADS, or the cores that it may
    use and that others leave free. Another number may change the last bits of a result."""
    config: Path | None = None
    """A TOML file with settings, or for a command that makes runs the folder or record.json of a
    run to make again. Models, output, machine, keys and trust come from the command line only."""

    def __post_init__(self) -> None:
        check_fields(self, {"threads": (self.threads is None or self.threads >= 1, "at least 1")})

    def display(self) -> "Display":
        from denature.cli.show import Display

        return Display(quiet=self.quiet)


def workers_of_small_networks(device: Device) -> int:
    """Default of `--workers` where networks are so small that each core does more with one alone.

    1 on an accelerator, and where a launcher's processes train together.
    """
    import torch

    accelerated = torch.cuda.is_available() or torch.backends.mps.is_available()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return 1
    return 1 if accelerated and device != "cpu" else default_workers()


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Saved states, time limit, workers and trackers of runs."""

    save_every: str = "60s"
    """Time between saved states, such as 30s or 5m: the most work that a kill can cost."""
    keep_every: int = 0
    """Keep the weights of every K-th epoch in snapshots/; 0 keeps none."""
    time_limit: str | None = None
    """Save the state and exit with code 75 after this time, such as 9m or 1.5h."""
    workers: int | None = None
    """Number of processes that make the runs of a list on this machine; faster for small networks.
    1 by default; for an audit, and for experiments at scale smoke, one for each core, up to 4, if
    each has one thread."""
    ray: str | None = None
    """Make the runs on a Ray cluster: auto for the cluster of this machine, local to start one, or
    the cluster's address. The nodes must share the folders of the runs."""
    store: str = "auto"
    """Folder in which answers are stored for later runs; off stores none, auto uses the cache for
    stores of up to 2 GiB."""
    track: tuple[str, ...] = ()
    """Also report to a tracker, such as mlflow or wandb; TensorBoard events are always written."""

    def __post_init__(self) -> None:
        if self.track:
            from denature.train.tracking import check_trackers

            check_trackers(self.track)

    @contextmanager
    def session(
        self, output_options: OutputOptions, device: str, *, default_workers: int = 1
    ) -> "Iterator[Session]":
        """The session of these options; signals stop it, and its workers are shut down at its end.

        Args:
            output_options: the display of progress.
            device: where the workers of `--ray` compute.
            default_workers: number of workers where `--workers` is not given.
        """
        limit = self.time_limit
        stopper = Stopper(seconds=None if limit is None else parse_duration(limit))
        with self._workers(device, default_workers) as workers, stopper.on_signals():
            yield Session(
                checkpointing=CheckpointConfig(
                    save_every_s=parse_duration(self.save_every),
                    keep_every=self.keep_every,
                    store=self.store,
                    track=self.track,
                ),
                stopper=stopper,
                workers=workers,
                progress=output_options.display(),
            )

    @contextmanager
    def _workers(self, device: str, usual: int) -> "Iterator[WorkerPool | None]":
        """The worker pool that `--workers` or `--ray` selects; None where neither does."""
        workers = usual if self.workers is None else self.workers
        if self.ray is None and workers == 1:
            yield None
            return
        from denature.train.workers import ProcessPool, RayPool

        if self.ray is not None and self.workers not in (None, 1):
            raise ConfigError("--ray and --workers were both given; pass one of them.")
        pool = ProcessPool(workers) if self.ray is None else RayPool(self.ray, device=device)
        try:
            yield pool
        finally:
            pool.close()


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """Output folder of a run."""

    out: Path | None = None
    """Output folder; by default one under runs/, named after the run."""
    overwrite: Annotated[bool, Parameter(negative="")] = False
    """Replace another run that the output folder holds."""

    @property
    def under(self) -> Path | None:
        return Path("runs") if self.out is None else None


NETWORKS = ("--net", "--student")
"""Options whose value may name a module of a user's own, which is imported and so executed."""


class FromFile:
    """Marks options that a file of `--config` can set: what is made or measured, not how or where.

    The options of a dataclass are marked together. An option that writes, connects, starts
    processes, trusts, holds a key or names the model is never marked.
    """


Net: TypeAlias = Annotated[str, FromFile]
"""A network's name; a module of a user's own must be trusted where a file names it."""
Data: TypeAlias = Annotated[str, Parameter(name="--data", group=DATA), FromFile]
ReadingOptions: TypeAlias = Annotated[ReaderConfig, Parameter(name="*", group=DATA), FromFile]
InferenceOptions: TypeAlias = Annotated[
    InferenceConfig, Parameter(name="*", group=INFERENCE), FromFile
]
TrainingOptions: TypeAlias = Annotated[Training, Parameter(name="*", group=TRAINING), FromFile]
OutputFlags: TypeAlias = Annotated[OutputOptions, Parameter(name="*", group=OUTPUT)]
RunFlags: TypeAlias = Annotated[RunOptions, Parameter(name="*", group=OUTPUT)]
FolderFlags: TypeAlias = Annotated[FolderOptions, Parameter(name="*", group=OUTPUT)]
Trust: TypeAlias = Annotated[tuple[str, ...], Parameter(name="--trust", negative="")]
Scope: TypeAlias = Annotated[str, Parameter(name="--scope", group=OUTPUT), FromFile]


def data_config(source: str, reading: ReaderConfig) -> DataConfig:
    return DataConfig(
        source=source,
        **{name: getattr(reading, name) for name in ReaderConfig.__dataclass_fields__},
    )


def config_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Take options that were not given from `--config`: a TOML file, or an earlier run's record.

    Raises:
        ConfigError: the file cannot be read, or sets an option that only the command line can, or
            names a module to import that the command line does not trust: a file is data.
    """
    given = {argument.name: [*argument.tokens] for argument in arguments}
    if not given.get("--config"):
        return
    path = Path(given["--config"][-1].value)
    # Alone, so that each option that the file sets is seen, also one that the command line sets.
    for argument in arguments:
        argument.tokens.clear()
    values = _present(_read(path, commands[-1]), path, commands)
    _check_known(values, arguments, path, " ".join(commands))
    # Under the command's names: at the top level a key such as `data` would be read as a command.
    for name in reversed(commands):
        values = {name: values}
    Dict(values, source=str(path))(app, commands, arguments)
    settings = {argument.name for argument in from_file(arguments)}
    for argument in arguments:
        if argument.tokens and argument.name not in settings:
            option = argument.name.removeprefix("--")
            raise ConfigError(f"{path} sets {option}; only the command line can.")
    trusted = [token.value for token in given.get("--trust", ())]
    for argument in arguments:
        if argument.name in NETWORKS and not given[argument.name]:
            _check_trusted(argument, trusted, path)
        argument.tokens[:] = given[argument.name] or argument.tokens


def _present(values: dict[str, Any], path: Path, command: tuple[str, ...]) -> dict[str, Any]:
    """Settings under the present names of their options, with a note on each former one."""
    names = former.OPTIONS.get(command, {})
    for key in names.keys() & values.keys():
        former.note(f"{key} in {path}", names[key])
        values.setdefault(names[key], values.pop(key))
    return values


def _check_known(
    values: Iterable[str], arguments: ArgumentCollection, path: Path, command: str
) -> None:
    known = {name.removeprefix("--") for argument in arguments for name in argument.names}
    for key in values:
        if key not in known:
            raise ConfigError(f"{path}: {unknown(f'option of {command}', key, known)}")


def _check_trusted(network: Argument, trusted: Collection[str], path: Path) -> None:
    for token in network.tokens:
        module = own_module(token.value)
        if module is not None and module not in trusted:
            raise ConfigError(
                f"{path} names the network {token.value!r}, whose module would be imported and so "
                f"executed. If you trust it, name it by {network.name} on the command line, or "
                f"pass --trust {module}."
            )


def from_file(arguments: Iterable[Argument]) -> Iterator[Argument]:
    """The options that a file can set; see `FromFile`."""
    for argument in arguments:
        if FromFile in get_args(argument.field_info.annotation):
            yield argument
            # A marked dataclass may hold it, beside settings of an experiment.
            yield from (child for child in argument.children if child.name != "--trust")


def _read(path: Path, command: str) -> dict[str, Any]:
    if path.is_dir():
        path = path / "record.json"
    if path.suffix == ".json":
        return _of_record(read_record(path.parent), path, command)
    try:
        values = read_toml(path)
    except FileNotFoundError:
        raise ConfigError(f"There is no config file {path}.") from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}. Wanted is TOML whose keys are names of options, or "
            "the record.json of a run."
        ) from None
    for key, value in values.items():
        if isinstance(value, dict):
            raise ConfigError(
                f"{path} has a section [{key}]; wanted are options alone, such as epochs = 3, "
                "without sections."
            )
    return {key.replace("_", "-"): value for key, value in values.items()}


def _of_record(record: Record, path: Path, command: str) -> dict[str, Any]:
    """The options as given for this record's run; defaults that depend on others stay open."""
    wanted = COMMAND_OF_KIND.get(record.kind)
    if command != wanted:
        raise ConfigError(
            f"{path} records a run of kind {record.kind!r}; "
            + (f"use it with `denature {wanted}`." if wanted else "no command makes it again.")
        )
    given = record.given
    try:
        options: dict[str, Any] = {"net": given["net"]}
        for part in ("training", "objective", "asking", "data"):
            options |= given[part]
        options["data"] = options.pop("source")
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} does not say what was given for its run: {error}. Make the run again."
        ) from None
    options.pop("kind", None)
    for role, made in record.inputs.items():
        if made.folder is None:
            if made.kind == "published":
                options[role] = made.net
            continue
        if read_record(Path(made.folder)).net.digest != made.digest:
            raise ConfigError(
                f"The {role} of {path} was in {made.folder}, where another run is now. Pass the "
                f"folder of the right {role} with --{role}."
            )
        options[role] = made.folder
    return {key.replace("_", "-"): value for key, value in options.items()}
