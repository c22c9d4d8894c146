"""Requests that wait: together in batches, in fair turns, and no more than there is room for."""

import asyncio
import time
from typing import Any

import numpy as np
import pytest
import torch

from denature.answers.config import InferenceConfig
from denature.answers.inference import Inference
from denature.core.compute import Compute
from denature.nets import create
from denature.serve.batching import Batcher
from denature.serve.config import ServerLimits
from denature.serve.fair import FairGate, FairQueue
from denature.serve.refusal import Refused

# Requests together


def batcher(limits: ServerLimits) -> tuple[Batcher, list[int]]:
    sizes: list[int] = []

    def answer(images: list[np.ndarray]) -> np.ndarray:
        time.sleep(0.02)
        sizes.append(sum(map(len, images)))
        return np.concatenate(images).astype(np.float32)

    return Batcher(answer, limits), sizes


async def answered(line: Batcher, images: np.ndarray, caller: str = "") -> np.ndarray:
    with line.room(len(images), caller):
        return await line.ask(images, caller)


def test_requests_that_wait_are_computed_together() -> None:
    line, sizes = batcher(ServerLimits(max_batch=10))

    async def ask() -> list[np.ndarray]:
        parts = [np.full((1 + n % 3, 1), n) for n in range(20)]
        return list(await asyncio.gather(*(answered(line, part) for part in parts)))

    for number, answer in enumerate(asyncio.run(ask())):
        assert answer.tolist() == [[number]] * (1 + number % 3)
    line.close()
    assert sum(sizes) == sum(1 + n % 3 for n in range(20))
    assert len(sizes) <= 5
    assert max(sizes) <= 10


def test_too_many_that_wait_are_sent_away() -> None:
    line, _ = batcher(ServerLimits(max_images=4, max_waiting=4))

    async def ask() -> list[Any]:
        waiting = [answered(line, np.zeros((2, 1))) for _ in range(3)]
        other = answered(line, np.zeros((1, 1)), "another")
        return list(await asyncio.gather(other, *waiting, return_exceptions=True))

    *given, refused = asyncio.run(ask())
    line.close()
    assert [len(found) for found in given] == [1, 2, 2]
    assert isinstance(refused, Refused)
    assert refused.status == 503


def test_a_request_whose_client_has_gone_is_not_computed() -> None:
    line, sizes = batcher(ServerLimits(max_batch=2))
    left: set[int] = set()

    def check(number: int) -> None:
        if number in left:
            raise Refused(400, "The client has gone.")

    async def ask() -> list[Any]:
        def one(number: int) -> Any:
            return line.ask(np.full((2, 1), number), check=lambda: check(number))

        asked = [asyncio.create_task(one(number)) for number in range(4)]
        await asyncio.sleep(0.005)  # the first is computed
        left.update((0, 2))
        return list(await asyncio.gather(*asked, return_exceptions=True))

    first, second, gone, last = asyncio.run(ask())
    line.close()
    assert [len(answer) for answer in (first, second, last)] == [2, 2, 2]
    assert isinstance(gone, Refused)
    assert sum(sizes) == 6


def test_a_request_that_fails_does_so_alone() -> None:
    batches: list[int] = []

    def answer(images: list[np.ndarray]) -> np.ndarray:
        batches.append(len(images))
        if any(part.min() < 0 for part in images):
            raise ValueError("negative")
        return np.concatenate(images)

    line = Batcher(answer, ServerLimits())

    async def ask() -> list[Any]:
        waiting = [line.ask(np.array([value])) for value in (1, 2, -1, 3)]
        together = await asyncio.gather(*waiting, return_exceptions=True)
        return [*together, await line.ask(np.array([4]))]

    *before, failed, after, last = asyncio.run(ask())
    line.close()
    assert [found.tolist() for found in (*before, after, last)] == [[1], [2], [3], [4]]
    assert isinstance(failed, ValueError)
    assert batches == [4, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("count", [1, 2, 8, 9, 63, 64, 65, 130])
def test_few_images_and_many_get_the_same_answers(count: int) -> None:
    compute = Compute(torch.device("cpu"), "fp32", channels_last=True)
    network = create("cnn@width=4", classes=3, image_size=8).eval()
    inference = Inference(network, compute, InferenceConfig(), shape=(3, 8, 8))
    sizes: list[int] = []
    inference.network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    pixels = torch.rand(count, 3, 8, 8)
    torch.testing.assert_close(inference.low_latency(pixels), inference(pixels), atol=1e-5, rtol=0)
    assert set(sizes) <= {64, 8, 1}
    assert sum(sizes) - 64 * -(-count // 64) <= count + 7  # soon is the first of the two


# Turns


def test_callers_are_served_equally_whatever_they_send() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(60):
        queue.push("many", 1, "many")
    for _ in range(5):
        queue.push("large", 4, "large")
    served = {"many": 0, "large": 0}
    for _ in range(25):
        item = queue.pop()
        served[item] += 4 if item == "large" else 1
    assert served == {"many": 20, "large": 20}
    queue.push("late", 1, "late")  # is not owed what it missed
    assert [queue.pop() for _ in range(4)].count("late") == 1
    while queue:
        queue.pop()


def test_a_caller_that_returns_has_credit_and_no_more() -> None:
    queue: FairQueue[str] = FairQueue(credit=8)
    for _ in range(100):
        queue.push("greedy", 4, "greedy")
    assert [queue.pop() for _ in range(50)] == ["greedy"] * 50
    for _ in range(100):
        queue.push("polite", 4, "polite")
    first = [queue.pop() for _ in range(12)]
    assert first[:2] == ["polite"] * 2
    assert first.count("polite") == 7


def test_a_polite_caller_gets_its_share_beside_a_greedy_one() -> None:
    """48 requests of 256 images wait all the time; one more caller has one after another."""
    computed: list[int] = []

    def answer(images: list[np.ndarray]) -> np.ndarray:
        time.sleep(0.005)
        computed.append(sum(int(part[0, 0] == 1) * len(part) for part in images))
        return np.concatenate(images)

    limits = ServerLimits(max_waiting=48 * 256)
    line, done = Batcher(answer, limits), False

    async def greedy() -> None:
        while not done:
            with line.room(256, "greedy"):
                await line.ask(np.zeros((256, 1)), "greedy")

    async def polite() -> None:
        nonlocal done
        for _ in range(20):
            with line.room(256, "polite"):
                found = await line.ask(np.ones((256, 1)), "polite")
            assert found.tolist() == [[1]] * 256
            await asyncio.sleep(0)  # the way to its next request
        done = True

    async def both() -> None:
        crowd = [asyncio.create_task(greedy()) for _ in range(48)]
        await asyncio.sleep(0.05)
        computed.clear()
        await polite()
        await asyncio.gather(*crowd)

    asyncio.run(both())
    line.close()
    last = max(n for n, images in enumerate(computed) if images)
    share = sum(computed) / (256 * (last + 1))
    assert share > 0.45  # of one half


def test_a_greedy_key_does_not_use_up_the_room_of_others() -> None:
    line = Batcher(lambda images: np.concatenate(images), ServerLimits(max_images=4, max_waiting=4))
    with (
        line.room(4, "greedy"), line.room(4, "polite"),
        pytest.raises(Refused), line.room(1, "greedy"),
    ):  # fmt: skip
        pass
    with line.room(4, "greedy"):
        pass
    line.close()


def test_turns_at_a_gate_are_fair_and_are_not_lost() -> None:
    order: list[str] = []

    async def work(gate: FairGate, caller: str) -> None:
        async with gate.turn(caller, 1):
            order.append(caller)
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        gate = FairGate(1)
        works = [asyncio.create_task(work(gate, "many")) for _ in range(10)]
        works += [asyncio.create_task(work(gate, "one")) for _ in range(2)]
        await asyncio.sleep(0)
        works[5].cancel()
        await asyncio.gather(*works, return_exceptions=True)
        await asyncio.wait_for(work(gate, "after"), 10)

    asyncio.run(all_of_them())
    assert (order.count("many"), order.count("one"), order[-1]) == (9, 2, "after")
    assert set(order[:6]) == {"many", "one"}
    assert order[:6].count("one") == 2
