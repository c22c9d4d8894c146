"""Load the data set of a source, with its splits."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import torch

from denature.core.errors import ConfigError, DataError, brief
from denature.core.progress import SILENT, Progress
from denature.core.types import Indices
from denature.data.cache import Decoded, decoded
from denature.data.config import DataConfig
from denature.data.dataset import Dataset, Split
from denature.data.landmarks import names_of, places_of, select_points
from denature.data.readers.catalogue import open_source
from denature.data.source import DataSource, format_left_out

DEFAULT_HOLDOUT = {"digits": 0.2}
GROUPED_HOLDOUT = 0.2


def load(data: "str | DataConfig | Dataset", *, progress: Progress = SILENT) -> Dataset:
    """Load a data set; the first time its images are decoded into the cache.

    Args:
        data: a source's name or path with all defaults, or a full `DataConfig`.
        progress: receives the progress of decoding.

    Raises:
        DataError: missing or damaged data, labels out of range, no test split.
    """
    if isinstance(data, Dataset):
        return data
    config = data if isinstance(data, DataConfig) else DataConfig(source=data)
    source = open_source(config, progress)
    if not source.labelled:
        raise DataError(
            f"The images in {config.source} have no labels. Use them as queries, as the --pool of "
            "`denature steal`; to train on them, put those of each class into a folder of its own."
        )
    found = _chosen(_decoded(source, config, progress), config)
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
    found = _decoded(open_source(config, progress), config, progress)
    return _cut(found, config).train, found.digest


def _decoded(source: DataSource, config: DataConfig, progress: Progress) -> Decoded:
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
