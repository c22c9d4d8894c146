"""Settings of requests to a server; this module imports nothing heavy."""

from dataclasses import dataclass
from typing import final

from denature.core.schema import check_fields


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class RequestConfig:
    """Rate, concurrency and retries of the requests to a victim."""

    concurrency: int = 8
    """Requests in flight at most; a kill can leave this many of unknown outcome."""
    per_request: int = 64
    """Images in a request, where the victim accepts several."""
    rate: float | None = None
    """Images a second, on average; one request, or a tenth of a second's worth, passes at once. No
    limit by default."""
    timeout_s: float = 30.0
    """Seconds until a request counts as lost; a lost request may still have been billed."""
    attempts: int = 6
    """Attempts of a request before the harvest stops. Only 429, 5xx and lost connections are
    retried."""
    longest_wait_s: float = 60.0
    """Seconds between two attempts at most. A service that demands a longer wait ends the harvest;
    the same command resumes it later."""

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
