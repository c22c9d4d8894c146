"""What the paper's experiments take: their data sets, and options of their own."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from denature.train.config import Checkpoint

DataName: TypeAlias = Literal["cifar10", "cifar100", "tiny-imagenet"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperOptions:
    """Options of the experiments of the Nasty Teacher paper."""

    tame: bool = False
    """Raise omega over the first tenth of the steps and cap the push, for networks whose nasty
    training diverges. The record notes this."""
    checkpoint: Checkpoint = "last"
    """Epoch whose weights are kept; best-test is the choice of the released code."""
