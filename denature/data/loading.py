"""Load the data set of a source, with its splits."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from denature.core.errors import ConfigError, DataError, DenatureError, brief
from denature.core.progress import SILENT, Progress
from denature.core.types import Indices
from denature.core.usual import usual
from denature.data.cache import MEMORY, Decoded, decoded, keep, kept
from denature.data.config import DataConfig, ReaderConfig
from denature.data.dataset import Dataset, Split
from denature.data.given import NAME, given_source
from denature.data.landmarks import names_of, places_of, select_points
from denature.data.readers.catalogue import open_source
from denature.data.source import format_left_out

if TYPE_CHECKING:
    from denature.data.given import DataLike

DEFAULT_HOLDOUT = {"digits": 0.2}
GROUPED_HOLDOUT = 0.2
MEMORY_HOLDOUT = 0.2
"""Shares that are held out as test split where none is named."""

_HELD_OUT: dict[str, bool] = {}
"""Sources in memory of which a share is held out by default, and whether a caller was told so."""


def load(
    data: "DataLike",
    *,
    holdout: float = 0.0,
    image_size: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    points: Sequence[str] = (),
    group: str | None = None,
    skip_bad: bool = False,
    classes: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Load a data set; the first time its images are decoded into the cache.

    Args:
        data: a source's name or path, a full `DataConfig`, or data in memory: a pair (images,
            labels) of arrays or tensors, a torch `Dataset` or `DataLoader` of such pairs, a Hugging
            Face `Dataset`; one of them holds training data, of which a share is held out as test
            split, two as (train, test) or a mapping {"train": ..., "test": ...} are splits. Images
            are uint8, or floats in [0, 1]; labels are whole numbers from 0.
        holdout: see `DataConfig` for this and the next six options, which describe all but a
            `DataConfig` and a loaded data set.
        image_size: see there.
        image_column: see there.
        label_column: see there.
        points: see there.
        group: see there.
        skip_bad: see there.
        classes: class names in label order of data in memory; by default those that a data set
            names, or numbers.
        progress: receives the progress of decoding, which is shown by default.

    Raises:
        DataError: missing or damaged data, labels out of range, no test split.
        ConfigError: an option that says nothing about such data.
    """
    progress = usual() if progress is None else progress
    reading = ReaderConfig(
        holdout=holdout,
        image_size=image_size,
        image_column=image_column,
        label_column=label_column,
        points=tuple(points),
        group=group,
        skip_bad=skip_bad,
    )
    if isinstance(data, Dataset):
        _check_unread(data, reading, classes)
        return data
    config = config_of(data, reading, classes=classes, progress=progress)
    found = _chosen(_opened(config, progress, labelled=True), config)
    cut = _cut(found, config)
    if cut.test is None:
        raise DataError(
            f"{config.source} has {_named(found.splits)} with labels; nothing to test on. "
            "Hold a share out with --holdout 0.2."
        )
    if cut.test.landmarks and len(cut.test) < 2:
        raise DataError(
            f"{config.source} has 1 test image, and an error over one has no interval. Bring more, "
            "or leave the test split out and hold a share out with --holdout 0.2."
        )
    if untrained := _untrained(found.classes, cut.train, cut.test):
        progress.say(f"{config.source}: {untrained}")
    return Dataset(
        config=config,
        train=cut.train,
        test=cut.test,
        validation=cut.validation,
        classes=found.classes,
        digest=found.digest,
        test_origin=cut.origin,
        holdout=cut.holdout,
        skipped=found.skipped,
        left_out=found.left_out,
    )


def _untrained(classes: Sequence[str], train: Split, test: Split) -> str:
    """A note on classes without training images, as of labels that start at 1 in one file alone."""
    if train.landmarks:
        return ""
    counts, tested = (
        torch.bincount(split.labels[split.rows], minlength=len(classes)) for split in (train, test)
    )
    empty = (counts == 0).nonzero()[:, 0].tolist()
    if not empty:
        return ""
    names = brief(classes[place] for place in empty)
    return f"no training image is of class {names}; {int(tested[empty].sum()):,} test images are."


def load_images(config: DataConfig, *, progress: Progress = SILENT) -> tuple[Split, str]:
    """The training split that `load` would give, without need of a test split, and the digest.

    Raises:
        DataError: missing or damaged data, or no training split.
    """
    found = _opened(config, progress)
    return _cut(found, config).train, found.digest


def config_of(
    data: "DataLike",
    reading: ReaderConfig | None = None,
    *,
    classes: Sequence[str] | None = None,
    progress: Progress = SILENT,
) -> DataConfig:
    """Data as a source that any process with this cache can load, for what loads it itself.

    Data in memory are converted into the cache, and named there by their digest; so are loaded data
    sets that were changed since.

    Args:
        data: see `load`.
        reading: options of reading a source or data in memory.
        classes: class names of data in memory.
        progress: receives the progress of decoding.

    Raises:
        DataError: data in another form, see `denature.data.given`.
        ConfigError: an option that says nothing about such data.
    """
    if reading is None:
        reading = ReaderConfig()
    if isinstance(data, str | Path):
        if classes is not None:
            raise ConfigError(f"Classes are given for {data}, which names its own; leave them out.")
        config = DataConfig(source=str(data), **asdict(reading))
        if config.source.startswith(MEMORY) and not kept(config, progress).splits.keys() - {
            "train"
        }:
            return _held_out_by_default(config)
        return config
    if isinstance(data, DataConfig | Dataset):
        _check_unread(data, reading, classes)
        if isinstance(data, DataConfig):
            return data
        if loads_again(data):
            return data.config
        return DataConfig(source=keep(given_source(data, data.config), data.config, progress))
    if reading.group is not None:
        raise ConfigError("group is for data whose images have paths; data in memory have none.")
    config = DataConfig(source=NAME, **asdict(reading))
    source = given_source(data, config, classes)
    if source.left_out:  # the cache, from which they are loaded then, does not know of it
        progress.say(f"{NAME}: left out {format_left_out(source.left_out)}")
    config = replace(config, source=keep(source, config, progress))
    return config if source.splits.keys() - {"train"} else _held_out_by_default(config)


def _held_out_by_default(config: DataConfig) -> DataConfig:
    """Data in memory without a test split, of which a share becomes one."""
    if config.holdout:
        return config
    _HELD_OUT.setdefault(config.source, False)
    return replace(config, holdout=MEMORY_HOLDOUT)


def _tell_holdout(config: DataConfig, progress: Progress) -> None:
    """Say once for each data set that a share is held out; not before the data are needed."""
    if _HELD_OUT.get(config.source, True) or config.holdout != MEMORY_HOLDOUT:
        return
    _HELD_OUT[config.source] = progress is not SILENT
    progress.say(
        f"Data without a test split: {MEMORY_HOLDOUT:.0%} of each class is held out, the same "
        "images each time. Give (train, test), or another share by load(..., holdout=0.5)."
    )


def _check_unread(
    data: DataConfig | Dataset, reading: ReaderConfig, classes: Sequence[str] | None
) -> None:
    """Check that no option of reading stands beside data that have theirs."""
    if reading != ReaderConfig() or classes is not None:
        raise ConfigError(
            f"Options of reading were given beside a {type(data).__name__}, which has its own; "
            "give them where it is made."
        )


def loads_again(dataset: Dataset) -> bool:
    """Whether other processes can load this data set, which a caller may have changed in memory."""
    try:
        other = load(dataset.config, progress=SILENT)
    except DenatureError:
        return False
    return (dataset.digest, dataset.classes) == (other.digest, other.classes) and all(
        _same(getattr(dataset, name), getattr(other, name))
        for name in ("train", "validation", "test")
    )


def _same(split: Split | None, other: Split | None) -> bool:
    """Whether two splits hold the same rows, labels and pixels."""
    if split is None or other is None:
        return split is other
    pairs = (
        (split.rows, other.rows),
        (split.labels, other.labels),
        (split.images, other.images),
    )
    return all(a is b or (a.dtype == b.dtype and torch.equal(a, b)) for a, b in pairs)


def _opened(config: DataConfig, progress: Progress, *, labelled: bool = False) -> Decoded:
    """The decoded splits of a source, with what is to be told about them."""
    if config.source.startswith(MEMORY):
        _tell_holdout(config, progress)
        found = kept(config, progress)
    else:
        source = open_source(config, progress)
        if labelled and not source.labelled:
            raise DataError(
                f"The images in {config.source} have no labels. Use them as queries, as the --pool "
                "of `denature steal`; to train on them, put those of each class into a folder of "
                "its own."
            )
        found = decoded(source, config, progress)
    if found.left_out:
        progress.say(f"{config.source}: left out {format_left_out(found.left_out)}")
    for line in found.notes:
        progress.say(f"{config.source}: {line}")
    return found


def _chosen(found: Decoded, config: DataConfig) -> Decoded:
    """The splits with the configured landmarks alone, and names of the coordinates."""
    splits = dict(found.splits)
    if not splits or not next(iter(splits.values())).landmarks:
        if config.points:
            raise ConfigError(f"{config.source} has classes, and points are of landmarks only.")
        return found
    width = next(iter(splits.values())).labels.shape[1]
    known = places_of(width // 2, found.classes)
    for name, split in splits.items():
        labels = torch.from_numpy(select_points(split.labels.numpy(), config.points, known))
        splits[name] = replace(split, labels=labels)
    digest = found.digest
    if config.points:
        digest = hashlib.sha256(f"{digest} {config.points}".encode()).hexdigest()[:16]
    return replace(
        found,
        splits=splits,
        classes=names_of(config.points or [*known][: width // 2]),
        digest=digest,
    )


class SplitRoles(NamedTuple):
    """The splits of a source by role."""

    train: Split
    test: Split | None
    validation: Split | None
    origin: str
    holdout: float


def _cut(found: Decoded, config: DataConfig) -> SplitRoles:
    if config.group is not None:
        holdout = config.holdout or GROUPED_HOLDOUT
        train, test = _grouped(found, config.group, config.source).divide(holdout, "holdout")
        return SplitRoles(train, test, None, "holdout", holdout)
    splits = dict(found.splits)
    if "train" not in splits:
        raise DataError(f"{config.source} has {_named(splits)} and no training split.")
    train = splits["train"]
    brought = "test" if "test" in splits else "validation" if "validation" in splits else None
    if brought is not None:
        if config.holdout:
            raise DataError(
                f"{config.source} brings a {brought} split, so a holdout of {config.holdout:g} "
                f"would hold nothing out. Leave out --holdout to test on the {brought} split."
            )
        # Hub copies of ImageNet and its kin have unlabelled test images or none: publications
        # measure on the validation split, so here it serves as the test split and nothing else.
        validation = splits.get("validation") if brought == "test" else None
        return SplitRoles(train, splits[brought], validation, brought, 0.0)
    holdout = config.holdout or DEFAULT_HOLDOUT.get(config.source, 0.0)
    if holdout:
        train, test = train.divide(holdout, "holdout")
        return SplitRoles(train, test, None, "holdout", holdout)
    return SplitRoles(train, None, None, "none", 0.0)


def _grouped(found: Decoded, pattern: str, source: str) -> Split:
    """All images of all splits as one, with the groups in their paths."""
    paths = list(chain.from_iterable(map(found.paths, found.splits)))
    splits = list(found.splits.values())
    if len(paths) != sum(map(len, splits)):
        raise DataError(
            f"The images of {source} have no paths to be grouped by; leave out --group."
        )
    return Split(
        torch.cat([split.images for split in splits]),
        torch.cat([split.labels for split in splits]),
        torch.arange(len(paths)),
        groups_of(paths, pattern, source),
    )


def groups_of(paths: Sequence[str], pattern: str, source: str) -> Indices:
    """A number for each path, equal where the pattern's group matches the same text.

    Raises:
        DataError: a path does not match the pattern.
    """
    keys = [match[1] if (match := re.search(pattern, path)) else None for path in paths]
    if None in keys:
        missing = paths[keys.index(None)]
        raise DataError(f"--group {pattern!r} finds nothing in {missing!r}, an image of {source}.")
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    return torch.tensor([places[key] for key in keys])


def _named(splits: Iterable[str]) -> str:
    names = list(splits)
    return f"only the split{'s' if len(names) > 1 else ''} {', '.join(names)}"
