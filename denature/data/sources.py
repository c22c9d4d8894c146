"""Where images come from: what each layout on disk means, as splits of encoded or decoded images.

A reader finds out which splits, classes and files there are without decoding a pixel; the cache
asks for the images once.
"""

import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np

from denature.core.errors import DataError, MissingExtra, unknown
from denature.core.progress import SILENT, Progress
from denature.data.config import DataConfig
from denature.data.decode import Block, Encoded
from denature.data.download import PUBLISHED, fetched
from denature.data.landmarks import PLACES, coordinates

Opener: TypeAlias = Callable[[], Iterable[Encoded] | Iterable[Block]]

SPLITS = {"train": "train", "test": "test", "valid": "validation", "val": "validation"}
SPLITS |= {"validation": "validation", "dev": "validation", "eval": "validation"}

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
MOST_CLASSES = 100_000
"""A larger label is an identifier or a time in the wrong column."""

LABEL_NAMES = ("keypoints", "landmarks", "label", "labels", "fine_label", "target", "class", "y")


@dataclass(frozen=True, slots=True)
class Source:
    """A data set that has not been read yet."""

    splits: Mapping[str, Opener]
    """Of train, test and validation those that exist."""
    classes: tuple[str, ...] | None
    """Class names in label order, or names of landmarks; None where the source has none."""
    fingerprint: tuple[Any, ...]
    """Changes when the files do; cheap."""
    total: int | None = None
    """Images in all splits, where that is known beforehand."""
    landmarks: bool = False
    """Whether labels are coordinates, not classes."""
    labelled: bool = True
    """Whether there are labels; without, images can be asked about and nothing more."""


def open_source(config: DataConfig, progress: Progress = SILENT) -> Source:
    """Find out what `config.source` is; one that its authors publish is fetched the first time.

    Raises:
        DataError: there is nothing there, or nothing that holds images and labels.
    """
    name = config.source
    if name in NAMED:
        return NAMED[name]()
    if name.startswith("hf:"):
        return hub(config)
    path = Path(name).expanduser()
    if not path.exists() and name in PUBLISHED:
        path = fetched(name, progress)
    if not path.exists():
        if re.fullmatch(r"[\w-]+", name):
            error = unknown("data set", name, {*NAMED, *PUBLISHED})
            raise DataError(f"{error} There is no file or folder {path.absolute()} either.")
        raise DataError(f"There is no file or folder {path.absolute()}.")
    if path.suffix == ".npz":
        return npz(path)
    from denature.data.archives import archived

    if (found := archived(path)) is not None:
        return found
    if path.suffix == ".parquet" or any(path.rglob("*.parquet")):
        return parquet(path, config)
    if path.is_dir():
        return image_folder(path)
    raise DataError(
        f"{path} is no folder, .npz, .parquet or published archive. Data can be: "
        f"{', '.join((*NAMED, *PUBLISHED))}; a folder of Parquet shards or of images; an .npz; an "
        "archive of CIFAR or Tiny-ImageNet; hf:owner/name."
    )


def digits() -> Source:
    """scikit-learn's digits: 1,797 handwritten digits, 8x8, grey; inside its wheel."""

    def blocks() -> Iterator[Block]:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        pixels = np.rint(images.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
        yield Block(pixels, labels.astype(np.int64))

    return Source({"train": blocks}, tuple("0123456789"), ("digits", 1), 1797)


def drawn_faces() -> Source:
    """Cartoons of faces with five landmarks, 64x64, in colour; drawn here."""
    from denature.data import drawn

    openers = {split: partial(drawn.blocks, split) for split in drawn.PEOPLE}
    total = drawn.FRAMES * sum(drawn.PEOPLE.values())
    return Source(openers, PLACES, ("drawn-faces", 1), total, landmarks=True)


NAMED: Mapping[str, Callable[[], Source]] = {"digits": digits, "drawn-faces": drawn_faces}


def npz(path: Path) -> Source:
    """An .npz with x_train, y_train and, unless something is held out, x_test, y_test.

    Images are uint8, or floats in [0, 1]; n x h x w, n x h x w x c or n x c x h x w with c of 1, 3.
    """

    def read_arrays(*wanted: str) -> list[np.ndarray]:
        try:
            # Opened here, because NumPy leaves a damaged file open.
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                return [archive[name] for name in wanted] or [np.array(archive.files)]
        except (OSError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
            part = f" ({', '.join(wanted)})" if wanted else ""
            raise DataError(f"{path}{part} cannot be read as .npz: {line_of(error)}.") from None

    names = set(read_arrays()[0].tolist())
    images = {name[2:] for name in names if name.startswith("x_")} & SPLITS.keys()
    if "train" not in images or not {f"y_{split}" for split in images} <= names:
        raise DataError(
            f"{path} holds {', '.join(sorted(names)) or 'nothing'}; "
            "wanted are x_train and y_train, and x_test with y_test where there is a test split."
        )

    def blocks(split: str) -> Opener:
        def read() -> Iterator[Block]:
            images, labels = read_arrays(f"x_{split}", f"y_{split}")
            where = f"{path}, x_{split}"
            one_each = labels.ndim > 0 and labels.size == len(labels)
            if not one_each or not np.issubdtype(labels.dtype, np.integer):
                raise DataError(f"{path}, y_{split} must be one integer per image.")
            labels = labels.reshape(-1)
            pixels = _as_uint8(images, where)
            if len(pixels) != len(labels):
                raise DataError(f"{where} has {len(pixels)} images for {len(labels)} labels.")
            if len(labels) and not -1 <= labels.min() <= labels.max() <= MOST_CLASSES:
                raise _no_label(labels[(labels < -1) | (labels > MOST_CLASSES)][0], where)
            yield Block(pixels, labels.astype(np.int64))

        return read

    splits = {SPLITS[split]: blocks(split) for split in sorted(images)}
    return Source(splits, None, ("npz", *stat_of(path)))


def _as_uint8(images: np.ndarray, where: str) -> np.ndarray:
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[-1] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.shape[2] != images.shape[3]:
        raise DataError(
            f"{where} has the shape {images.shape}; wanted is n x size x size, "
            "n x size x size x channels or n x channels x size x size, with 1 or 3 channels."
        )
    if images.dtype != np.uint8:
        low, high = float(np.min(images)), float(np.max(images))
        if not np.issubdtype(images.dtype, np.floating) or not 0 <= low <= high <= 1:
            raise DataError(
                f"{where} is {images.dtype} from {low:g} to {high:g}; "
                "wanted is uint8 in 0..255 or floats in [0, 1]."
            )
        images = np.rint(images * 255).astype(np.uint8)
    return np.ascontiguousarray(images)


def image_folder(root: Path) -> Source:
    """Folders of images: train/<class>/*, test/<class>/*, or <class>/* where all is one split.

    Images in one folder without others have no labels.
    """
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    splits = {SPLITS[p.name.lower()]: p for p in folders if p.name.lower() in SPLITS}
    if "train" not in splits:
        splits = {"train": root}
    names = sorted({p.name for folder in splits.values() for p in folder.iterdir() if p.is_dir()})
    files = {
        split: [
            (file, label)
            for label, name in enumerate(names)
            for file in sorted((folder / name).rglob("*"))
            if file.suffix.lower() in IMAGE_SUFFIXES
        ]
        for split, folder in splits.items()
    }
    labelled = bool(files["train"])
    if not labelled:
        flat = sorted(it for it in root.iterdir() if it.suffix.lower() in IMAGE_SUFFIXES)
        files, names = {"train": [(file, -1) for file in flat]}, []
    if not files["train"]:
        raise DataError(
            f"{root} holds no .parquet file and no image, itself or in train/<class>/ or <class>/ "
            f"(looked for {', '.join(sorted(IMAGE_SUFFIXES))})."
        )

    def read(split: str) -> Opener:
        return lambda: (
            Encoded(file, label, str(file), file.relative_to(root).as_posix())
            for file, label in files[split]
        )

    openers = {split: read(split) for split in files}
    stats = [stat_of(file) for listed in files.values() for file, _ in listed]
    return Source(openers, tuple(names), ("folder", *stats), len(stats), labelled=labelled)


def parquet(path: Path, config: DataConfig) -> Source:
    """Parquet shards as the Hugging Face hub lays out image data sets.

    The split is read off the file's name, or its folder's; a file that names none is training data.
    """
    import pyarrow.parquet as pq
    from pyarrow import ArrowException, types

    shards: dict[str, list[Path]] = {}
    for file in [path] if path.is_file() else sorted(path.rglob("*.parquet")):
        shards.setdefault(_split_of(file, path), []).append(file)
    files = list(chain.from_iterable(shards.values()))
    total = 0
    for file in files:
        try:
            total += pq.read_metadata(file).num_rows
        except (OSError, ArrowException) as error:
            raise DataError(
                f"{file} cannot be read as Parquet: {line_of(error)}. Is it cut off? Copy it again."
            ) from None
    schema = pq.read_schema(files[0])
    image, label = _columns(schema, config, path)
    for file in files:
        if missing := {image, label} - set(pq.read_schema(file).names):
            raise DataError(
                f"{file} lacks the column {', '.join(sorted(missing))}, which {files[0]} has. "
                "Shards of one data set must have the same columns."
            )

    def read(split: str) -> Opener:
        def rows() -> Iterator[Encoded]:
            for file in shards[split]:
                number = 0
                try:
                    for batch in pq.ParquetFile(file).iter_batches(256, columns=[image, label]):
                        for cell, value in zip(batch[image], batch[label], strict=True):
                            where = f"{file}, row {number}"
                            yield _row(cell.as_py(), value.as_py(), where, file.parent)
                            number += 1
                except (OSError, ArrowException) as error:
                    raise DataError(
                        f"{file} is damaged after row {number}: {line_of(error)}. Copy it again."
                    ) from None

        return rows

    classes = _class_names(schema, label) or _listed_classes(path)
    fingerprint = ("parquet", image, label, classes, *map(stat_of, files))
    if types.is_string(schema.field(image).type):
        # The pixels lie in other files: what is cached must change with them.
        pictures = (
            (file.parent / str(name))
            for file in files
            for name in pq.read_table(file, columns=[image])[image].to_pylist()
        )
        fingerprint += tuple(stat_of(picture) for picture in pictures if picture.is_file())
    landmarks = not types.is_integer(schema.field(label).type)
    return Source({s: read(s) for s in shards}, classes, fingerprint, total, landmarks)


def hub(config: DataConfig) -> Source:
    """hf:owner/name through Hugging Face `datasets`; runs no code of the data set's."""
    try:
        import datasets
    except ImportError:
        raise MissingExtra("datasets", "hub", f"Loading {config.source}") from None
    name = config.source.removeprefix("hf:")
    try:
        loaded = datasets.load_dataset(name)
    except Exception as error:  # the library raises a dozen kinds, from network to parser
        raise DataError(f"{config.source} could not be loaded: {line_of(error)}.") from None
    first = next(iter(loaded.values()))
    image, label = _columns(first.features.arrow_schema, config, config.source)

    def read(split: Any) -> Opener:
        encoded = split.cast_column(image, datasets.Image(decode=False))
        return lambda: (
            _row(row[image], row[label], f"{config.source}, row {number}", None)
            for number, row in enumerate(encoded)
        )

    splits = {SPLITS[n]: read(split) for n, split in loaded.items() if n in SPLITS}
    if "train" not in splits:
        raise DataError(f"{config.source} has the splits {', '.join(loaded)}; wanted is train.")
    names = getattr(first.features[label], "names", None)
    prints = [split._fingerprint for split in loaded.values()]
    classes = tuple(names) if names else None
    total = sum(map(len, loaded.values()))
    return Source(splits, classes, ("hub", name, image, label, *prints), total)


def _columns(schema: Any, config: DataConfig, where: object) -> tuple[str, str]:
    """The image and the label column, by their types; by the caller's word where several fit."""
    from pyarrow import types

    def is_image(kind: Any) -> bool:
        if types.is_struct(kind):
            return "bytes" in {kind.field(i).name for i in range(kind.num_fields)}
        tests = (types.is_binary, types.is_large_binary, types.is_string, types.is_large_string)
        return any(test(kind) for test in tests)

    def pick(what: str, asked: str | None, fitting: list[str], usual: Iterable[str]) -> str:
        if asked is not None:
            if asked not in schema.names:
                raise unknown(f"column in {where}", asked, schema.names)
            if asked not in fitting:
                raise DataError(
                    f"The column {asked} of {where} is {schema.field(asked).type}; it cannot hold "
                    f"the {what}. Those that can: {', '.join(fitting) or 'none'}."
                )
            return asked
        if len(fitting) == 1:
            return fitting[0]
        for name in usual:
            if name in fitting:
                return name
        raise DataError(
            f"{where} has {len(fitting)} columns that could hold the {what} ({', '.join(fitting)}) "
            f"among {', '.join(schema.names)}. Say which with --{what}-column."
        )

    images = [f.name for f in schema if is_image(f.type)]
    if config.image_column is None:
        # A struct with bytes is an image for certain; a text could be anything.
        structs = [name for name in images if types.is_struct(schema.field(name).type)]
        images = structs or images
    labels = [f.name for f in schema if types.is_integer(f.type)]
    lists = [f.name for f in schema if _holds_coordinates(f.type)]
    if not labels or config.label_column in lists:
        labels = lists
    return (
        pick("image", config.image_column, images, ("image", "img")),
        pick("label", config.label_column, labels, LABEL_NAMES),
    )


def _holds_coordinates(kind: Any) -> bool:
    from pyarrow import types

    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    return any(test(kind) for test in tests) and types.is_floating(kind.value_type)


def _row(cell: Any, label: Any, where: str, folder: Path | None) -> Encoded:
    """A cell is {bytes, path}, bytes, or a path.

    A path must lie inside `folder`, the one of the file that names it: data must not be able to
    read elsewhere. None stands for paths that the caller's own library made.
    """
    path = ""
    if isinstance(cell, Mapping):
        path, cell = str(cell.get("path") or ""), cell.get("bytes") or cell.get("path")
    if isinstance(label, list):
        label = coordinates(label, where)
    elif not isinstance(label, int) or not -1 <= label <= MOST_CLASSES:
        raise _no_label(label, where)
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


def _no_label(label: object, where: str) -> DataError:
    return DataError(
        f"{where}: the label is {label!r}; wanted is a whole number from 0 to classes - 1 "
        f"(-1 where a test image has none), and at most {MOST_CLASSES:,} classes."
    )


def _split_of(file: Path, root: Path) -> str:
    """The split that a file's name says, or the name of a folder between it and the root."""
    inside = file.relative_to(root) if root.is_dir() else Path(file.name)
    for part in reversed(inside.parts):
        for word in re.split(r"[-._\s]+", part.lower()):
            if word in SPLITS:
                return SPLITS[word]
    return "train"


def _class_names(schema: Any, label: str) -> tuple[str, ...] | None:
    """Class names from the metadata that `datasets` writes into a Parquet file."""
    try:
        info = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]
        return tuple(map(str, info["names"]))
    except (KeyError, TypeError, ValueError):
        return None


def _listed_classes(path: Path) -> tuple[str, ...] | None:
    """Class names from a `classes.txt` beside the shards, one a line in label order."""
    listed = path / "classes.txt" if path.is_dir() else path.with_name("classes.txt")
    if not listed.is_file():
        return None
    lines = listed.read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def stat_of(file: Path) -> tuple[str, int, int]:
    status = file.stat()
    return str(file.absolute()), status.st_size, status.st_mtime_ns


def line_of(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
