"""What a thief of an audit is answered: its budget, its order of images, noise, and labels."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from denature.answers.answerer import Answers
from denature.audit.attempt import CellAttempt, PoolOrder
from denature.audit.source import Harvest, Source, shown_by
from denature.core.stopping import Stopper
from denature.data import load
from denature.data.config import DataConfig
from denature.defenses.base import Chain
from denature.defenses.catalogue import chain_of
from denature.extract.asking.ledger import BudgetSpent, Ledger
from denature.extract.asking.oracle import Oracle
from denature.extract.asking.pool import open_pool
from denature.extract.strategies.base import Situation
from denature.extract.strategies.common import as_labels
from denature.extract.victims.called import FunctionVictim
from denature.remote.config import RequestConfig


@pytest.fixture
def harvest(tmp_path: Path) -> Iterator[Harvest]:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        model = FunctionVictim(
            lambda images: images.reshape(len(images), -1)[:, :10].astype(np.float32),
            name="pixels",
            kind="logits",
        )
        from denature.extract.compatibility import about_of

        oracle = Oracle(
            victim=model,
            ledger=ledger,
            about=about_of(model),
            budget=10**6,
            pace=RequestConfig(),
            stopper=Stopper(),
        )
        yield Harvest(oracle, classes=10)


def situation(budget: int) -> Situation:
    return Situation(
        threat="B", kind="probabilities", random=False, perturbs=False, classes=10, net="mlp",
        budget=budget, labelled=0,
    )  # fmt: skip


def attempt(harvest: Harvest, chain: Chain, budget: int, seed: int = 0) -> CellAttempt:
    pool = open_pool(DataConfig(source="digits"), channels=1, image_size=8)
    source = Source(name=chain.name, harvest=harvest, chain=chain)
    return CellAttempt(
        situation=situation(budget),
        seed=seed,
        device="cpu",
        source=source,
        main=PoolOrder(pool, set()),  # type: ignore[arg-type]
    )


def test_a_budget_bounds_what_is_asked(harvest: Harvest) -> None:
    thief = attempt(harvest, Chain(), 10)
    images = thief.pool(0, 10)
    thief.ask(images[:4])
    thief.ask(images[:4])  # a repeated image costs again
    with pytest.raises(BudgetSpent, match="allows 2 more; 3 were requested"):
        thief.ask(images[:3])
    assert thief.left() == 2
    assert thief.ask(images[8:]).kind == "probabilities"
    assert len(harvest) == 6  # the model itself was asked once for each image


def test_the_order_of_a_pool_depends_on_the_seed_alone(harvest: Harvest) -> None:
    first, same, other = (attempt(harvest, Chain(), 50, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.pool(0, 50), same.pool(0, 50))
    assert np.array_equal(first.pool(0, 50)[20:], same.pool(20, 30))
    assert not np.array_equal(first.pool(0, 50), other.pool(0, 50))
    assert first.image_shape == (1, 8, 8)


def test_a_thief_cannot_repeat_the_noise_of_the_service(harvest: Harvest) -> None:
    thief = attempt(harvest, chain_of("gaussian-noise@scale=0.1"), 50)
    images = thief.pool(0, 20)
    shown, simulated = thief.ask(images), thief.simulate(harvest(images), images)
    assert shown.kind == simulated.kind == "probabilities"
    assert not torch.equal(shown.values, simulated.values)
    more = thief.simulate(harvest(images), images)
    assert not torch.equal(simulated.values, more.values)
    again = attempt(harvest, chain_of("gaussian-noise@scale=0.1"), 50)
    assert torch.equal(again.ask(images).values, shown.values)


def test_a_service_shows_probabilities_of_logits(harvest: Harvest) -> None:
    logits = Answers("logits", torch.tensor([[0.0, 3.0, 1.0]]))
    images = np.zeros((1, 1, 8, 8), np.uint8)
    shown = shown_by(Chain().start(), logits, images)
    torch.testing.assert_close(shown.values, logits.values.softmax(-1))
    labels = shown_by(chain_of("rounding@decimals=1+label-only").start(), logits, images)
    assert labels.values.tolist() == [1]
    assert as_labels(logits).values.tolist() == [1]


def test_test_images_are_never_queried() -> None:
    data = load("digits")
    pool = open_pool(DataConfig(source="digits"), channels=1, image_size=8)
    contents = pool.contents(range(pool.size or 0))
    order = PoolOrder(pool, set(contents[:100]))  # type: ignore[arg-type]
    assert not set(order.shuffled(0, set())) & set(range(100))
    kept = {order.contents[row] for row in order.shuffled(0, {contents[200]})}
    assert contents[200] not in kept
    assert len(order.rows) <= len(data.train) - 100
