"""How passes are divided among workers."""

from collections.abc import Sequence
from heapq import heapreplace
from typing import TypeAlias

UNEVEN = 1.1
"""Time until the last worker has finished, over the least there is, that is accepted: the parts of
a pass compute its shared answers each."""

Part: TypeAlias = tuple[int, list[int]]
"""The place of a pass, and the places of some of its runs."""


def divide(costs: Sequence[Sequence[float]], workers: int) -> list[Part]:
    """Parts of passes, the longest first, for workers that take one after another.

    The longest pass of several runs is halved, again and again, as long as workers would end at
    times that differ much, and only where that makes the last one end earlier.

    Args:
        costs: for each pass the costs of its runs.
        workers: their number, at least 1.
    """

    def cost(part: Part) -> float:
        number, places = part
        return sum(costs[number][place] for place in places)

    parts = [(number, list(range(len(each)))) for number, each in enumerate(costs)]
    even = sum(map(cost, parts)) / workers
    tried: list[tuple[float, list[Part]]] = []
    while True:
        parts = sorted(parts, key=cost, reverse=True)
        tried.append((_last_end(list(map(cost, parts)), workers), parts))
        longest = next((part for part in parts if len(part[1]) > 1), None)
        if longest is None or tried[-1][0] <= UNEVEN * even:
            break
        number, places = longest
        halves = [(number, places[::2]), (number, places[1::2])]
        parts = [part for part in parts if part is not longest] + halves
    least = min(end for end, _ in tried)
    return next(found for end, found in tried if end <= UNEVEN * least)


def _last_end(costs: Sequence[float], workers: int) -> float:
    """When the last of the workers has finished, each of which takes the next part."""
    ends = [0.0] * workers
    for cost in costs:
        heapreplace(ends, ends[0] + cost)
    return max(ends)
