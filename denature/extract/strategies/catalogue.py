"""All strategies by name."""

from collections.abc import Mapping

from denature.core.errors import unknown
from denature.extract.strategies.active import ActiveBoth, ActiveKCenter, ActiveUncertainty
from denature.extract.strategies.augmented import Augmented
from denature.extract.strategies.base import Strategy
from denature.extract.strategies.fixmatch import SemiSupervised
from denature.extract.strategies.label_smoothing import LabelSmoothing
from denature.extract.strategies.labels import PredictedLabels
from denature.extract.strategies.linear_head import SameFeatures
from denature.extract.strategies.naive import Naive
from denature.extract.strategies.other_domain import OtherDomain
from denature.extract.strategies.pretrained import Pretrained
from denature.extract.strategies.recovery_network import RecoveryNetwork
from denature.extract.strategies.recovery_table import RecoveryTable
from denature.extract.strategies.repeated import Repeated
from denature.extract.strategies.skeptical import SkepticalStudent
from denature.extract.strategies.small_alpha import SmallAlpha
from denature.extract.strategies.tuned import Tuned

STRATEGIES: Mapping[str, type[Strategy]] = {
    strategy.name: strategy
    for strategy in (
        Naive,
        PredictedLabels,
        Tuned,
        LabelSmoothing,
        SmallAlpha,
        SkepticalStudent,
        Augmented,
        Repeated,
        RecoveryNetwork,
        RecoveryTable,
        ActiveUncertainty,
        ActiveKCenter,
        ActiveBoth,
        OtherDomain,
        Pretrained,
        SameFeatures,
        SemiSupervised,
    )
}


def strategy_of(name: str) -> Strategy:
    """The strategy of this name, with its default settings.

    Raises:
        ConfigError: there is none.
    """
    if name not in STRATEGIES:
        raise unknown("thief", name, STRATEGIES)
    return STRATEGIES[name]()
