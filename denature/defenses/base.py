"""The interface of a defense, chains of defenses, and an answerer with a chain."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias, final

from denature.answers.kinds import AnswerKind
from denature.core.errors import ConfigError
from denature.core.schema import encode

if TYPE_CHECKING:  # settings of a server name defenses without paying for torch
    from torch import Tensor, nn

    from denature.answers.answerer import Answerer, Answers
    from denature.core.types import Pixels

NetworkRole: TypeAlias = Literal["untrained", "surrogate", "misinformation"]
"""Networks of the defender: one with random weights; a student of the true answers, as a thief
trains it; and one that is trained to be wrong."""

Networks: TypeAlias = "Mapping[NetworkRole, nn.Module]"
"""Networks by role, each from pixels in [0, 1] to logits of the model's classes, in eval mode."""


class Memory(Protocol):
    """State of a defense from one answer to the next: a generator, or answers that were shown."""

    def state(self) -> "dict[str, Tensor]":
        """The state, to be saved with a service."""

    def restore(self, tensors: "Mapping[str, Tensor]") -> None:
        """Take over what `state` returned."""


class Context(NamedTuple):
    """What a defense uses besides the answers; see `Defense.look` and `Defense.begin`."""

    evidence: Any = None
    """Tensor of batch x ..., what the defender's network says of the same images."""
    memory: Any = None


@dataclass(frozen=True, kw_only=True)
class Defense(ABC):
    """A change of answers before they are shown; the fields of a subclass are its options.

    A defense keeps the dtype of scores. Without memory it changes each answer without regard to
    others; with memory, the answers to a batch are those to its images one after another.
    """

    name: ClassVar[str]
    """Name in the catalogue."""
    takes: ClassVar[tuple[AnswerKind, ...]]
    """Kinds of answers that can be defended."""
    gives: ClassVar[AnswerKind | None] = None
    """Kind of the defended answers; None for the kind that was taken."""
    random: ClassVar[bool] = False
    """Whether equal answers are changed differently each time."""
    perturbs: ClassVar[bool] = False
    """Whether shown scores differ from the true ones by more than their format, so that a network
    may learn to undo the change."""
    needs_all: ClassVar[bool] = False
    """Whether it takes answers with all their scores alone."""
    role: ClassVar[NetworkRole | None] = None
    """The network of the defender that the defense looks at, if any."""
    differentiates: ClassVar[bool] = False
    """Whether the defense needs derivatives by this network's parameters, not only its logits."""
    revision: ClassVar[int] = 1
    """Is raised after a change that moves what is shown, so that the cells of audits behind the
    defense are measured again."""

    @property
    @abstractmethod
    def keeps_top(self) -> bool:
        """Whether the predicted class keeps the largest value, alone or with others."""

    @property
    def settings(self) -> dict[str, Any]:
        """Name and options, as digests and the plans of clones state them."""
        return {"defense": {"name": self.name, **encode(self)}}

    @property
    def spelled(self) -> str:
        """Name and all options, as the command line takes them."""
        options = [f"{key}={_spelled(value)}" for key, value in encode(self).items()]
        return f"{self.name}@{'+'.join(options)}" if options else self.name

    def kind(self, kind: AnswerKind) -> AnswerKind:
        """Kind of the defended answers to answers of `kind`.

        Raises:
            ConfigError: the defense does not take this kind.
        """
        if kind not in self.takes:
            raise ConfigError(
                f"The defense {self.name} takes {', '.join(self.takes)}, not {kind}; show another "
                "kind of answers or leave it out."
            )
        return self.gives or kind

    def shows(self, classes: int) -> int:
        """Number of scores shown of an answer with all its scores; the others are NaN."""
        return classes

    def prepare(self, network: "nn.Module") -> "nn.Module":
        """The network of `role` as `look` uses it many times; itself by default."""
        return network

    def look(self, network: "nn.Module", pixels: "Pixels") -> "Tensor":
        """What the network of `role` says of images, batch x ...; no image changes another's."""
        raise NotImplementedError

    def begin(self, seed: int) -> Memory | None:
        """The memory before the first answer; None where the defense has none."""
        return None

    def __call__(self, answers: "Answers", context: Context | None = None) -> "Answers":
        """The defended answers; without a context, with a memory of its own from seed 0.

        Raises:
            ConfigError: the defense does not take answers of this kind, or looks at a network.
        """
        kind = self.kind(answers.kind)
        if context is None:
            if self.role is not None:
                raise ConfigError(
                    f"The defense {self.name} needs the {self.role} network; start a chain with it."
                )
            context = Context(memory=self.begin(0))
        return answers._replace(
            kind=kind, values=self._change(answers.values, answers.kind, context)
        )

    @abstractmethod
    def _change(self, values: "Tensor", kind: AnswerKind, context: Context) -> "Tensor":
        """The defended values; see `Answers.values`."""


@dataclass(frozen=True, kw_only=True)
class Perturbation(Defense):
    """A defense that shows other probabilities than the true ones, which it needs in full."""

    takes: ClassVar[tuple[AnswerKind, ...]] = ("logits", "probabilities")
    gives: ClassVar[AnswerKind | None] = "probabilities"
    perturbs: ClassVar[bool] = True
    needs_all: ClassVar[bool] = True


def _spelled(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@final
@dataclass(frozen=True, slots=True)
class Chain:
    """Defenses one after another, in reading order; none of them shows true answers."""

    defenses: tuple[Defense, ...] = ()

    @property
    def name(self) -> str:
        """The defenses with all options, as the command line takes them."""
        return "+".join(defense.spelled for defense in self.defenses) or "none"

    @property
    def settings(self) -> dict[str, Any]:
        if len(self.defenses) == 1:
            return self.defenses[0].settings
        return {"defenses": [defense.settings for defense in self.defenses]}

    @property
    def revisions(self) -> dict[str, int]:
        """Revisions above 1, by the name of the defense."""
        return {d.name: d.revision for d in self.defenses if d.revision > 1}

    @property
    def random(self) -> bool:
        return any(defense.random for defense in self.defenses)

    @property
    def perturbs(self) -> bool:
        return any(defense.perturbs for defense in self.defenses)

    @property
    def roles(self) -> frozenset[NetworkRole]:
        """Roles of the networks that `start` needs."""
        return frozenset(d.role for d in self.defenses if d.role is not None)

    @property
    def converts_logits(self) -> bool:
        """Whether the first defense takes logits and gives another kind.

        It is handed logits where there are any: a softmax before it may make two of them equal.
        """
        first = self.defenses[0] if self.defenses else None
        return first is not None and first.gives is not None and "logits" in first.takes

    @property
    def differentiated(self) -> frozenset[NetworkRole]:
        """Roles of the networks whose parameters must stay what they are; see `differentiates`."""
        return frozenset(d.role for d in self.defenses if d.role is not None and d.differentiates)

    def kind(self, kind: AnswerKind) -> AnswerKind:
        """Kind of the defended answers to answers of `kind`.

        Raises:
            ConfigError: a defense does not take what the one before gives.
        """
        for defense in self.defenses:
            kind = defense.kind(kind)
        return kind

    @property
    def remembers(self) -> bool:
        """Whether answers depend on those given before, other than through a generator."""
        return any(not d.random and d.begin(0) is not None for d in self.defenses)

    def check_scores(self, classes: int) -> None:
        """Check that no defense needs scores that one before it hides.

        Raises:
            ConfigError: one does.
        """
        for number, defense in enumerate(self.defenses):
            if defense.needs_all and Chain(self.defenses[:number]).shows(classes) < classes:
                raise ConfigError(
                    f"The defense {defense.name} needs all {classes} scores, and one before it "
                    "hides some; put it before that one."
                )

    def shows(self, classes: int) -> int:
        """Number of scores shown of an answer with all its scores; the others are NaN."""
        return min((defense.shows(classes) for defense in self.defenses), default=classes)

    def __call__(self, answers: "Answers") -> "Answers":
        """The defended answers, as the first ones of a stream without networks."""
        return self.start()(answers)

    def start(self, networks: "Networks | None" = None, *, seed: int = 0) -> "Stream":
        """A stream of answers from its first one on.

        Raises:
            ConfigError: a network is missing.
        """
        return Stream(self, networks or {}, seed)


@final
class Stream:
    """Answers through a chain, in the order in which they are shown.

    Args:
        chain: the defenses.
        networks: those of the chain's roles.
        seed: of all random defenses.

    Raises:
        ConfigError: a network is missing.
    """

    def __init__(self, chain: Chain, networks: "Networks", seed: int) -> None:
        if missing := chain.roles - networks.keys():
            raise ConfigError(f"{chain.name} needs the {', '.join(sorted(missing))} network.")
        self.chain = chain
        self._networks = [
            None if defense.role is None else defense.prepare(networks[defense.role])
            for defense in chain.defenses
        ]
        self._memories = [
            defense.begin(seed + number) for number, defense in enumerate(chain.defenses)
        ]

    def __call__(
        self,
        answers: "Answers",
        pixels: "Pixels | None" = None,
        *,
        evidence: "Sequence[Tensor | None] | None" = None,
    ) -> "Answers":
        """The answers as they are shown.

        Args:
            answers: true answers.
            pixels: the images of these answers in [0, 1], for chains with roles.
            evidence: what `look` returned for these images, to save looking again.

        Raises:
            ConfigError: the chain does not take this kind, or needs the images.
        """
        seen = self.look(pixels) if evidence is None else evidence
        for defense, memory, found in zip(self.chain.defenses, self._memories, seen, strict=True):
            answers = defense(answers, Context(found, memory))
        return answers

    def look(self, pixels: "Pixels | None") -> "tuple[Tensor | None, ...]":
        """What the network of each defense says of images; None where a defense has none.

        Raises:
            ConfigError: the chain needs the images.
        """
        found: list[Tensor | None] = []
        for defense, network in zip(self.chain.defenses, self._networks, strict=True):
            if network is not None and pixels is None:
                raise ConfigError(f"{defense.name} looks at the images; pass them as well.")
            found.append(
                None if network is None or pixels is None else defense.look(network, pixels)
            )
        return tuple(found)

    def state(self, *, random: bool = True) -> "dict[str, Tensor]":
        """The memories of all defenses, to be saved with a service.

        Args:
            random: whether those of random defenses are included.
        """
        return {
            f"{number}.{name}": tensor
            for number, memory in enumerate(self._memories)
            if memory is not None and (random or not self.chain.defenses[number].random)
            for name, tensor in memory.state().items()
        }

    def restore(self, tensors: "Mapping[str, Tensor]") -> None:
        """Take over what `state` returned."""
        for number, memory in enumerate(self._memories):
            if memory is not None:
                start = f"{number}."
                memory.restore(
                    {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
                )


@final
@dataclass(frozen=True, slots=True)
class Defended:
    """An answerer whose answers pass through a chain.

    Raises:
        ConfigError: the chain does not take the answerer's kind of answers.
    """

    answerer: "Answerer"
    chain: Chain
    networks: "Networks" = field(default_factory=dict)
    seed: int = 0
    stream: Stream = field(init=False)

    def __post_init__(self) -> None:
        self.chain.kind(self.answerer.kind)
        object.__setattr__(self, "stream", self.chain.start(self.networks, seed=self.seed))

    @property
    def kind(self) -> AnswerKind:
        return self.chain.kind(self.answerer.kind)

    @property
    def digest(self) -> str:
        """Identity of answerer, chain and networks, without the seed of random defenses."""
        settings = json.dumps(self.chain.settings, sort_keys=True)
        text = f"{self.answerer.digest} {self.answerer.kind} {settings}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __call__(self, pixels: "Pixels") -> "Answers":
        return self.stream(self.answerer(pixels), pixels)
