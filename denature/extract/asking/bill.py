"""What a harvest costs at most, before it is asked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from denature.core.progress import format_seconds
from denature.extract.asking.limits import affordable, in_dollars
from denature.extract.asking.oracle import Oracle
from denature.extract.victims.called import FunctionVictim
from denature.remote.config import RequestConfig


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Queries for one use."""

    name: str
    """For sentences, such as `to learn from`."""
    queries: int
    """In all, where none is lost."""
    limit: int | None = None
    """Hard limit on them in all, with those that are lost; None for no limit of their own."""
    spent: int = 0
    """Queries of earlier calls for the same use, those without an answer included."""
    lost: int = 0
    """Queries among them without an answer, which is still wanted."""
    together: int | None = None
    """Queries that are known at once, such as those of a round; None for all of them."""

    @property
    def left(self) -> int:
        return max(0, self.queries - self.spent + self.lost)

    def requests(self, size: int) -> int:
        """Requests of up to `size` queries for what is left, each sent once."""
        rounds, rest = divmod(self.left, self.together or max(1, self.left))
        return rounds * math.ceil((self.together or self.left) / size) + math.ceil(rest / size)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Bill:
    """Queries, attempts, dollars and time of a harvest, at most."""

    parts: Sequence[Part]
    per_request: int
    """Images in a request."""
    pace: RequestConfig
    local: bool = False
    """Whether the model answers in this process; without a price its queries cost nothing."""
    in_parts: bool = False
    """Whether queries may be sent in more requests than full ones, such as an audit's."""
    budget: int | None = None
    """Hard limit on queries in all; None for no limit."""
    price: float | None = None
    """US dollars a query; None if unknown."""
    max_cost: float | None = None
    """Hard limit in US dollars."""
    paid: float = 0.0
    """US dollars that earlier calls cost."""
    timed: tuple[int, float] = (0, 0.0)
    """Answered requests so far, and their mean latency in seconds."""

    @staticmethod
    def of(
        oracle: Oracle,
        parts: Sequence[Part],
        *,
        budget: int | None = None,
        in_parts: bool = False,
    ) -> "Bill":
        """The bill of an oracle's queries, with what its ledger knows."""
        return Bill(
            parts=parts,
            per_request=oracle.per_request,
            pace=oracle.pace,
            local=isinstance(oracle.victim, FunctionVictim),
            in_parts=in_parts,
            budget=budget,
            price=oracle.price,
            max_cost=oracle.max_cost,
            paid=oracle.paid,
            timed=oracle.ledger.latency(oracle.target),
        )

    @property
    def queries(self) -> int:
        """Queries that are left to send, where none is lost."""
        return self._limited(sum(part.left for part in self.parts))

    @property
    def most(self) -> int:
        """Queries that are left to pay for at most, all attempts that may be charged included."""
        return self._limited(
            sum(
                part.left * self.pace.attempts
                if part.limit is None
                else max(0, part.limit - part.spent)
                for part in self.parts
            )
        )

    def _limited(self, left: int) -> int:
        if self.budget is not None:
            left = min(left, max(0, self.budget - sum(part.spent for part in self.parts)))
        if self.max_cost is not None and self.price:
            left = min(left, affordable(self.max_cost - self.paid, self.price))
        return left

    @property
    def requests(self) -> int:
        """Requests for them, each sent once: at most, or at least where they go in parts."""
        return sum(part.requests(self.per_request) for part in self.parts)

    @property
    def attempts(self) -> int:
        """Attempts of these requests, those that are not charged included."""
        return self.requests * self.pace.attempts

    @property
    def dollars(self) -> float | None:
        """US dollars that are left to pay at most; None where the price is unknown."""
        return None if self.price is None else self.price * self.most

    def seconds(self) -> tuple[float, str] | None:
        """Time until all answers are there, and what this is based on; None if nothing says."""
        found = []
        if (rate := self.pace.rate) is not None:
            found.append((self.queries / rate, f"at --rate {rate:g}"))
        count, latency = self.timed
        if count:
            requests = math.ceil(self.queries / self.per_request)
            at_once = min(self.pace.concurrency, max(1, requests))
            basis = (
                f"mean latency {1000 * latency:,.3g} ms a request, of {count:,} timed so far, if "
                f"{at_once} at once are as fast as one"
            )
            found.append((requests * latency / at_once, basis))
        return max(found, default=None)

    def lines(self) -> list[str]:
        """The bill as sentences."""
        earlier = sum(part.spent for part in self.parts)
        if not self.queries:
            return [f"No query is left to send; {earlier:,} were spent before."]
        parts = ", ".join(f"{part.left:,} {part.name}" for part in self.parts)
        wanted = sum(part.left for part in self.parts)
        limited = f" of {wanted:,}, then a limit ends them" if wanted > self.queries else ""
        missing = sum(part.lost for part in self.parts)
        unanswered = f", {missing:,} of them without an answer" if missing else ""
        before = f" {earlier:,} were spent before{unanswered}." if earlier else ""
        lost = (
            f"; at most {self.most:,} if attempts are lost and charged"
            if self.most > self.queries
            else ", including lost attempts that may have been charged"
        )
        if self.local and self.price is None:
            return [f"{self.queries:,} queries{limited}: {parts}.{before}"]
        return [
            f"{self.queries:,} queries{limited}{lost}: {parts}.{before}",
            self._requests(),
            self._money(),
            self._time(),
        ]

    def _requests(self) -> str:
        of = f"requests of up to {self.per_request} images"
        if self.in_parts:
            return f"They take {self.requests:,} {of}, or more: each thief asks for its images."
        return f"They take at most {self.requests:,} {of}, and {self.attempts:,} attempts."

    def _money(self) -> str:
        if self.dollars is None:
            return "Dollars: not known; --price-per-1000 states the price."
        limit = "" if self.max_cost is None else f", within --max-cost {self.max_cost:g}"
        price = in_dollars(self.price or 0.0)
        return f"At most {in_dollars(self.dollars)}, at {price} a query{limit}."

    def _time(self) -> str:
        if (time := self.seconds()) is None:
            return "Time of the answers: not known; no request was timed, and no --rate is set."
        return f"Time of the answers: {format_seconds(time[0])} ({time[1]})."
