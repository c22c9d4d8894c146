"""Class order: runs on data, or beside runs, with the same class names in another order."""

from collections.abc import Sequence
from dataclasses import replace
from typing import final

import torch

from denature.core.classes import align
from denature.core.errors import ConfigError
from denature.core.progress import SILENT, Progress
from denature.core.weights import digest
from denature.data.dataset import Dataset
from denature.nets.heads import reordered
from denature.train.checks import check_shape
from denature.train.run import Run, check_alike


@final
class ClassMatcher:
    """Opens runs for one data set, and reorders their answers to its classes where necessary.

    A run that is opened twice is returned as one object, and its message is sent once.

    Args:
        dataset: defines the classes and their order.
        progress: receives a message where an order changes, or names cannot be compared.
    """

    def __init__(self, dataset: Dataset, progress: Progress = SILENT) -> None:
        self._dataset, self._progress = dataset, progress
        self._opened: dict[Run, Run] = {}

    def __call__(self, role: str, run: Run) -> Run:
        """The run with its answers in the order of the data's classes.

        Raises:
            ConfigError: the run is on data of another shape, or of other classes.
        """
        if run not in self._opened:
            data = self._dataset
            check_shape(role, run, data)
            self._opened[run] = in_order(
                run, data.classes, role=role, data=data.config.source, progress=self._progress
            )
        return self._opened[run]


def alike(role: str, run: Run, other: Run, *, progress: Progress = SILENT) -> Run:
    """The run with its answers in the class order of another run.

    Raises:
        ConfigError: the runs differ in the shape of images, or in their classes.
    """
    check_alike(run, other)
    where = str(other.folder or other.record.net.name)
    return in_order(run, other.classes, role=role, data=where, progress=progress)


def in_order(
    run: Run, names: Sequence[str], *, role: str, data: str, progress: Progress = SILENT
) -> Run:
    """The run with its answers in the order of these class names.

    Args:
        run: as stored in its folder.
        names: the class names, as many as the run's classes.
        role: role of the run, for messages.
        data: source of the names, for messages.
        progress: receives a message where the order changes, or names cannot be compared.

    Raises:
        ConfigError: the names differ, or the network's last layer is unknown.
    """
    net = run.record.net
    subject = f"The {role} {run.folder or net.name}"
    alignment = align(run.class_names, names, model=subject, data=data)
    if alignment.note is not None:
        progress.say(alignment.note)
    if alignment.order is None:
        return run
    shape = (8, net.channels, net.image_size, net.image_size)
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    network = reordered(run.network, alignment.order, pixels=pixels)
    if network is None:
        raise ConfigError(
            f"{subject} has the classes of {data} in another order, and which layer of {net.name} "
            "computes the logits is not clear. Number the classes of the data as the run does: "
            f"{', '.join(run.classes[:10])}{', ...' if len(run.classes) > 10 else ''}."
        )
    moved = replace(net, digest=digest(network))
    data_record = run.record.data
    if data_record is not None:
        data_record = replace(data_record, classes=tuple(names))
    record = replace(run.record, net=moved, data=data_record)
    return replace(run, record=record, network=network, stored=run.stored or run.digest)
