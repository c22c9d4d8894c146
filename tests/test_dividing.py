"""Passes are divided so that workers end at about the same time."""

import pytest

from denature.train.dividing import UNEVEN, divide


def ends(costs: list[list[float]], workers: int) -> list[float]:
    """When each worker ends, if the parts go to the next free one."""
    found = [0.0] * workers
    for number, places in divide(costs, workers):
        free = min(range(workers), key=found.__getitem__)
        found[free] += sum(costs[number][place] for place in places)
    return found


@pytest.mark.parametrize(
    ("costs", "workers"),
    [
        ([[1.0] * 8] * 3, 2),
        ([[1.0] * 8] * 5, 2),
        ([[1.0] * 16], 4),
        ([[1.0] * 5, [3.0] * 2, [1.0]], 3),
        ([[2.0] * 8] * 2, 3),
    ],
)
def test_no_worker_waits_long_for_the_last_one(costs: list[list[float]], workers: int) -> None:
    found = ends(costs, workers)
    assert max(found) <= UNEVEN * (sum(found) / workers + max(map(max, costs)))


@pytest.mark.parametrize("costs", [[[1.0] * 8] * 4, [[2.0], [1.0], [1.0]], [[1.0], [1.0]], []])
def test_passes_that_end_even_stay_whole(costs: list[list[float]]) -> None:
    found = divide(costs, 2)
    assert sorted(found) == [(number, list(range(len(each)))) for number, each in enumerate(costs)]


def test_each_run_is_in_one_part_and_the_longest_part_comes_first() -> None:
    costs = [[1.0, 5.0, 2.0], [4.0], [1.0] * 7]
    found = divide(costs, 3)
    runs = [(number, place) for number, places in found for place in places]
    assert sorted(runs) == [(n, p) for n, each in enumerate(costs) for p in range(len(each))]
    sums = [sum(costs[number][place] for place in places) for number, places in found]
    assert sums == sorted(sums, reverse=True)


def test_nothing_is_divided_that_makes_no_worker_end_earlier() -> None:
    assert divide([[9.0], [1.0, 1.0]], 2) == [(0, [0]), (1, [0, 1])]
    # Sixteen equal runs of three workers end at 6 at the least: three halves and two quarters.
    assert len(divide([[1.0] * 8] * 2, 3)) == 5
