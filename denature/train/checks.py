"""Checks of an order before its run is made."""

from collections.abc import Iterable, Mapping

from torch import nn

from denature.answers.transfer import Transfer
from denature.core.compute import Compute
from denature.core.errors import ConfigError
from denature.core.record import format_shape
from denature.data.dataset import Dataset
from denature.nets import check_name
from denature.nets.published import check_backbone
from denature.train.config import Training
from denature.train.objectives.base import Objective
from denature.train.order import Input, Order
from denature.train.run import Run


def check_names(orders: Iterable[Order]) -> None:
    """Check the networks and backbones that orders name, before their data are decoded.

    Raises:
        ConfigError: an unknown name.
        MissingExtra: a library that is not installed.
    """
    for order in orders:
        if isinstance(order.net, str):
            check_name(order.net)
        if isinstance(order.backbone, str):
            check_backbone(order.backbone)


def shape_of(dataset: Dataset) -> tuple[int, int, int]:
    return len(dataset.classes), dataset.channels, dataset.image_size


def check_shape(role: str, run: Run, dataset: Dataset) -> None:
    net = run.record.net
    if run.record.landmarks != dataset.landmarks:
        kinds = {True: "landmarks", False: "classes"}
        raise ConfigError(
            f"The {role} {run.folder or net.name} predicts {kinds[run.record.landmarks]}, and the "
            f"labels of {dataset.config.source} are {kinds[dataset.landmarks]}. Take a run on such "
            "data."
        )
    if net.shape != (wanted := shape_of(dataset)):
        sizes = (dataset.config.image_size, net.image_size)
        sized = (
            f", or pass --image-size {net.image_size}" if sizes[0] not in (None, sizes[1]) else ""
        )
        raise ConfigError(
            f"The {role} {run.folder or net.name} answers {format_shape(net.shape)}, but the data "
            f"{dataset.config.source} has {format_shape(wanted)}. Take a run on such data{sized}."
        )


def check_inputs(inputs: Mapping[str, Input], network: nn.Module, dataset: Dataset) -> None:
    """Check that inputs fit the data, and are other modules than the network to train."""
    for role, given in inputs.items():
        if isinstance(given, Transfer):
            given.check(dataset)
        if not isinstance(given, Run):
            continue
        if role != "backbone":
            check_shape(role, given, dataset)
        if given.network is network:
            raise ConfigError(
                f"The {role} and the network to train are one module; train a copy of it "
                "(copy.deepcopy), or a network by name."
            )


def check_kind(objective: Objective, answerer: Input | None) -> None:
    """Check that stored answers are of the kind that an objective learns from."""
    if not isinstance(answerer, Transfer) or answerer.shown_kind == "logits":
        return
    if objective.needs_logits:
        raise ConfigError(
            f"{objective.kind} training needs the logits of its {objective.asks}, and the answers "
            f"are {answerer.shown_kind}. Name a run, or clone a victim that answers with them."
        )


def check_batch_size(training: Training, processes: int) -> None:
    if training.batch_size < 2 * processes:
        raise ConfigError(
            f"batch_size is {training.batch_size} for {processes} processes; each needs "
            f"two samples, so it must be at least {2 * processes}."
        )


def check_landmarks(order: Order) -> None:
    """Check that an order can be run on data whose labels are coordinates."""
    objective, training = order.objective, order.training
    if not objective.landmarks:
        raise ConfigError(
            f"{objective.kind} training compares classes, and the labels are landmarks. Train on "
            "them, or clone a victim that answers with them."
        )
    if training.augment not in ("auto", "none", "crop"):
        raise ConfigError(
            f"augment is {training.augment}; landmarks can follow a crop only. Leave it out."
        )


def check_answers(network: nn.Module, name: str, dataset: Dataset, compute: Compute) -> None:
    """Pass two images through a network, so that a misfit fails here and not in the loss."""
    compute.place(network)
    was_training = network.training
    pixels = compute.pixels(dataset.train.images[dataset.train.rows[:2]].to(compute.device))
    try:
        shape = tuple(compute.answer(network.eval(), pixels).shape)
    except Exception as error:  # a user's module may raise anything
        raise ConfigError(
            f"The network {name} cannot take images of {tuple(pixels.shape[1:])}: {error}"
        ) from None
    finally:
        network.train(was_training)
    if shape != (len(pixels), len(dataset.classes)):
        raise ConfigError(
            f"The network {name} answered {len(pixels)} images with the shape {shape}; wanted is "
            f"{(len(pixels), len(dataset.classes))}, logits for each class."
        )
