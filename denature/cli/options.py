"""Options that several commands share, and files that can stand for them."""

import json
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

from cyclopts import App, ArgumentCollection, Group, Parameter
from cyclopts.config import Dict

from denature.core.errors import ConfigError, RunError
from denature.core.stopping import Stopper, seconds_of
from denature.data.config import DataConfig, Reading
from denature.train.config import Keeping, Training

if TYPE_CHECKING:
    from denature.cli.show import Display
    from denature.train import Run

T = TypeVar("T")

SHOWING = Group("Output", sort_key=9)
DATA = Group("Data", sort_key=2)
TRAINING = Group("Training", sort_key=3)

RunFolder: TypeAlias = Path
"""The folder that a run left."""

COMMAND_OF_KIND = {"normal": "train", "nasty": "nasty", "distilled": "distill"}


@dataclass(frozen=True, kw_only=True)
class Showing:
    """How much is said, and in which form."""

    json: Annotated[bool, Parameter(negative="")] = False
    """Print the result as one line of JSON, the last on standard output."""
    verbose: Annotated[bool, Parameter(name=("--verbose", "-v"), negative="")] = False
    """Say more; with an error, where it came from."""
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"), negative="")] = False
    """Show no progress."""

    def display(self) -> "Display":
        from denature.cli.show import Display

        return Display(quiet=self.quiet)


@dataclass(frozen=True, kw_only=True)
class Surviving:
    """How a long run gets through."""

    save_every: str = "60s"
    """Time between states on disk, such as 30s or 5m: what a kill can cost."""
    keep_every: int = 0
    """Keep the weights of every so many epochs in snapshots/; 0 keeps none."""
    time_limit: str | None = None
    """Put everything aside after this time, such as 9m or 1.5h, and exit with code 75."""

    def keeping(self) -> Keeping:
        return Keeping(save_every_s=seconds_of(self.save_every), keep_every=self.keep_every)

    def stopper(self) -> Stopper:
        limit = self.time_limit
        return Stopper(seconds=None if limit is None else seconds_of(limit))


@dataclass(frozen=True, kw_only=True)
class Writing:
    """Where a run goes."""

    out: Path | None = None
    """The run's folder; by default one under runs/, named by what makes the run that run."""
    overwrite: Annotated[bool, Parameter(negative="")] = False
    """Replace another run that `--out` holds."""

    @property
    def under(self) -> Path | None:
        return Path("runs") if self.out is None else None


Data: TypeAlias = Annotated[str, Parameter(name="--data", group=DATA)]
ReadingOptions: TypeAlias = Annotated[Reading, Parameter(name="*", group=DATA)]
TrainingOptions: TypeAlias = Annotated[Training, Parameter(name="*", group=TRAINING)]
ShowingOptions: TypeAlias = Annotated[Showing, Parameter(name="*", group=SHOWING)]
SurvivingOptions: TypeAlias = Annotated[Surviving, Parameter(name="*", group=SHOWING)]
WritingOptions: TypeAlias = Annotated[Writing, Parameter(name="*", group=SHOWING)]
Trust: TypeAlias = Annotated[tuple[str, ...], Parameter(name="--trust", negative="")]
ConfigFile: TypeAlias = Annotated[Path | None, Parameter(name="--config")]


def data_config(source: str, reading: Reading) -> DataConfig:
    return DataConfig(
        source=source,
        **{name: getattr(reading, name) for name in Reading.__dataclass_fields__},
    )


def config_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill options that were not given from `--config`: a TOML file, or an earlier run's record."""
    given = [
        token.value
        for argument in arguments
        if "--config" in argument.names
        for token in argument.tokens
    ]
    if not given:
        return
    path = Path(given[-1])
    # Under the command's name, because at the top a key such as `data` would pass for a command.
    values = {commands[-1]: _read(path, commands)}
    Dict(values, source=str(path))(app, commands, arguments)


def _read(path: Path, commands: tuple[str, ...]) -> dict[str, Any]:
    if path.is_dir():
        path = path / "record.json"
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return _of_record(json.loads(text), path, commands)
        return {key.replace("_", "-"): value for key, value in tomllib.loads(text).items()}
    except FileNotFoundError:
        raise ConfigError(f"There is no config file {path}.") from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}. Wanted is TOML with the names of options, or the "
            "record.json of a run."
        ) from None


def _of_record(record: Any, path: Path, commands: tuple[str, ...]) -> dict[str, Any]:
    """The options that would make the run of this record again."""
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        raise RunError(f"{path} is no record of a run.")
    command = COMMAND_OF_KIND.get(str(record.get("kind")))
    if command != commands[-1]:
        raise ConfigError(
            f"{path} records a run of kind {record.get('kind')!r}; "
            + (f"use it with `denature {command}`." if command else "it cannot be made again.")
        )
    config = record["config"]
    objective = {k: v for k, v in config["objective"].items() if k != "kind"}
    data = {k: v for k, v in config["data"].items() if k != "source"}
    options = {**data, **objective, **config["training"]}
    options |= {"net": config["net"], "data": config["data"]["source"]}
    options |= {
        role: given["folder"] for role, given in record["inputs"].items() if given.get("folder")
    }
    return {key.replace("_", "-"): v for key, v in options.items() if v not in (None, [])}


@contextmanager
def machine_output(showing: Showing) -> Iterator[None]:
    """Send what people read to standard error when standard output is for a machine."""
    if not showing.json:
        yield
        return
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout = stdout


def load_runs(folders: dict[str, Path | None], trust: tuple[str, ...]) -> dict[str, "Run"]:
    """The runs behind the options that name one."""
    from denature.train import load_run

    return {
        role: load_run(folder, trust=trust)
        for role, folder in folders.items()
        if folder is not None
    }
