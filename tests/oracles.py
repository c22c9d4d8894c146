"""Victims that count their queries, small pools, and oracles between them."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from denature.core.stopping import Stopper
from denature.data.dataset import Split
from denature.extract.asking.ledger import Ledger
from denature.extract.asking.oracle import Oracle
from denature.extract.asking.pool import StoredPool
from denature.extract.victims.called import FunctionVictim
from denature.remote.config import RequestConfig

SOFT = np.array([0.5, 0.2, 0.3], np.float32)


def split_of(count: int, *, seed: int = 0) -> Split:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 1, 4, 4), dtype=np.uint8)
    return Split(
        torch.from_numpy(pixels), torch.zeros(count, dtype=torch.int64), torch.arange(count)
    )


def images_of(count: int, *, seed: int = 0) -> StoredPool:
    return StoredPool("some", split_of(count, seed=seed), "digest", channels=1)


class Counted:
    """A function that counts what it is asked, and how many calls run at once."""

    def __init__(self, answer: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        self.answer = answer or (lambda pixels: np.tile(SOFT, (len(pixels), 1)))
        self.calls: list[int] = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        assert pixels.dtype == np.float32
        assert 0 <= pixels.min() <= pixels.max() <= 1
        with self._lock:
            self.calls.append(len(pixels))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(0.005)
        try:
            return self.answer(pixels)
        finally:
            with self._lock:
                self.at_once -= 1


def oracle_of(ledger: Ledger, function: Any, *, budget: int = 100, **more: Any) -> Oracle:
    kind = more.pop("kind", None)
    victim = FunctionVictim(function, name="victim", kind=kind)
    about = asyncio.run(victim.about())
    usual: dict[str, Any] = {
        "pace": RequestConfig(per_request=8, concurrency=4),
        "stopper": Stopper(),
    }
    return Oracle(victim=victim, ledger=ledger, about=about, budget=budget, **(usual | more))
