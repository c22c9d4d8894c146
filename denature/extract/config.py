"""What can be set about stealing a model; imports nothing heavy."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, final

from denature.core.schema import check_fields

Choose: TypeAlias = Literal["random", "uncertainty", "k-center", "both"]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How fast and how stubbornly a victim is asked."""

    concurrency: int = 8
    """Requests in flight at most; also what a kill can leave unknown."""
    per_request: int = 64
    """Images in a request, where the victim takes several."""
    rate: float | None = None
    """Images a second at most; as fast as it answers by default."""
    timeout_s: float = 30.0
    """Seconds until a request counts as lost; it may have been billed all the same."""
    attempts: int = 6
    """How often a request is sent before the harvest stops. Again only after 429, 5xx and lost
    connections."""
    longest_wait_s: float = 60.0
    """Seconds to wait at most before sending again; a service that asks for more ends the harvest,
    which the same command takes up later."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            {
                "concurrency": (1 <= self.concurrency <= 1024, "from 1 to 1024"),
                "per_request": (1 <= self.per_request <= 65_536, "from 1 to 65,536"),
                "rate": (self.rate is None or self.rate > 0, "above 0"),
                "timeout_s": (self.timeout_s > 0, "above 0"),
                "attempts": (self.attempts >= 1, "at least 1"),
                "longest_wait_s": (self.longest_wait_s >= 0, "at least 0"),
            },
        )


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Stealing:
    """What is asked, and how often clones are trained."""

    choose: Choose = "random"
    """Which images to ask about: random ones; those the last clone is least sure of; those
    farthest from all asked before, by what the last clone answers (both from ActiveThief); or by
    the sum of the two, which is ours: the paper combines k-center with DeepFool distances."""
    round_size: int = 1000
    """Images chosen at once, except at random; a clone is trained after each round."""
    repeats: int = 1
    """How often each image is asked, against answers that are randomised: their mean is learned.
    Each counts as a query."""
    pool_seed: int = 0
    """Rules which images are random, and which test images measure fidelity."""
    seeds: int = 1
    """Clones for each budget, trained from different weights on the same answers."""
    fidelity: int = 1000
    """Test images about which the victim is asked, on a budget of their own, to measure how often
    clones say what it says."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            {
                "round_size": (self.round_size >= 2, "at least 2"),
                "repeats": (self.repeats >= 1, "at least 1"),
                "seeds": (self.seeds >= 1, "at least 1"),
                "fidelity": (self.fidelity >= 2, "at least 2"),
            },
        )
