"""Parquet shards, and data sets of the Hugging Face hub."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from denature.core.errors import DataError, MissingExtra
from denature.data.columns import Columns, Labels, columns_of, kind_of
from denature.data.config import DataConfig
from denature.data.decode import Encoded
from denature.data.listing import IMAGE_SUFFIXES, list_folder
from denature.data.source import MOST_CLASSES, DataSource, Opener, line_of, stats_of
from denature.data.splits import brief, has_labels, is_keyword, shards_by_split, split_of

CLASS_LIST = "classes.txt"


def has_parquet(folder: Path) -> bool:
    return bool(list_folder(folder, {".parquet"})[0].total)


def parquet(path: Path, config: DataConfig) -> DataSource:
    """Parquet shards as the Hugging Face hub lays out image data sets.

    Raises:
        DataError: damaged files, splits or columns that could be read in several ways.
    """
    files, left_out = [path], Counter[str]()
    if path.is_dir():
        used = {CLASS_LIST, *IMAGE_SUFFIXES}  # rows may name image files
        listing, left_out = list_folder(path, {".parquet"}, used=used)
        files = listing.everything()
    shards = shards_by_split(files, path)
    rows = {file: _rows_of(file) for file in files}
    first = shards.get("train", files)[0]
    columns = columns_of(_schema(first), config, path)
    for split, parts in list(shards.items()):
        if not _compatible(parts, columns, first, trained=split == "train"):
            left_out[f"unlabelled {split} image"] += sum(rows[file] for file in parts)
            del shards[split]
    names = _class_names(_schema(first), columns.label) or _listed_classes(path)
    if columns.kind == "names":
        found = {s: _distinct(parts, columns.label) for s, parts in shards.items()}
        trained = sum(rows[file] for file in shards.get("train", ()))
        names = _named_classes(found.get("train", set()), trained, names, path, columns)
        for split in found:
            if split != "train" and not has_labels(found[split], names, f"The {split} split"):
                left_out[f"unlabelled {split} image"] += sum(rows[f] for f in shards.pop(split))
    elif _is_truth(_schema(first), columns.label):
        names = names or ("False", "True")
    labels = Labels(columns.kind, _numbers(names or ()))
    files = list(chain.from_iterable(shards.values()))
    pictures = [picture for file in files for picture in _pictures(file, columns.image)]
    stats = [(s, *stat) for s, parts in shards.items() for stat in stats_of(parts)]
    return DataSource(
        {split: _opener(parts, columns, labels, split) for split, parts in shards.items()},
        names,
        ("parquet", columns.image, columns.label, names, *stats, *stats_of(pictures)),
        sum(rows[file] for file in files),
        columns.kind == "landmarks",
        left_out=left_out,
    )


def _opener(parts: Sequence[Path], columns: Columns, labels: Labels, split: str) -> Opener:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    def rows() -> Iterator[Encoded]:
        for file in parts:
            number = 0
            try:
                wanted = [columns.image, columns.label]
                for batch in pq.ParquetFile(file).iter_batches(256, columns=wanted):
                    cells = zip(batch[columns.image], batch[columns.label], strict=True)
                    for cell, value in cells:
                        where = f"{file}, row {number}"
                        label = labels.of(value.as_py(), where, trained=split == "train")
                        yield _row(cell.as_py(), label, where, file.parent)
                        number += 1
            except (OSError, ArrowException) as error:
                raise DataError(
                    f"{file} is damaged after row {number}: {line_of(error)}. Copy it again."
                ) from None

    return rows


def _rows_of(file: Path) -> int:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        return int(pq.read_metadata(file).num_rows)
    except (OSError, ArrowException) as error:
        raise DataError(
            f"{file} cannot be read as Parquet: {line_of(error)}. Copy it again: the file may be "
            "cut off."
        ) from None


def _schema(file: Path) -> Any:
    import pyarrow.parquet as pq

    return pq.read_schema(file)


def _compatible(parts: Sequence[Path], columns: Columns, first: Path, *, trained: bool) -> bool:
    """Whether a split's shards have the same columns as the first; False where it has no labels.

    Raises:
        DataError: a shard has other columns.
    """
    from pyarrow import types

    labelled = []
    for file in parts:
        schema = _schema(file)
        missing = {columns.image, columns.label} - set(schema.names)
        absent = columns.label in missing or types.is_null(schema.field(columns.label).type)
        labelled.append(not absent)
        if missing - (set() if trained else {columns.label}):
            raise DataError(
                f"{file} lacks the column {', '.join(sorted(missing))}, which {first} has. "
                "Shards of one data set must have the same columns."
            )
        if not absent:
            _check_names(schema, columns.label, file, first)
        if not absent and kind_of(kind := schema.field(columns.label).type) != columns.kind:
            raise DataError(
                f"The column {columns.label} of {file} is {kind}, of {first} "
                f"{_schema(first).field(columns.label).type}. Shards of one data set must have "
                "labels of one kind."
            )
    if trained or all(labelled):
        return True
    if any(labelled):
        raise DataError(
            f"{brief(str(f) for f, good in zip(parts, labelled, strict=True) if not good)} has no "
            f"labels in the column {columns.label}, and other shards of that split do."
        )
    return False


def _distinct(parts: Iterable[Path], column: str) -> set[str]:
    """The names in a column, without those that are absent."""
    import pyarrow.parquet as pq

    found: set[str | None] = set()
    for file in parts:
        for chunk in pq.ParquetFile(file).read([column])[column].chunks:
            found.update(chunk.unique().to_pylist())
    return {name for name in found if name is not None}


def _named_classes(
    found: set[str],
    images: int,
    listed: tuple[str, ...] | None,
    where: object,
    columns: Columns,
) -> tuple[str, ...]:
    """Class names in the order of `listed`, where there is a list, else sorted."""
    # A text that is unique to nearly every image is a caption or the name of a file.
    if len(found) > MOST_CLASSES or (columns.guessed and 2 * len(found) > images):
        raise DataError(
            f"The column {columns.label} of {where} holds {len(found):,} different texts for "
            f"{images:,} images, too many for classes. Name the column of the labels with "
            "--label-column."
        )
    if listed is None:
        return tuple(sorted(found))
    if strange := sorted(found - _numbers(listed).keys()):
        raise DataError(
            f"The column {columns.label} of {where} holds {brief(strange)}, which the list of "
            f"classes ({brief(listed)}) lacks. Correct the list, or remove it."
        )
    return listed


def _numbers(classes: Iterable[str]) -> dict[str, int]:
    """Labels by name; of a line in a list such as `n01443537<tab>goldfish` the first word too."""
    numbers: dict[str, int] = {}
    for label, name in enumerate(classes):
        numbers.setdefault(name.split("\t")[0], label)
        numbers[name] = label
    return numbers


def _is_truth(schema: Any, label: str) -> bool:
    from pyarrow import types

    return bool(types.is_boolean(schema.field(label).type))


def _pictures(file: Path, image: str) -> Iterator[Path]:
    """Image files that rows name; the cache must change with them."""
    import pyarrow.parquet as pq
    from pyarrow import types

    kind = _schema(file).field(image).type
    if types.is_string(kind) or types.is_large_string(kind):
        paths = pq.ParquetFile(file).read([image])[image].to_pylist()
    elif types.is_struct(kind) and _names_files(file, image):
        cells = pq.ParquetFile(file).read([f"{image}.path"])[image].to_pylist()
        paths = [cell and cell.get("path") for cell in cells]
    else:
        return
    for path in paths:
        if path and (picture := file.parent / path).is_file():
            yield picture


def _names_files(file: Path, image: str) -> bool:
    """Whether some rows of {bytes, path} have no bytes, by the statistics in the file."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(file)
    leaves = metadata.schema
    names = [leaves.column(place).path for place in range(len(leaves))]
    if f"{image}.path" not in names:
        return False
    place = names.index(f"{image}.bytes")
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(place).statistics
        if statistics is None or not statistics.has_null_count or statistics.null_count:
            return True
    return False


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
    splits: dict[str, Any] = {}
    left_out: Counter[str] = Counter()
    for title in sorted(loaded, key=lambda title: not is_keyword(title)):
        split = split_of(title)
        if split is None or split in splits:
            left_out[f"image of the split {title}"] += len(loaded[title])
        else:
            splits[split] = loaded[title]
    if "train" not in splits:
        raise DataError(f"{config.source} has the splits {', '.join(loaded)}; wanted is train.")
    first = splits["train"]
    columns = columns_of(first.features.arrow_schema, config, config.source)
    names = tuple(getattr(first.features[columns.label], "names", None) or ()) or None
    if columns.kind == "names":
        found = {s: set(part.unique(columns.label)) - {None} for s, part in splits.items()}
        names = _named_classes(found["train"], len(first), names, config.source, columns)
        for split in found:
            if split != "train" and not has_labels(found[split], names, f"The {split} split"):
                left_out[f"unlabelled {split} image"] += len(splits.pop(split))
    labels = Labels(columns.kind, _numbers(names or ()))

    def read(split: str) -> Opener:
        encoded = splits[split].cast_column(columns.image, datasets.Image(decode=False))

        def rows() -> Iterator[Encoded]:
            for number, row in enumerate(encoded):
                where = f"{config.source}, row {number}"
                label = labels.of(row[columns.label], where, trained=split == "train")
                yield _row(row[columns.image], label, where, None)

        return rows

    prints = [(split, part._fingerprint) for split, part in splits.items()]
    return DataSource(
        {split: read(split) for split in splits},
        names,
        ("hub", name, columns.image, columns.label, names, *prints),
        sum(map(len, splits.values())),
        columns.kind == "landmarks",
        left_out=left_out,
    )


def _row(cell: Any, label: Any, where: str, folder: Path | None) -> Encoded:
    """Read a cell, which is {bytes, path}, bytes, or a path.

    A path must lie inside `folder`, that of the file that names it: data must not be able to read
    other files. None stands for paths that the caller's own library made.
    """
    path = ""
    if isinstance(cell, Mapping):
        path, cell = str(cell.get("path") or ""), cell.get("bytes")
        cell = (path or None) if cell is None else cell
    if isinstance(cell, str):
        if folder is None:
            return Encoded(Path(cell), label, where, cell)
        file = (folder / cell).resolve()
        if not file.is_relative_to(folder.resolve()):
            raise DataError(f"{where} points to {cell}, outside of {folder}; refused.")
        return Encoded(file, label, f"{where} ({cell})", cell)
    if cell is None:
        raise DataError(f"{where} holds neither image bytes nor a path.")
    return Encoded(cell, label, where, path)


def _check_names(schema: Any, label: str, file: Path, first: Path) -> None:
    """Check that class numbers have the same meaning in a shard as in the first shard.

    Raises:
        DataError: the shard has other classes, or another order of them; or one of the two shards
            holds truth values and the other numbers.
    """
    other = _schema(first)
    names, first_names = _class_names(schema, label), _class_names(other, label)
    if names is not None and first_names is not None and names != first_names:
        raise DataError(
            f"The classes of {file} are {brief(names)}, of {first} {brief(first_names)}; one "
            "number would stand for two classes. Write all splits with the same list of names."
        )
    if label in other.names and _is_truth(schema, label) != _is_truth(other, label):
        raise DataError(
            f"The column {label} holds truth values in one of {file} and {first} and numbers in "
            "the other. Shards of one data set must have labels of one kind."
        )


def _class_names(schema: Any, label: str) -> tuple[str, ...] | None:
    """Class names from the metadata that `datasets` writes into a Parquet file."""
    try:
        info = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]
        return tuple(map(str, info["names"]))
    except (KeyError, TypeError, ValueError):
        return None


def _listed_classes(path: Path) -> tuple[str, ...] | None:
    """Class names from a `classes.txt` beside the shards, one a line in label order."""
    listed = path / CLASS_LIST if path.is_dir() else path.with_name(CLASS_LIST)
    if not listed.is_file():
        return None
    lines = listed.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(
            f"{listed} names {brief(repeated)} more than once; a class has one name. Correct the "
            "list."
        )
    return names
