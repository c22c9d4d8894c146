"""Opens the models of a server, with their defenses."""

import secrets
from contextlib import ExitStack
from pathlib import Path

from denature.core.seeds import derive
from denature.serve.config import Serving
from denature.serve.memory import locked_folder
from denature.serve.model import Model
from denature.serve.networks import DefenderNetworks
from denature.train.run import load_run


def open_models(serving: Serving, held: ExitStack) -> dict[str, Model]:
    """All models by name.

    Args:
        serving: settings of the server.
        held: keeps the folder of the defenses' memories locked until it is closed.

    Raises:
        RunError: a run or a memory cannot be read.
        ConfigError: the device or a network of a defense is missing, a defense does not give what
            is shown, or another server uses the folder of the memories.
    """
    served = [model.resolved() for model in serving.models]
    config, folder = serving.defense, None
    if config.defense_state is not None and any(model.chain.remembers for model in served):
        folder = held.enter_context(locked_folder(Path(config.defense_state)))
    networks = DefenderNetworks(config, trust=serving.trust)
    models = {}
    for model in served:
        run = load_run(model.run, trust=serving.trust)
        models[model.name] = Model(
            model,
            run,
            networks=networks.of(model.chain, run),
            seed=_seed(config.defense_seed, model.name),
            device=serving.device,
            precision=serving.precision,
            memory=folder,
        )
    return models


def _seed(given: int | None, name: str) -> int:
    """The seed of a model's random defenses; no two models, processes or starts share one."""
    return secrets.randbits(63) if given is None else derive(given, "served", name)
