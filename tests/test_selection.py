"""Which images are asked: selections, and the pools that they choose from."""

from dataclasses import replace
from typing import get_args

import pytest
import torch

from denature.core.errors import ConfigError
from denature.data import Dataset
from denature.data.config import DataConfig
from denature.extract.asking.pool import NoisePool, StoredPool, open_pool
from denature.extract.config import Choose
from denature.extract.selection.both import both
from denature.extract.selection.catalogue import SELECTIONS, find_selection
from denature.extract.selection.k_center import k_center
from denature.extract.selection.uncertainty import uncertainty
from tests.oracles import images_of, split_of

IN_ROUNDS = {name: s.select for name, s in SELECTIONS.items() if s.select is not None}


# Choosing


def test_the_uncertain_and_the_far_are_chosen() -> None:
    candidates = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.0, 1.0], [0.6, 0.4]])
    asked = torch.tensor([[0.6, 0.4]])
    assert uncertainty(candidates, asked, 2).tolist() == [1, 3]
    assert k_center(candidates, asked, 2).tolist() == [2, 0]
    # Distances 0.42, 0.14, 0.85, 0 and entropies 0.33, 0.69, 0, 0.67, each as shares of the most.
    assert both(candidates, asked, 1).tolist() == [1]


def test_the_catalogue_has_a_strategy_for_each_choice_of_the_config() -> None:
    assert list(SELECTIONS) == list(get_args(Choose))
    assert "random" not in IN_ROUNDS
    with pytest.raises(ConfigError, match=r"no selection 'k-centre'\. Did you mean k-center"):
        find_selection("k-centre")


@pytest.mark.parametrize("choose", IN_ROUNDS)
def test_strategies_name_each_candidate_once(choose: str) -> None:
    select = IN_ROUNDS[choose]
    torch.manual_seed(0)
    candidates, asked = torch.randn(50, 4).softmax(-1), torch.randn(5, 4).softmax(-1)
    before = candidates.clone()
    places = select(candidates, asked, 20)
    assert len(set(places.tolist())) == 20
    assert select(candidates, asked, 90).sort().values.tolist() == list(range(50))
    assert torch.equal(candidates, before)


# Pools


def test_a_pool_has_the_channels_that_a_victim_takes() -> None:
    grey = images_of(3)
    colour = StoredPool("some", split_of(3), "d", channels=3)
    assert (colour.images([0, 2])[:, 1] == grey.images([0, 2])[:, 0]).all()
    split = replace(split_of(3), images=torch.from_numpy(colour.images([0, 1, 2])))
    assert (StoredPool("some", split, "d", channels=1).images([1]) == grey.images([1])).all()
    with pytest.raises(ConfigError, match="only 1 and 3"):
        StoredPool("some", split_of(3), "d", channels=2)


def test_noise_of_a_number_is_the_same_for_ever() -> None:
    noise = NoisePool(channels=1, image_size=8, seed=3)
    assert (noise.images([5, 2])[1] == noise.images([2])[0]).all()
    assert len(set(noise.contents(range(100)))) == 100
    assert noise.references([7, 3]) == [f"{noise.digest}#7", f"{noise.digest}#3"]
    assert NoisePool(channels=1, image_size=8, seed=4).contents([0]) != noise.contents([0])


def test_a_pool_holds_nothing_of_what_is_tested_on(digits: Dataset) -> None:
    pool = open_pool(DataConfig(source="digits"), channels=1, image_size=8)
    assert pool.size == len(digits.train)
    tests = StoredPool("tests", digits.test, "d", channels=1)
    assert pool.references([0]) == [f"digits#{int(digits.train.rows[0])}"]
    theirs = set(tests.contents(range(len(digits.test))))
    assert not theirs & set(pool.contents(range(len(digits.train))))
