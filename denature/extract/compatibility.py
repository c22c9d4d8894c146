"""Whether a victim and labelled images fit each other: classes, their order, and shape."""

from dataclasses import replace

from denature.core.classes import align
from denature.core.errors import ConfigError
from denature.core.progress import SILENT, Progress
from denature.data.dataset import Dataset
from denature.extract.victims.base import Victim, VictimInfo, run_now
from denature.remote.class_names import FORMS

LARGEST = 512
"""Pixels a side that a victim may claim; 10,000 such images take 8 GB of disk."""


def about_of(victim: Victim) -> VictimInfo:
    """Description of a victim, obtained without a query."""

    async def find_out() -> VictimInfo:
        async with victim:
            return await victim.about()

    return run_now(find_out())


def check_side(about: VictimInfo, given: int | None = None) -> None:
    """Check the size of images that a victim claims, by which memory and disk are filled.

    Args:
        about: description of the victim.
        given: the size that the caller names, which needs no claim.

    Raises:
        ConfigError: the victim claims larger images than `LARGEST`, and the caller names no size.
    """
    if given is None and about.image_size is not None and about.image_size > LARGEST:
        raise ConfigError(
            f"{about.target} takes images of {about.image_size:,} pixels a side, where up to "
            f"{LARGEST} are taken on its word; if this is intended, pass --image-size "
            f"{about.image_size}, or wrap it in a function, package.module:function."
        )


def check_about(about: VictimInfo, dataset: Dataset, *, option: str = "--test") -> None:
    """Check that labelled images fit a victim, so that they can measure it.

    Args:
        about: description of the victim.
        dataset: the labelled images.
        option: which names them.

    Raises:
        ConfigError: the images have other classes or another shape than the victim.
    """
    source = dataset.config.source
    if about.kind is not None and (about.kind == "landmarks") != dataset.landmarks:
        raise ConfigError(
            f"{about.target} answers with {about.kind}, and the labels of {source} are "
            f"{'landmarks' if dataset.landmarks else 'classes'}. Name other labelled images with "
            f"{option}."
        )
    classes = about.classes or len(about.names) or None
    if classes not in (None, len(dataset.classes)):
        raise ConfigError(
            f"{source} has {len(dataset.classes)} classes, {about.target} knows "
            f"{classes}. Name labelled images of its classes with {option}."
        )
    if about.channels not in (None, dataset.channels):
        raise ConfigError(
            f"{source} has images of {dataset.channels} channels, {about.target} takes "
            f"{about.channels}. Name other labelled images with {option}."
        )


def _check_image_size(about: VictimInfo, dataset: Dataset) -> None:
    """Check that a victim takes images of the data's size, which are not scaled for it.

    Raises:
        ConfigError: it takes images of another size.
    """
    if about.image_size not in (None, dataset.image_size):
        raise ConfigError(
            f"{about.target} takes images of {about.image_size} pixels a side, and those of "
            f"{dataset.config.source} have {dataset.image_size}. Pass --image-size "
            f"{about.image_size}."
        )


def fitted(
    about: VictimInfo, dataset: Dataset, progress: Progress = SILENT, *, option: str = "--test"
) -> VictimInfo:
    """Description of a victim, with the order that maps its answers to a data set's classes.

    Raises:
        ConfigError: the victim has other classes or takes other images; see `check_about`.
    """
    check_about(about, dataset, option=option)
    alignment = align(
        about.names or None, dataset.classes, model=about.target, data=dataset.config.source
    )
    if alignment.note is not None and about.unread is not None:
        progress.say(
            f"{about.target} names its classes in a form that is not known here ({about.unread}); "
            f"known are {FORMS}. So they cannot be compared with those of "
            f"{dataset.config.source}, and class 0 of one is taken for class 0 of the other, and "
            "so on. Check that both use the same order."
        )
    elif alignment.note is not None:
        progress.say(alignment.note)
    _check_image_size(about, dataset)
    return replace(about, classes=len(dataset.classes), order=alignment.order)
