"""What an order resolves to: its samples, and its network with its initial weights."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from torch import nn

from denature.answers.answerer import Answers
from denature.answers.transfer import Transfer
from denature.core.compute import Compute
from denature.core.errors import ConfigError
from denature.core.seeds import seeded
from denature.core.weights import fit_weights
from denature.data.dataset import Dataset, Split
from denature.data.views import auto_views
from denature.nets import create, optimizer_for
from denature.nets.heads import begin_at, freeze, graft
from denature.train.config import Training
from denature.train.order import Input, Order
from denature.train.run import Run


class TrainingSamples(NamedTuple):
    """Training samples, and the validation samples that may choose the checkpoint."""

    split: Split
    validation: Split | None
    digest: str
    """Digest of the pixels and of the rows of all splits."""
    mean: tuple[float, ...]
    std: tuple[float, ...]


def samples_of(order: Order, dataset: Dataset) -> TrainingSamples:
    """The samples that an order trains on."""
    choosing = order.training.checkpoint == "best-validation"
    held_out = order.training.validation if choosing else None
    return _samples(dataset, order.training.fraction, held_out)


@lru_cache(maxsize=4)  # the orders of a sweep use the same samples
def _samples(dataset: Dataset, fraction: float, held_out: float | None) -> TrainingSamples:
    """A fraction of the training samples, after a share is held out for validation."""
    split, validation = dataset.train, dataset.validation
    if held_out is not None and validation is None:
        split, validation = split.divide(held_out, "validation")
    split = split.fraction(fraction)
    if len(split) < 2:
        raise ConfigError(f"{len(split)} training sample is left; take a larger --fraction.")
    content = hashlib.sha256(dataset.digest.encode())
    for part in (split, validation, dataset.test):
        content.update(b"none" if part is None else part.rows.numpy().data)
    return TrainingSamples(split, validation, content.hexdigest()[:16], *split.statistics())


def network_of(
    order: Order, dataset: Dataset, samples: TrainingSamples, answerer: Input | None
) -> tuple[nn.Module, str]:
    """The network to train, with random weights if it is named, and its name."""
    net = order.net
    if isinstance(net, nn.Module):
        return net, order.name
    mean, std = order.statistics or (samples.mean, samples.std)
    with seeded(order.training.seed, "weights"):
        network = create(
            net,
            classes=len(dataset.classes),
            channels=dataset.channels,
            image_size=dataset.image_size,
            mean=mean,
            std=std,
        )
    if dataset.landmarks:
        labels = samples.split.labels[samples.split.rows]
        if isinstance(answerer, Transfer):
            # The initial bias must not carry more than the defended answers show.
            labels = answerer.shown(Answers("landmarks", labels)).values
        begin_at(network, labels.mean(dim=0))
    return network, net


def initialise(
    network: nn.Module, name: str, inputs: Mapping[str, Input], order: Order, dataset: Dataset
) -> None:
    """Give the network the weights of an order's `init` or `backbone`, if there is one."""
    if isinstance(init := inputs.get("init"), Run):
        where = f"of {init.folder or 'the init run'}"
        fit_weights(network, init.network.state_dict(), where=where)
    _take_over(network, name, inputs.get("backbone"), order, dataset)


def training_of(order: Order, name: str, dataset: Dataset, compute: Compute) -> Training:
    """The training of an order with `auto` resolved for its network, images and objective."""
    return order.training.resolved(
        optimizer=optimizer_for(name),
        augment=auto_views(
            channels=dataset.channels, image_size=dataset.image_size, landmarks=dataset.landmarks
        ),
        schedule=order.objective.schedule,
        device=compute.device.type,
        precision=compute.precision,
    )


def _take_over(
    network: nn.Module, name: str, backbone: Input | None, order: Order, dataset: Dataset
) -> None:
    """Initialise the network from a backbone, if there is one.

    Raises:
        ConfigError: the backbone does not fit, `frozen` has no backbone, or `init` is given too.
    """
    if backbone is None:
        if order.training.frozen:
            raise ConfigError("frozen is set, and there is no backbone to freeze; name one.")
        return
    if order.init is not None:
        raise ConfigError("A run starts from init or from a backbone; leave one of them out.")
    assert not isinstance(backbone, Transfer)
    if isinstance(backbone, Run):
        kind, channels = backbone.record.net.name, backbone.record.net.channels
        where, tensors = f"The backbone {backbone.folder or kind}", backbone.network.state_dict()
        if channels != dataset.channels:
            raise ConfigError(
                f"{where} takes images of {channels} channels, and {dataset.config.source} has "
                f"{dataset.channels}."
            )
    else:
        kind, tensors = backbone.name, backbone.tensors
        where = f"The backbone {kind}"
    if kind != name:
        raise ConfigError(f"{where} is a {kind}, and {name} is to be trained; take the same.")
    taken = graft(network, tensors, outputs=len(dataset.classes), where=where)
    if order.training.frozen:
        freeze(network, taken)
