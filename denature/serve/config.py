"""Settings of serving; this module imports nothing heavy."""

import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, final

from denature.answers.kinds import AnswerKind
from denature.core.errors import ConfigError
from denature.core.names import with_options
from denature.core.record import read_record
from denature.core.schema import check_fields
from denature.defenses.base import Defense
from denature.defenses.catalogue import defense_of
from denature.defenses.rounding import Rounding
from denature.defenses.top_k import TopK


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Exposure:
    """The part of a network's logits that an answer shows."""

    show: AnswerKind = "probabilities"
    """Kind of the answers, also the name of the output; always landmarks for a landmark network."""
    top: int = 0
    """Show only this many of the largest values, as strings `value:index:class`; 0 for all."""
    decimals: int = -1
    """Decimals that values are rounded to; -1 for no rounding."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            {
                "top": (self.top >= 0, "at least 0"),
                "decimals": (-1 <= self.decimals <= 15, "from 0 to 15, or -1 for all"),
            },
        )
        if self.show == "landmarks" and self.top:
            raise ConfigError("Landmarks have no largest values; leave top out.")
        if self.show == "label" and (self.top or self.decimals >= 0):
            raise ConfigError("A label has neither top values nor decimals; show probabilities.")

    @property
    def defenses(self) -> tuple[Defense, ...]:
        """What changes answers of the kind `show`, first to last."""
        rounding = (Rounding(decimals=self.decimals),) if self.decimals >= 0 else ()
        return (*rounding, *((TopK(k=self.top),) if self.top else ()))

    @staticmethod
    def of(options: dict[str, str], usual: "Exposure") -> "Exposure":
        """The usual exposure, changed by options such as `{"show": "label"}`.

        Raises:
            ConfigError: an option is unknown, or its value cannot be read.
        """
        values: dict[str, Any] = {"show": usual.show, "top": usual.top, "decimals": usual.decimals}
        for key, text in options.items():
            if key not in values:
                known = ", ".join([*values, "defense"])
                raise ConfigError(f"A model has no option {key!r}; known: {known}.")
            try:
                values[key] = text if key == "show" else int(text)
            except ValueError:
                raise ConfigError(f"{key} is {text!r}; it must be a whole number.") from None
        return Exposure(**values)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Bounds on one request, on waiting requests and on batches."""

    max_images: int = 256
    """Images in one request."""
    max_waiting: int = 8192
    """Images of all waiting requests at most; more are refused with 503."""
    window_ms: float = 0.0
    """Milliseconds that a batch waits for further requests. At 0 a batch holds the requests that
    arrived while the previous one was computed, which costs a lone client nothing."""
    max_batch: int = 256
    """Images computed at once, at most."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            {
                "max_images": (self.max_images >= 1, "at least 1"),
                "max_waiting": (self.max_waiting >= self.max_images, "at least max_images"),
                "window_ms": (0 <= self.window_ms <= 1000, "from 0 to 1000"),
                "max_batch": (self.max_batch >= 1, "at least 1"),
            },
        )


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ServedModel:
    """A run, and the name under which it is served."""

    name: str
    run: str
    exposure: Exposure
    defense: str | None = None
    """A defense of the catalogue before rounding and the choice of the largest values."""
    options: dict[str, str] = field(default_factory=dict)
    """Options of that defense."""

    @staticmethod
    def of(text: str, usual: Exposure) -> "ServedModel":
        """Parse `[NAME=]RUN[@show=label+decimals=2]`; the name is the folder's by default.

        `defense=NAME` names a defense of the catalogue, and further options are that defense's.

        Raises:
            ConfigError: the text cannot be read.
        """
        named = None if Path(text).is_dir() else re.match(r"([^/@]*)=", text)
        rest = text[named.end() :] if named else text
        options: dict[str, str] = {}
        # A folder may have an @ in its own name, as runs of networks with options do.
        if "@" in rest and not Path(rest).is_dir():
            run, _, written = rest.rpartition("@")
            _, options = with_options(f"run@{written}")
        else:
            run = rest
        folder = run.rstrip("/").rpartition("/")[2]
        name = named[1] if named else re.sub(r"[^\w.-]", "-", folder)
        if not run or not re.fullmatch(r"[\w.-]+", name):
            raise ConfigError(
                f"The model {text!r} cannot be read; wanted is RUN or NAME=RUN with a name of "
                "letters, digits, dots, _ and -, optionally followed by @show=label+decimals=2."
            )
        defense, own = options.pop("defense", None), {}
        if defense is not None:
            shown = {entry.name for entry in fields(Exposure)}
            own = {key: options.pop(key) for key in list(options) if key not in shown}
        return ServedModel(
            name=name,
            run=run,
            exposure=Exposure.of(options, usual),
            defense=defense,
            options=own,
        )

    def resolved(self) -> "ServedModel":
        """A copy that shows the kind of answers that the run has.

        Raises:
            ConfigError: the setting asks for classes of a landmark network, or the reverse.
            RunError: there is no such run.
        """
        resolved = replace(self, exposure=replace(self.exposure, show=self._shown()))
        if self.defense is not None:
            show, defense = resolved.exposure.show, defense_of(self.defense, self.options)
            if (given := defense.kind(show)) != show:
                raise ConfigError(
                    f"The defense {self.defense} of {self.run} gives {given}, but {show} are "
                    f"shown; use show={given}."
                )
        return resolved

    def _shown(self) -> AnswerKind:
        exposure = self.exposure
        if not read_record(Path(self.run)).landmarks:
            if exposure.show == "landmarks":
                raise ConfigError(f"{self.run} answers with classes, and cannot show landmarks.")
            return exposure.show
        if exposure.show not in ("probabilities", "landmarks"):  # the first is the default
            raise ConfigError(
                f"{self.run} answers with landmarks, and cannot show {exposure.show}."
            )
        return "landmarks"


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """All settings of a server; workers receive them as JSON."""

    models: tuple[ServedModel, ...]
    limits: Limits = Limits()
    keys: str | None = None
    """File or `redis://` URL of the accepted keys; None accepts every request."""
    log: str | None = None
    """File for the access log; None writes to standard error, "off" disables the log."""
    device: str = "auto"
    precision: str = "fp32"
    trust: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [served.name for served in self.models]
        if not names:
            raise ConfigError("No model was named; give at least one run.")
        if duplicates := {name for name in names if names.count(name) > 1}:
            raise ConfigError(
                f"Two models are called {', '.join(sorted(duplicates))}; name them: NAME=RUN."
            )
