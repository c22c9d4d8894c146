"""Data that a caller has in memory: arrays, torch's data sets and loaders, Hugging Face's.

Everything becomes a `DataSource`, which the cache decodes as it decodes files.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)
from torch.utils.data import Dataset as TorchDataset

from denature.core.errors import DataError, brief
from denature.core.text import line_of
from denature.data.config import DataConfig
from denature.data.dataset import Dataset, Split
from denature.data.decode import DecodedBlock
from denature.data.readers.columns import IMAGE_NAMES, LABEL_NAMES
from denature.data.readers.hub import hub_tables
from denature.data.readers.pixels import as_uint8
from denature.data.readers.splits import SPELT, is_keyword, split_of
from denature.data.source import MOST_CLASSES, DataSource, Opener, no_label

if TYPE_CHECKING:
    from denature.core.types import Images

NAME = "the given data"
"""Name of data in memory in messages."""

BATCH = 256
"""Images that are converted at once."""

PROBED = 8
"""Images that are read twice, since a data set must give the same ones each time."""

BATCH_NAMES = {"image": (*IMAGE_NAMES, "images", "pixel_values"), "label": LABEL_NAMES}
"""Keys of the two parts of a sample that is a mapping."""

ArrayLike: TypeAlias = np.ndarray | torch.Tensor | Sequence[Any]


class HubDataset(Protocol):
    """What is used of `datasets.Dataset`."""

    features: Any

    def cast_column(self, column: str, feature: Any) -> Any: ...


GivenSplit: TypeAlias = (
    tuple[ArrayLike, ArrayLike] | TorchDataset[Any] | DataLoader[Any] | HubDataset
)
"""Images with their labels."""

DataLike: TypeAlias = (
    str
    | Path
    | DataConfig
    | Dataset
    | GivenSplit
    | tuple[GivenSplit, GivenSplit]
    | Mapping[str, GivenSplit]
)
"""Data as functions take them: a value of `--data`, a loaded data set, or a split; a pair of
splits is training and test data, and a mapping names its splits."""


def given_source(
    data: object, config: DataConfig, classes: Sequence[str] | None = None
) -> DataSource:
    """Data in memory as a source; nothing is converted yet.

    Args:
        data: see `DataLike`; uint8 images or floats in [0, 1], and whole numbers as labels.
        config: options of reading, for data sets of Hugging Face.
        classes: class names in label order; by default those that a data set names.

    Raises:
        DataError: data of another form.
    """
    if isinstance(data, Dataset):
        return _changed(data)
    splits = _splits(data)
    if all(_is_hub(split) for split in splits.values()):
        if classes is not None:
            raise DataError(
                "Data sets of Hugging Face name their classes themselves; leave out `classes`, or "
                "cast the column of labels to ClassLabel(names=...)."
            )
        return hub_tables(splits, config, ())
    named = tuple(classes) if classes is not None else _names_of_all(splits)
    return DataSource(
        {split: _opener(given, f"the {split} split") for split, given in splits.items()},
        named,
        (),
    )


def _splits(data: object) -> dict[str, Any]:
    """The splits by name."""
    if isinstance(data, Mapping):
        if not _is_hub(next(iter(data.values()), None)):
            strange = [name for name in data if not is_keyword(str(name))]
            if strange or len({split_of(str(name)) for name in data}) < len(data):
                raise DataError(
                    f"The given splits are {brief(map(str, data))}; wanted are train and test, and "
                    f"validation where there is one (the words are {SPELT})."
                )
            data = {str(split_of(str(name))): given for name, given in data.items()}
        if "train" not in data:
            raise DataError(
                f"The given splits are {brief(map(str, data)) or 'none'}; wanted is train."
            )
        return dict(data)
    if _is_pair_of_splits(data):
        train, test = cast(tuple[Any, Any], data)
        return {"train": train, "test": test}
    if not _is_split(data):
        raise DataError(
            f"Data is {type(data).__name__}; wanted is a source's name or path, a pair (images, "
            "labels), a torch Dataset or DataLoader of such pairs, a Hugging Face Dataset, or "
            "several of them as (train, test) or {'train': ..., 'test': ...}."
        )
    return {"train": data}


def _is_split(data: object) -> bool:
    return (
        isinstance(data, TorchDataset | DataLoader)
        or _is_hub(data)
        or (isinstance(data, tuple | list) and len(data) == 2)
    )


def _is_pair_of_splits(data: object) -> bool:
    """Whether a pair is training and test data, and not images and labels."""
    if not isinstance(data, tuple | list) or len(data) != 2:
        return False
    if any(isinstance(part, TorchDataset | DataLoader) or _is_hub(part) for part in data):
        return True
    # Two images in a list have a shape each too, but two labels have none.
    return all(
        isinstance(part, tuple | list) and len(part) == 2 and np.ndim(_plain(part[0])) >= 3
        for part in data
    )


def _is_hub(data: object) -> bool:
    """Whether this is a data set of Hugging Face; its library is not imported for that.

    Raises:
        DataError: it is streamed, and so has no rows that could be read again.
    """
    library = sys.modules.get("datasets")
    if library is None:
        return False
    if isinstance(data, library.IterableDataset):
        raise DataError(
            "A streamed data set of Hugging Face was given; wanted is one with rows. Load it "
            "without streaming=True, or take its first rows by Dataset.from_list(list(...))."
        )
    return isinstance(data, library.Dataset)


def _opener(split: Any, where: str) -> Opener:
    """Blocks of a split, the same each time.

    Raises:
        DataError: rows that differ from pass to pass.
    """
    if _is_hub(split):
        raise DataError(
            f"Of the given data {where} is a data set of Hugging Face, and another split is not. "
            "Give all splits in one form."
        )
    if isinstance(split, DataLoader):
        loader = _in_order(split, where)
    elif isinstance(split, TorchDataset):
        if not isinstance(split, IterableDataset):
            _check_repeatable(split, where)
        loader = DataLoader(split, BATCH, collate_fn=list, generator=torch.Generator())
        return lambda: (_block(_stacked(rows, where), where) for rows in loader)
    else:
        images, labels = split
        return lambda: _pieces(images, labels, where)
    return lambda: (_block(_parts(batch, where), where) for batch in loader)


def _in_order(loader: DataLoader[Any], where: str) -> DataLoader[Any]:
    """A loader of the same rows in their order, each once.

    Raises:
        DataError: its rows are drawn, and so are others in each pass.
    """
    rows = loader.dataset
    if isinstance(rows, IterableDataset):
        return loader
    sampler, batches = loader.sampler, type(loader.batch_sampler)
    shuffled = (
        isinstance(sampler, RandomSampler)
        and not sampler.replacement
        and sampler.num_samples == len(rows)  # type: ignore[arg-type]
    )
    usual = shuffled or type(sampler) is SequentialSampler
    if not usual or batches not in (BatchSampler, type(None)):
        raise DataError(
            f"The loader of {where} draws its rows with {type(sampler).__name__}, so that each "
            "pass could be another data set. Give a loader of torch.utils.data.Subset(dataset, "
            "rows) without a sampler."
        )
    _check_repeatable(rows, where)
    return DataLoader(
        rows,
        loader.batch_size,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        generator=torch.Generator(),
    )


def _check_repeatable(rows: TorchDataset[Any], where: str) -> None:
    """Check that rows are the same each time, by the first ones.

    Raises:
        DataError: they differ.
    """
    for number in range(min(PROBED, len(rows))):  # type: ignore[arg-type]
        first, second = (as_array(_parts(rows[number], where)[0]) for _ in range(2))
        if not np.array_equal(first, second, equal_nan=first.dtype.kind == "f"):
            raise DataError(
                f"Image {number} of {where} differs when it is read twice. Leave random transforms "
                "out of the data set; `augment` makes views while a network trains."
            )


def _parts(sample: Any, where: str) -> tuple[Any, Any]:
    """Image and label of a sample or of a batch."""
    if isinstance(sample, Mapping):
        found = [
            next((sample[name] for name in names if name in sample), None)
            for names in BATCH_NAMES.values()
        ]
        if any(part is None for part in found):
            raise DataError(
                f"A sample of {where} has the keys {brief(map(str, sample))}; wanted are image and "
                "label."
            )
        return found[0], found[1]
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        held = f"{len(sample)} parts" if isinstance(sample, tuple | list) else type(sample).__name__
        raise DataError(f"A sample of {where} is {held}; wanted is a pair of image and label.")
    return sample[0], sample[1]


def _stacked(rows: Sequence[Any], where: str) -> tuple[np.ndarray, list[Any]]:
    """Samples as a batch."""
    pairs = [_parts(row, where) for row in rows]
    images = [as_array(image) for image, _ in pairs]
    shapes = sorted({image.shape for image in images})
    if len(shapes) > 1:
        raise DataError(
            f"Images of {where} have the shapes {brief(map(str, shapes))}; wanted is one. Resize "
            "them in a transform of the data set."
        )
    return np.stack(images), [_plain(label) for _, label in pairs]


def _pieces(images: Any, labels: Any, where: str) -> Iterator[DecodedBlock]:
    """Blocks of arrays."""
    if isinstance(images, list | tuple):
        pixels, _ = _stacked([(image, 0) for image in images], where)
    else:
        pixels = as_array(images)
    classes = _labels(labels, where)
    if pixels.ndim not in (3, 4) or len(pixels) != len(classes):
        raise DataError(
            f"The images of {where} have the shape {pixels.shape}, and there are {len(classes):,} "
            "labels; wanted are as many images as labels, n x size x size, n x size x size x "
            "channels or n x channels x size x size."
        )
    for start in range(0, len(pixels), BATCH):
        piece = pixels[start : start + BATCH]
        shown = as_uint8(piece, f"The array of images of {where}", pixels.shape)
        yield DecodedBlock(shown, classes[start : start + BATCH])


def _block(batch: tuple[Any, Any], where: str) -> DecodedBlock:
    pixels, labels = as_array(batch[0]), _labels(batch[1], where)
    if len(pixels) != len(labels):
        raise DataError(f"A batch of {where} has {len(pixels)} images and {len(labels)} labels.")
    return DecodedBlock(as_uint8(pixels, f"A batch of images of {where}"), labels)


def _labels(labels: Any, where: str) -> np.ndarray:
    """int64, one each.

    Raises:
        DataError: they are something else.
    """
    numbers = as_array(labels)
    if numbers.ndim > 1 and numbers.size == len(numbers):
        numbers = numbers.reshape(-1)
    if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer):
        hint = " Where they are one-hot, pass labels.argmax(1)."
        if numbers.ndim == 1:
            hint = " Convert them with .astype(int)." if numbers.dtype.kind == "f" else ""
        raise DataError(
            f"The labels of {where} are {numbers.dtype} of the shape {numbers.shape}; wanted is a "
            f"whole number from 0 for each image.{hint}"
        )
    if len(numbers) and not -1 <= numbers.min() <= numbers.max() <= MOST_CLASSES:
        strange = numbers[(numbers < -1) | (numbers > MOST_CLASSES)]
        raise no_label(int(strange[0]), f"The labels of {where}")
    return numbers.astype(np.int64)


def _plain(values: Any) -> Any:
    """Tensors as arrays, and all else unchanged."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype is torch.bfloat16 else values).numpy()
    return values


def as_array(values: Any) -> np.ndarray:
    """An array of a tensor, a picture of Pillow, a list of numbers, or anything like an array."""
    mode = getattr(values, "mode", None)
    if isinstance(mode, str) and mode not in ("L", "RGB") and hasattr(values, "convert"):
        values = values.convert("RGB")  # palettes and transparency are no pixels
    try:
        return np.asarray(_plain(values))
    except (TypeError, ValueError) as error:
        raise DataError(f"{type(values).__name__} is no array: {line_of(error)}.") from None


def _names_of_all(splits: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The class names of the training split, which no other split contradicts.

    Raises:
        DataError: another split has other names, or another order of them.
    """
    named = _class_names(splits["train"])
    for split, given in splits.items():
        other = _class_names(given)
        if named is not None and other is not None and other != named:
            raise DataError(
                f"The classes of the {split} split are {brief(other)}, of the train split "
                f"{brief(named)}; one number would stand for two classes. Give all splits the "
                "same classes, or pass `classes` where the numbers mean the same in all of them."
            )
    return named


def _class_names(split: Any) -> tuple[str, ...] | None:
    """Names that torchvision's data sets have in `classes`, also of a part of one."""
    rows = split.dataset if isinstance(split, DataLoader) else split
    while isinstance(rows, Subset):
        rows = rows.dataset
    names = getattr(rows, "classes", None)
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        return tuple(names) or None
    return None


def _changed(data: Dataset) -> DataSource:
    """A loaded data set whose splits a caller has changed, with the rows that are left."""
    splits = {"train": data.train, "validation": data.validation, "test": data.test}

    def opener(split: Split) -> Opener:
        def blocks() -> Iterable[DecodedBlock]:
            images: Images = split.images
            for rows in split.rows.split(BATCH):
                yield DecodedBlock(images[rows].numpy(), split.labels[rows].numpy())

        return blocks

    return DataSource(
        {name: opener(split) for name, split in splits.items() if split is not None},
        # Names of coordinates follow from those of the points.
        tuple(dict.fromkeys(name.rpartition(".")[0] for name in data.classes))
        if data.landmarks
        else data.classes,
        (),
        landmarks=data.landmarks,
    )
