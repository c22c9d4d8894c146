"""Which attacks run on which models, and what they take at most."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from denature.core.errors import ConfigError
from denature.core.progress import Progress, format_seconds
from denature.core.text import counted
from denature.data import Dataset
from denature.extract.asking.limits import in_dollars
from denature.recipes.blackboxes import most_queries
from denature.robust.blackbox import BlackBox, whole_steps
from denature.robust.catalogue import ATTACKS, chosen
from denature.robust.config import AttackConfig, budget_text
from denature.robust.estimate import attack_seconds
from denature.robust.target import PROBE, Attacked


def in_whole_steps(config: AttackConfig, data: Dataset) -> AttackConfig:
    """Round linf budgets to whole steps of byte images, the same for all networks."""
    epsilons = config.budgets(channels=data.channels)["linf"]
    rounded = tuple(whole_steps(epsilon) for epsilon in epsilons)
    if 0 in rounded:
        raise ConfigError(
            f"A linf budget is {epsilons[0]:g}, but images are sent as bytes: the least change is "
            f"1/255, {1 / 255:.4f}. Raise --linf."
        )
    return replace(config, linf=rounded)


def common_attacks(
    config: AttackConfig, target: Attacked, targets: Sequence[Attacked]
) -> AttackConfig:
    """The same attacks for all targets with gradients, so that their results are comparable."""
    if target.shows != "gradients":
        return config
    names = [name for each in targets for name in chosen(config, each)]
    return replace(config, attacks=tuple(name for name in ATTACKS if name in names))


def announce(
    planned: Sequence[tuple[Attacked, AttackConfig]],
    prices: Mapping[BlackBox, float | None],
    images: torch.Tensor,
    data: Dataset,
    progress: Progress,
) -> None:
    """Report the attacks, and the time, queries and dollars that they take at most."""
    seconds, queries, dollars = 0.0, 0, 0.0
    for target, config in planned:
        names = chosen(config, target)
        if isinstance(target, BlackBox):
            asked = most_queries(names, config, channels=data.channels, count=len(images))
            queries += asked
            dollars += asked * (prices[target] or 0.0)
        else:
            few = images[:PROBE].to(target.device)
            seconds += attack_seconds(target, names, config, few, len(images))
            if target.shows_probabilities:
                progress.say(
                    f"{target.name} outputs probabilities; their logarithms are attacked, since a "
                    "softmax of probabilities would mask every gradient."
                )
    target, config = planned[-1]  # mostly an undefended network, which all attacks apply to
    budgets = config.budgets(channels=data.channels)
    progress.say(
        f"Effort {config.effort}: {len(images)} test samples of "
        f"{counted(len(planned), 'network')}; {', '.join(chosen(config, target))}; "
        + ", ".join(
            f"{norm} {' '.join(map(budget_text, epsilons))}" for norm, epsilons in budgets.items()
        )
        + f"; {format_seconds(seconds)} at most"
        + (f", and {queries:,} queries at most" if queries else "")
        + (f" for {in_dollars(dollars)}" if dollars else "")
        + ", less where attacks succeed early."
    )
