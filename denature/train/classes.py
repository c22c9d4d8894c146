"""Runs that meet data, or other runs, whose classes have the same names in another order."""

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
from denature.train.job import check_shape
from denature.train.run import Run, check_alike


@final
class ClassMatcher:
    """Opens runs for one data set; each comes back with its answers in the order of the classes.

    A run that is opened twice comes back as one run, and what there is to tell is told once.

    Args:
        dataset: whose classes.
        progress: told where an order changes, or names cannot be compared.
    """

    def __init__(self, dataset: Dataset, progress: Progress = SILENT) -> None:
        self._dataset, self._progress = dataset, progress
        self._opened: dict[Run, Run] = {}

    def __call__(self, role: str, run: Run) -> Run:
        """The run, whose answers are about the data's classes in their order.

        Raises:
            ConfigError: it is a run on data of another shape, or of other classes.
        """
        if run not in self._opened:
            data = self._dataset
            check_shape(role, run, data)
            self._opened[run] = in_order(
                run, data.classes, role=role, data=data.config.source, progress=self._progress
            )
        return self._opened[run]


def alike(role: str, run: Run, other: Run, *, progress: Progress = SILENT) -> Run:
    """A run that answers about the classes of another, in their order there.

    Raises:
        ConfigError: they take other images, or know other classes.
    """
    check_alike(run, other)
    where = str(other.folder or other.record.net.name)
    return in_order(run, other.classes, role=role, data=where, progress=progress)


def in_order(
    run: Run, names: Sequence[str], *, role: str, data: str, progress: Progress = SILENT
) -> Run:
    """A run whose network answers in the order of these class names.

    Args:
        run: as it lies in its folder.
        names: as many as it knows classes.
        role: what it is here, for messages.
        data: what the names are of, for messages.
        progress: told where the order changes, or names cannot be compared.

    Raises:
        ConfigError: other names, or a network whose last layer is not known.
    """
    net = run.record.net
    who = f"The {role} {run.folder or net.name}"
    found = align(run.class_names, names, who=who, data=data)
    if found.note is not None:
        progress.say(found.note)
    if found.order is None:
        return run
    shape, chance = (8, net.channels, net.image_size, net.image_size), torch.Generator()
    pixels = torch.rand(shape, generator=chance.manual_seed(0))
    network = reordered(run.network, found.order, pixels=pixels)
    if network is None:
        raise ConfigError(
            f"{who} knows the classes of {data} in another order, and which layer of {net.name} "
            "gives the answers is not clear. Number the classes of the data as the run does: "
            f"{', '.join(run.classes[:10])}{', ...' if len(run.classes) > 10 else ''}."
        )
    moved = replace(net, digest=digest(network))
    seen = run.record.data
    record = replace(
        run.record, net=moved, data=None if seen is None else replace(seen, classes=tuple(names))
    )
    return replace(run, record=record, network=network, stored=run.stored or run.digest)
