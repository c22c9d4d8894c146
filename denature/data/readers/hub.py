"""Data sets of Hugging Face `datasets`: from the hub, or as a caller has them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from denature.core.errors import DataError, MissingExtra
from denature.core.text import line_of
from denature.data.config import DataConfig
from denature.data.decode import Encoded
from denature.data.readers.cells import LabelDecoder, encoded_image, given_values
from denature.data.readers.columns import check_same_labels, class_names, columns_of, is_unlabelled
from denature.data.readers.naming import LabelColumn, classes_of, numbers_of
from denature.data.readers.splits import is_keyword, split_of
from denature.data.source import DataSource, Opener


def hub(config: DataConfig) -> DataSource:
    """Open hf:owner/name through Hugging Face `datasets`, without code of the data set."""
    try:
        import datasets
    except ImportError:
        raise MissingExtra("datasets", "hub", f"Loading {config.source}") from None
    name = config.source.removeprefix("hf:")
    try:
        loaded = datasets.load_dataset(name)
    except Exception as error:  # the library raises a dozen kinds, from network to parser
        raise DataError(f"{config.source} could not be loaded: {line_of(error)}.") from None
    return hub_tables(loaded, config, ("hub", name), _caches(name))


def _caches(name: str) -> list[Path]:
    """Where the library keeps the files of a data set, and what it extracted of any."""
    from datasets import config
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return [
        Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="dataset"),
        Path(config.HF_DATASETS_CACHE) / name.replace("/", "___"),
        Path(config.EXTRACTED_DATASETS_PATH),
    ]


def hub_tables(
    loaded: Mapping[str, Any],
    config: DataConfig,
    origin: tuple[Any, ...],
    folders: Sequence[Path] | None = None,
) -> DataSource:
    """Splits of Hugging Face `datasets` as a source.

    Args:
        loaded: data sets by the names of splits.
        config: names the columns, where several could hold images or labels.
        origin: beginning of the fingerprint.
        folders: where paths in cells must lie; None for any place, of data that the caller made.

    Raises:
        DataError: there is no split to train on, or a column could be read in several ways.
    """
    import datasets

    splits: dict[str, Any] = {}
    left_out: Counter[str] = Counter()
    for title in sorted(loaded, key=lambda title: not is_keyword(title)):
        split = split_of(title)
        if split is None or split in splits:
            left_out[f"image of the split {title}"] += len(loaded[title])
        else:
            splits[split] = loaded[title].with_format(None)
    if "train" not in splits:
        raise DataError(f"{config.source} has the splits {', '.join(loaded)}; wanted is train.")
    first = splits["train"]
    schema = first.features.arrow_schema
    columns = columns_of(schema, config, config.source)
    for split, part in list(splits.items()):
        if is_unlabelled(part.features.arrow_schema, columns.label):
            left_out[f"unlabelled {split} image"] += len(splits.pop(split))
            continue
        check_same_labels(
            part.features.arrow_schema,
            schema,
            columns.label,
            f"the {split} split of {config.source}",
            "the train split",
        )
    held = {
        split: LabelColumn(
            where=config.source,
            rows=len(part),
            distinct=partial(_distinct, part, columns.label),
            batches=partial(_cells, part, columns.label),
        )
        for split, part in splits.items()
    }
    listed = class_names(schema, columns.label) or None
    names, unlabelled = classes_of(held, columns, schema, listed, config.source)
    for split in unlabelled:
        left_out[f"unlabelled {split} image"] += len(splits.pop(split))
    labels = LabelDecoder(columns.kind, numbers_of(names or ()))

    def read(split: str) -> Opener:
        rows_of_split = splits[split].cast_column(columns.image, datasets.Image(decode=False))

        def rows() -> Iterator[Encoded]:
            for number, row in enumerate(rows_of_split):
                where = f"{config.source}, row {number}"
                label = labels.of(row[columns.label], where, trained=split == "train")
                yield encoded_image(row[columns.image], label, where, folders)

        return rows

    prints = [(split, part._fingerprint) for split, part in splits.items()]
    return DataSource(
        {split: read(split) for split in splits},
        names,
        (*origin, columns.image, columns.label, names, *prints),
        sum(map(len, splits.values())),
        columns.kind == "landmarks",
        left_out=left_out,
        notes=columns.notes,
    )


def _distinct(rows: Any, column: str) -> set[Any]:
    """The names or numbers in a column."""
    return given_values(rows.unique(column))


def _cells(rows: Any, column: str) -> Iterator[Any]:
    """A column of the hub's rows, in batches."""
    import pyarrow as pa

    table = rows.select_columns(column)
    for start in range(0, len(table), 4096):
        yield pa.array(table[start : start + 4096][column])
