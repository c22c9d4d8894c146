"""Folders that `save_to_disk` of Hugging Face `datasets` writes, read without that library."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from denature.core.errors import DataError
from denature.core.untrusted import read_json
from denature.data.config import DataConfig
from denature.data.readers.arrow import SUFFIX
from denature.data.readers.splits import is_keyword, split_of
from denature.data.readers.tables import table_source
from denature.data.source import DataSource

SPLITS, STATE, INFO = "dataset_dict.json", "state.json", "dataset_info.json"


def saved(path: Path, config: DataConfig) -> DataSource | None:
    """A saved `DatasetDict` or `Dataset`, or one of its files of rows, as training data.

    Raises:
        DataError: damaged files, splits or columns that could be read in several ways.
    """
    if path.suffix.lower() == SUFFIX and path.is_file():
        return table_source(path, {"train": [path]}, config, Counter())
    if (path / SPLITS).is_file():
        titles = _names(path / SPLITS, "splits")
    elif (path / STATE).is_file() and (path / INFO).is_file():
        titles = [""]
    else:
        return None
    shards: dict[str, list[Path]] = {}
    left_out: Counter[str] = Counter()
    for title in sorted(titles, key=lambda title: not is_keyword(title)):
        split = split_of(title) if title else "train"
        if split is None or split in shards:
            left_out[f"split {title}"] += 1
        else:
            shards[split] = list(_files(path / title))
    if not shards.get("train"):
        raise DataError(
            f"{path} holds the splits {', '.join(titles) or 'none'}; wanted is train, with rows."
        )
    shards = {split: files for split, files in shards.items() if files}
    return table_source(path, shards, config, left_out)


def _files(folder: Path) -> Iterator[Path]:
    """The files of a data set's rows; others, such as results of `map`, lie beside them."""
    state = folder / STATE
    if _read(state).get("_indices_data_files"):
        raise DataError(
            f"{state} lists rows apart from their files, as early versions of datasets did. Save "
            "the data set again."
        )
    for name in _names(state, "_data_files", suffix=SUFFIX):
        yield folder / name


def _names(file: Path, key: str, *, suffix: str = "") -> list[str]:
    """Names of files or folders in a file's folder.

    Raises:
        DataError: the file holds no such list, or a name leads elsewhere.
    """
    found = _read(file).get(key)
    entries = found if isinstance(found, list) else [None]
    names: list[Any] = [
        entry.get("filename") if isinstance(entry, dict) else entry for entry in entries
    ]
    for name in names:
        good = isinstance(name, str) and name == Path(name).name and name not in ("", "..")
        if not good or not name.endswith(suffix):
            raise DataError(
                f"{file} names {str(name)[:60]!r} under {key}; wanted are names in its folder. "
                "Save the data set again."
            )
    return list(map(str, names))


def _read(file: Path) -> dict[str, object]:
    try:
        found = read_json(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}. Save the data set again.") from None
    return found if isinstance(found, dict) else {}
