"""From a source's name to a data set with its splits."""

from collections.abc import Iterable

from denature.core.errors import DataError
from denature.core.progress import SILENT, Progress
from denature.data.cache import decoded
from denature.data.config import DataConfig
from denature.data.dataset import Dataset
from denature.data.sources import open_source

DEFAULT_HOLDOUT = {"digits": 0.2}


def load(data: "str | DataConfig | Dataset", *, progress: Progress = SILENT) -> Dataset:
    """Load a data set; the first time its images are decoded into the cache.

    Args:
        data: a source's name or path with all defaults, or a full `DataConfig`.
        progress: told about decoding.

    Raises:
        DataError: missing or damaged data, labels out of range, no test split.
    """
    if isinstance(data, Dataset):
        return data
    config = data if isinstance(data, DataConfig) else DataConfig(source=data)
    found = decoded(open_source(config, progress), config, progress)
    splits = dict(found.splits)
    if "train" not in splits:
        raise DataError(f"{config.source} has {_named(splits)} and no training split.")
    train = splits["train"]
    holdout = config.holdout or DEFAULT_HOLDOUT.get(config.source, 0.0)
    if "test" in splits:
        test, origin = splits["test"], "test"
    elif "validation" in splits:
        # Hub copies of ImageNet and its kin have unlabelled test images or none: everybody
        # measures on the validation split, so it plays the test split here and nothing else.
        test, origin = splits.pop("validation"), "validation"
    elif holdout:
        (train, test), origin = train.divide(holdout, "holdout"), "holdout"
    else:
        raise DataError(
            f"{config.source} has {_named(splits)} with labels; nothing to test on. "
            "Hold a share out with --holdout 0.2."
        )
    return Dataset(
        config=config,
        train=train,
        test=test,
        validation=splits.get("validation"),
        classes=found.classes,
        digest=found.digest,
        test_origin=origin,
        holdout=holdout if origin == "holdout" else 0.0,
        skipped=found.skipped,
    )


def _named(splits: Iterable[str]) -> str:
    names = list(splits)
    return f"only the split{'s' if len(names) > 1 else ''} {', '.join(names)}"
