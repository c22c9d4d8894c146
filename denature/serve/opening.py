"""Opens the models of a server, with their defenses."""

import functools
import secrets
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from denature.answers.config import InferenceConfig
from denature.answers.inference import Inference
from denature.answers.network import NetworkAnswerer
from denature.core.compute import Compute, resolve
from denature.core.errors import ConfigError
from denature.core.seeds import derive
from denature.defenses.base import Chain, Networks
from denature.serve.config import ServedModel, Serving
from denature.serve.memory import locked_folder
from denature.serve.model import Model
from denature.serve.networks import DefenderNetworks
from denature.serve.protocol import ModelSignature
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

    def opened(model: ServedModel) -> Model:
        if model.upstream is not None:
            return _open_upstream(model, serving, folder)
        if model.function is not None:
            return _open_function(model, serving, folder)
        return _open_run(model, serving, networks, folder)

    return {model.name: opened(model) for model in served}


def _open_run(
    served: ServedModel, serving: Serving, networks: DefenderNetworks, folder: Path | None
) -> Model:
    run = load_run(served.run, trust=serving.trust)
    net = run.record.net
    signature = ModelSignature(
        name=served.name,
        shape=(net.channels, net.image_size, net.image_size),
        classes=run.classes,
        exposure=served.exposure,
        named=run.class_names is not None,
    )
    compute = resolve(run.network, device=serving.device, precision=serving.precision)
    # Probabilities are rounded to up to 15 decimals, which float32 does not have.
    answerer = NetworkAnswerer(
        Inference(run.network, compute, InferenceConfig(), shape=signature.shape),
        kind=served.taken or served.exposure.kind,
        digest=run.digest,
        dtype=torch.float64,
    )
    return Model(
        served,
        signature,
        answerer,
        take=functools.partial(_pixels, compute=compute),
        networks=placed(networks.of(served.chain, run), served.chain, compute, signature.shape),
        seed=_seed(serving.defense.defense_seed, served.name),
        memory=folder,
    )


def placed(
    networks: Networks, chain: Chain, compute: Compute, shape: tuple[int, int, int]
) -> Networks:
    """The defender's networks on the model's device, in fp32 and in its memory layout.

    Batch norms are folded where a defense only needs the logits: of 1.1 ms that misinformation adds
    to an image with `cnn`, this saves 0.3.
    """
    exact, whole = replace(compute, precision="fp32"), chain.differentiated
    return {
        role: compute.place(network).eval()
        if role in whole
        else Inference(network, exact, InferenceConfig(), shape=shape).network
        for role, network in networks.items()
    }


def _open_upstream(served: ServedModel, serving: Serving, folder: Path | None) -> Model:
    from denature.serve.upstream import RandomAnswers, Upstream, signature_of

    _check_roles(served, "a model of another server")
    upstream = Upstream(served, serving.upstream, key=serving.upstream_key)
    return Model(
        served,
        signature_of(served),
        RandomAnswers(served, upstream.digest),
        take=torch.tensor,
        networks={},
        seed=_seed(serving.defense.defense_seed, served.name),
        memory=folder,
        upstream=upstream,
    )


def _open_function(served: ServedModel, serving: Serving, folder: Path | None) -> Model:
    from denature.serve.functions import ServedFunction, signature_of, unit_pixels

    _check_roles(served, "a function or a file")
    return Model(
        served,
        signature_of(served),
        ServedFunction(served, trust=serving.trust),
        take=unit_pixels,
        networks={},
        seed=_seed(serving.defense.defense_seed, served.name),
        memory=folder,
    )


def _check_roles(served: ServedModel, model: str) -> None:
    """Check that no defense needs a network in front of a model that is no run.

    Raises:
        ConfigError: one does.
    """
    if served.chain.roles:
        raise ConfigError(
            f"The defense {served.chain.name} looks at images with another network "
            f"({', '.join(sorted(served.chain.roles))}), so it stands before runs only, not before "
            f"{model}."
        )


def _pixels(images: np.ndarray, compute: Compute) -> torch.Tensor:
    # Arrays over a request's bytes are read-only, which torch would warn about.
    tensor = torch.tensor(images).to(compute.device)
    return compute.pixels(tensor) if images.dtype == np.uint8 else tensor


def _seed(given: int | None, name: str) -> int:
    """The seed of a model's random defenses; no two models, processes or starts share one."""
    return secrets.randbits(63) if given is None else derive(given, "served", name)
