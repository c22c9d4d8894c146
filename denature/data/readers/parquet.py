"""Parquet shards as the Hugging Face hub lays out image data sets."""

from collections import Counter
from pathlib import Path

from denature.data.config import DataConfig
from denature.data.listing import IMAGE_SUFFIXES, list_folder
from denature.data.readers.naming import CLASS_LIST
from denature.data.readers.splits import shards_by_split
from denature.data.readers.tables import table_source
from denature.data.source import DataSource


def parquet(path: Path, config: DataConfig) -> DataSource | None:
    """Parquet shards as the Hugging Face hub lays out image data sets.

    Raises:
        DataError: damaged files, splits or columns that could be read in several ways.
    """
    if path.suffix.lower() != ".parquet" and not (path.is_dir() and _has_parquet(path)):
        return None
    files, left_out = [path], Counter[str]()
    if path.is_dir():
        used = {CLASS_LIST, *IMAGE_SUFFIXES}  # rows may name image files
        listing, left_out = list_folder(path, {".parquet"}, used=used)
        files = listing.everything()
    return table_source(path, shards_by_split(files, path), config, left_out)


def _has_parquet(folder: Path) -> bool:
    return bool(list_folder(folder, {".parquet"})[0].total)
