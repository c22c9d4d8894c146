"""The catalogue of networks, as parameters of tests."""

import pytest

from denature.nets import NETS

RELATIVES = ("resnetc32", "resnetc44", "resnetc56", "resnetc110", "resnet34", "resnext29")
"""Deeper ones of blocks that a smaller network has, and the one that is the slowest by far."""

NETWORKS = [
    pytest.param(name, marks=pytest.mark.slow if name in RELATIVES else ()) for name in NETS
]

every_network = pytest.mark.parametrize("name", NETWORKS)
