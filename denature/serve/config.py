"""Settings of serving; this module imports nothing heavy."""

import ipaddress
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, final

from denature.answers.kinds import ANSWER_KINDS, CLASS_ANSWER_KINDS, AnswerKind, derivable
from denature.answers.scaling import PixelScale
from denature.core.errors import ConfigError, unknown
from denature.core.names import with_options
from denature.core.record import read_record
from denature.core.schema import check_fields
from denature.defenses.base import Chain, Defense
from denature.defenses.catalogue import chain_of
from denature.defenses.rounding import Rounding
from denature.defenses.top_k import TopK
from denature.serve.upstream_config import UpstreamConfig, UpstreamModel

NONE = "none"
"""The chain without a defense."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Exposure:
    """The part of a network's logits that an answer shows."""

    show: AnswerKind | None = None
    """Kind of the answers, also the name of the output; by default what the defense gives, without
    a defense probabilities, and always landmarks for a landmark network."""
    top: int = 0
    """Show only this many of the largest values, as strings `value:index:class`; 0 for all."""
    decimals: int | None = None
    """Decimals that values are rounded to, -8 to 15: -1 rounds to tens. None are cut by default."""

    def __post_init__(self) -> None:
        if self.show is not None and self.show not in ANSWER_KINDS:
            raise unknown("show", self.show, ANSWER_KINDS)
        check_fields(self, {"top": (self.top >= 0, "at least 0")})
        self.defenses  # noqa: B018 - rounding checks the decimals
        if self.show == "landmarks" and self.top:
            raise ConfigError("Landmarks have no largest values; leave top out.")
        if self.show == "label" and (self.top or self.decimals is not None):
            raise ConfigError("A label has neither top values nor decimals; show probabilities.")

    @property
    def kind(self) -> AnswerKind:
        """Kind of the answers, probabilities where none was chosen."""
        return self.show or "probabilities"

    @property
    def defenses(self) -> tuple[Defense, ...]:
        """What changes answers of the kind `show`, first to last."""
        rounding = () if self.decimals is None else (Rounding(decimals=self.decimals),)
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


SHOWN = tuple(field.name for field in fields(Exposure))


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ServerLimits:
    """Bounds on one request, on waiting requests and on batches."""

    max_images: int = 256
    """Images in one request."""
    max_waiting: int = 8192
    """Images of the waiting requests of one key at most, or of one client where no keys are
    needed; more are refused with 503."""
    max_inflight_mb: int = 512
    """Mebibytes of all requests that are read or answered at one time; more are refused with
    503. One key gets half of them at most."""
    max_connections: int = 1000
    """Connections at most; the one that waited longest for a request makes room for a new one."""
    max_peer_connections: int = 256
    """Connections of one peer at most: an IPv4 address, or an IPv6 network of 64 bits."""
    head_s: float = 10.0
    """Seconds for the head of a request, and for the rest of a body that was refused."""
    body_s: float = 60.0
    """Seconds for the body of a request."""
    unread_s: float = 60.0
    """Seconds for a client to read an answer."""
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
                "max_inflight_mb": (self.max_inflight_mb >= 1, "at least 1"),
                "max_connections": (self.max_connections >= 1, "at least 1"),
                "max_peer_connections": (self.max_peer_connections >= 1, "at least 1"),
                **{
                    name: (0 < getattr(self, name) <= 3600, "above 0, and at most 3600")
                    for name in ("head_s", "body_s", "unread_s")
                },
                "window_ms": (0 <= self.window_ms <= 1000, "from 0 to 1000"),
                "max_batch": (self.max_batch >= 1, "at least 1"),
            },
        )


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class DefenseConfig:
    """The defense of all models that name none, networks of the defender, and memories on disk."""

    defense: str = NONE
    """Defenses of the answers, one after another: NAME@option=value+NAME, such as
    rounding@decimals=1+label-only. RUN@defense=... sets those of one model."""
    surrogate: str | None = None
    """Run that defenses with a surrogate look at: a student of the model's true answers, of the
    same classes and the same shape of images."""
    misinformation: str | None = None
    """Run that defenses with misinformation look at: a network that is trained to be wrong, of the
    same classes and the same shape of images."""
    defense_state: str | None = None
    """Folder in which a defense with a memory of the answers that it gave keeps it over restarts.
    Random numbers are not kept: they begin anew at each start, so none is used twice."""
    defense_save_s: float = 30.0
    """Seconds between two writes of a memory that changed; it is also written at the end."""
    defense_seed: int | None = None
    """Seed of random defenses, for tests with one worker. Without it the seed is drawn from the
    system at each start; a thief who knows the seed can subtract the noise."""

    def __post_init__(self) -> None:
        check_fields(self, {"defense_save_s": (self.defense_save_s > 0, "above 0")})


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionModel:
    """What is known of a function, or of an .onnx or .pt2 file."""

    kind: AnswerKind
    """Kind of its answers."""
    scores: int
    """Number of scores in an answer; for labels that of the classes, as far as known."""
    channels: int
    image_size: int
    pixels: PixelScale = PixelScale()  # noqa: RUF009 - it is frozen
    """Numbers that it takes in place of pixels in [0, 1]."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ServedModel:
    """A run, function, file or model of another server, and the name under which it is served."""

    name: str
    run: str
    """The run's folder, the function's or file's name, or the model's name at the other server."""
    exposure: Exposure
    defense: str = NONE
    """A chain of defenses before rounding and the choice of the largest values."""
    taken: AnswerKind | None = None
    """Kind of the answers that the chain takes; None until `resolved` chooses it."""
    upstream: UpstreamModel | None = None
    """For a model of another server."""
    function: FunctionModel | None = None
    """For a function, or an .onnx or .pt2 file."""

    @property
    def chain(self) -> Chain:
        return chain_of(self.defense)

    @staticmethod
    def of(text: str, usual: Exposure, defense: str = NONE) -> "ServedModel":
        """Parse `[NAME=]RUN[@show=label+decimals=2+defense=CHAIN]`.

        The name is the folder's by default, and `usual` and `defense` hold where the text sets
        nothing else. A chain is the rest of the text: `defense=rounding@decimals=1+label-only`. One
        defense may have its options behind a +, before or after what the answers show:
        `defense=temperature+temperature=4+show=logits`.

        Raises:
            ConfigError: the text cannot be read.
        """
        named = None if Path(text).is_dir() else re.match(r"([^/@]*)=", text)
        rest = text[named.end() :] if named else text
        run, options, own = _divided(rest)
        folder = run.rstrip("/").rpartition("/")[2]
        name = named[1] if named else re.sub(r"[^\w.-]", "-", folder)
        if not run or not re.fullmatch(r"[\w.-]+", name):
            raise ConfigError(
                f"The model {text!r} cannot be read; wanted is RUN or NAME=RUN with a name of "
                "letters, digits, dots, _ and -, optionally followed by @show=label+decimals=2."
            )
        return ServedModel(
            name=name,
            run=run,
            exposure=Exposure.of(options, usual),
            defense=defense if own is None else own,
        )

    def resolved(self) -> "ServedModel":
        """A copy that states what the chain takes, and the kind and number of scores shown.

        Raises:
            ConfigError: the chain cannot be read, or the setting asks for answers that run and
                chain do not give.
            RunError: there is no such run.
        """
        if self.taken is not None:
            return self
        if (known := self.upstream or self.function) is not None:
            return self._resolved(known.kind, known.scores, usual=known.kind)
        record = read_record(Path(self.run))
        kind: AnswerKind = "landmarks" if record.landmarks else "logits"
        return self._resolved(kind, record.net.classes, usual="probabilities")

    def _resolved(self, given: AnswerKind, scores: int, *, usual: AnswerKind) -> "ServedModel":
        """A copy for a model that answers with `given` and shows `usual` without an option."""
        chain, exposure = self.chain, self.exposure
        if given == "landmarks":
            taken = self._of_landmarks(chain)
        else:
            taken = self._of_classes(chain, given, usual)
        kind = chain.kind(taken)
        if kind == "label" and (exposure.top or exposure.decimals is not None):
            raise ConfigError(
                f"{self.run} behind {chain.name} shows labels, which have neither top values nor "
                "decimals; leave top and decimals out."
            )
        top = min(exposure.top, scores)
        if kind != "label" and (shown := chain.shows(scores)) < scores:
            top = min(top or shown, shown)
        return replace(self, taken=taken, exposure=replace(exposure, show=kind, top=top))

    def _of_landmarks(self, chain: Chain) -> AnswerKind:
        if self.exposure.show not in (None, "landmarks"):
            raise ConfigError(
                f"{self.run} answers with landmarks, and cannot show {self.exposure.show}. Leave "
                "out --show, or pass --show landmarks."
            )
        chain.kind("landmarks")
        return "landmarks"

    def _of_classes(self, chain: Chain, answered: AnswerKind, usual: AnswerKind) -> AnswerKind:
        """The kind before the chain that leads to the kind shown.

        Args:
            chain: the defenses.
            answered: kind of the model's answers, from which it must follow.
            usual: kind that is shown without an option.
        """
        show = self.exposure.show
        if show == "landmarks":
            raise ConfigError(
                f"{self.run} answers with classes, and cannot show landmarks. Pass --show "
                "probabilities, logits or label."
            )
        # Scores go before labels: rounding before label-only changes which class is named.
        follow = [kind for kind in CLASS_ANSWER_KINDS if derivable(kind, answered)]
        exact = (show or usual) == "logits" or chain.converts_logits
        first: AnswerKind = "logits" if exact else "probabilities"
        first = first if first in follow else follow[0]
        kinds = dict.fromkeys((first, *follow))
        given: dict[AnswerKind, AnswerKind] = {}
        faults: list[ConfigError] = []
        for kind in kinds:
            try:
                given[kind] = chain.kind(kind)
            except ConfigError as error:
                faults.append(error)
        wanted = show or usual
        matching = [kind for kind, found in given.items() if found == wanted]
        if matching or (given and show is None):
            return [*matching, *given][0]
        if first not in given:
            raise faults[0]
        raise ConfigError(
            f"The defense {chain.name} of {self.run} gives {given[first]}, but show={show} asks "
            f"for {show}; leave show out."
        )


def _divided(text: str) -> tuple[str, dict[str, str], str | None]:
    """Folder, options of the exposure, and chain of a model's text; None where it names none."""
    # A folder may have an @ in its own name, as runs of networks with options do.
    if "@" not in text or Path(text).is_dir():
        return text, {}, None
    found = re.search(r"([@+])defense=", text)
    front, chain = (text[: found.start()], text[found.end() :]) if found else (text, None)
    if found is None or found[1] == "+":
        run, _, written = front.rpartition("@")
        shown = written.split("+")
    else:
        run, shown = front, []
    if chain is not None:
        first, *parts = chain.split("+")
        if "@" not in chain and all("=" in part for part in parts):
            own = [part for part in parts if part.partition("=")[0] not in SHOWN]
            shown += [part for part in parts if part not in own]
            chain = f"{first}@{'+'.join(own)}" if own else first
    _, options = with_options(f"run@{'+'.join(shown)}" if shown else "run")
    return run, options, chain


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """All settings of a server; workers receive them as JSON."""

    models: tuple[ServedModel, ...]
    limits: ServerLimits = ServerLimits()
    defense: DefenseConfig = DefenseConfig()
    keys: str | None = None
    """File or `redis://` URL of the accepted keys; None accepts every request."""
    log: str | None = None
    """File for the access log; None writes to standard error, "off" disables the log."""
    metrics_token: str | None = None
    """Token that shows the metrics; None shows them on this machine alone."""
    upstream: UpstreamConfig = UpstreamConfig()  # noqa: RUF009 - it is frozen
    upstream_key: str | None = None
    """Bearer token for the upstream server."""
    device: str = "auto"
    precision: str = "fp32"
    trust: tuple[str, ...] = ()
    behind_proxy: tuple[str, ...] = ()
    """Addresses or networks of proxies whose X-Forwarded-For is believed."""

    def __post_init__(self) -> None:
        for proxy in self.behind_proxy:
            _check_network(proxy)
        if self.metrics_token == "":
            raise ConfigError("The token of the metrics is empty; name one, or leave it out.")
        names = [served.name for served in self.models]
        if not names:
            raise ConfigError("No model was named; give at least one run, or --upstream.")
        if duplicates := {name for name in names if names.count(name) > 1}:
            raise ConfigError(
                f"Two models are called {', '.join(sorted(duplicates))}; name them: NAME=RUN."
            )


def _check_network(text: str) -> None:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigError(
            f"behind_proxy is {text!r}: {error}. Name addresses or networks of proxies, such as "
            "10.0.0.7 or 10.0.0.0/24."
        ) from None
