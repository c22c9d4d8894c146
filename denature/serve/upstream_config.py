"""Settings of a gateway; this module imports nothing heavy."""

from dataclasses import dataclass
from typing import final

from denature.answers.kinds import AnswerKind
from denature.core.schema import check_fields
from denature.remote.signature import RemoteSignature


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamConfig:
    """A server whose models are served here, behind keys, budgets and defenses."""

    upstream: str | None = None
    """URL of a server with the Open Inference Protocol, such as MLServer, KServe or Triton, or of
    one of its models. The models are then names of its models, by default all that it lists."""
    upstream_output: str | None = None
    """Output of its models that is shown, where they have several."""
    upstream_kind: AnswerKind | None = None
    """Kind of its answers; by default found from the output's name, or else from the answers to
    two random images."""
    upstream_timeout_s: float = 30.0
    """Seconds for an answer of it; clients are then told to retry."""
    upstream_at_once: int = 32
    """Requests that wait for it at one time; others wait here."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            {
                "upstream_timeout_s": (
                    0 < self.upstream_timeout_s <= 3600,
                    "above 0, at most 3600",
                ),
                "upstream_at_once": (1 <= self.upstream_at_once <= 1024, "from 1 to 1024"),
            },
        )


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamModel:
    """What is known of a model of another server."""

    signature: RemoteSignature
    kind: AnswerKind
    """Kind of its answers."""
    scores: int
    """Number of scores in an answer; for labels that of the classes, as far as known."""
