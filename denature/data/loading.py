"""From a source's name to a data set with its splits."""

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
    found = decoded(open_source(config), config, progress)
    splits = dict(found.splits)
    train = splits["train"] if "train" in splits else next(iter(splits.values()))
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
            f"{config.source} has only the split{'s' if len(splits) > 1 else ''} "
            f"{', '.join(splits)}; nothing to test on. Hold a share out with --holdout 0.2."
        )
    return Dataset(
        config=config,
        train=train,
        test=test,
        validation=splits.get("validation"),
        classes=found.classes,
        digest=found.digest,
        test_origin=origin,
        skipped=found.skipped,
    )
