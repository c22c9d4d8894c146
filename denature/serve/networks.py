"""The networks of the defender that defenses look at, for a served model."""

from collections.abc import Collection
from typing import final

from torch import nn

from denature.core.errors import ConfigError
from denature.defenses.base import Chain, Networks
from denature.serve.config import DefenseConfig
from denature.train.classes import alike
from denature.train.run import Run, load_run
from denature.train.untrained import untrained

MEANING = {
    "surrogate": "a student of the model's true answers",
    "misinformation": "a network that is trained to be wrong",
}


@final
class DefenderNetworks:
    """Networks by role; the run of a role is read once for all models."""

    def __init__(self, config: DefenseConfig, *, trust: Collection[str]) -> None:
        self._folders = {"surrogate": config.surrogate, "misinformation": config.misinformation}
        self._trust = trust
        self._runs: dict[str, Run] = {}

    def of(self, chain: Chain, run: Run) -> Networks:
        """The networks that a chain needs in front of a run, in the order of the run's classes.

        Raises:
            ConfigError: a role has no run, or its run has other classes or takes other images.
            RunError: a role's run cannot be read.
        """
        return {
            role: untrained(run) if role == "untrained" else self._named(role, chain, run)
            for role in sorted(chain.roles)
        }

    def _named(self, role: str, chain: Chain, run: Run) -> nn.Module:
        folder = self._folders[role]
        if folder is None:
            raise ConfigError(
                f"The defense {chain.name} of {run.folder} looks at a {role} network, "
                f"{MEANING[role]}, and none is named; name its run with --{role} RUN."
            )
        if role not in self._runs:
            self._runs[role] = load_run(folder, trust=self._trust)
        return alike(role, self._runs[role], run).network
