"""Names of splits in the names of files and folders, as the Hugging Face hub documents them."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePath

from denature.core.errors import DataError, brief

KEYWORDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""The words of each split; anything but a letter delimits them, as in `train2017`."""

SPLIT_OF = {word: split for split, words in KEYWORDS.items() for word in words}

SPELT = "; ".join("|".join(words) for words in KEYWORDS.values())
"""The words, for errors."""


def words_of(name: str) -> tuple[str, ...]:
    """The words of a name in lower case, without digits; `TrainSet` has two."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return tuple(re.findall(r"[^\W\d_]+", apart.lower()))


def splits_in(name: str) -> set[str]:
    """All splits that a name contains; a folder train_test_data contains two."""
    return {SPLIT_OF[word] for word in words_of(name) if word in SPLIT_OF}


def split_of(name: str) -> str | None:
    """The split that the name of a file or folder contains; None where it contains none.

    Raises:
        DataError: the name contains two.
    """
    named = splits_in(name)
    if len(named) > 1:
        raise DataError(
            f"The name {name} says {' and '.join(sorted(named))}; wanted is one split. Rename it "
            f"(the words are {SPELT})."
        )
    return next(iter(named), None)


def is_keyword(name: str) -> bool:
    """Whether a name is the word of a split and nothing more: `test2017`, not `test_tube`."""
    words = words_of(name)
    return len(words) == 1 and words[0] in SPLIT_OF


def shards_by_split(files: Sequence[Path], root: Path) -> dict[str, list[Path]]:
    """Files by the split in their names, or in the names of folders between them and the root.

    The innermost name counts. Where no name contains a split, all files are training data.

    Raises:
        DataError: some names contain a split and others none, a path contains two, or one split
            lies in several configurations.
    """
    inside = {file: file.relative_to(root) if file != root else Path(file.name) for file in files}
    shared = _shared_folder(list(inside.values()))
    shards: dict[str | None, list[Path]] = {}
    parents: dict[str | None, dict[str, str]] = {}
    variants: dict[str, dict[tuple[str, ...], str]] = {}
    for file, path in inside.items():
        split, parent, name = _located(path, shared)
        shards.setdefault(split, []).append(file)
        parents.setdefault(split, {})[parent] = path.as_posix()
        if split is not None:
            variants.setdefault(split, {}).setdefault(_variant(name), path.as_posix())
    unnamed = shards.pop(None, [])
    if unnamed and shards:
        raise DataError(
            f"{brief(inside[file].as_posix() for file in unnamed)} in {root} say no split, and "
            f"other files do. Rename them (the words are {SPELT}), or move them out of {root}."
        )
    for split, found in parents.items():
        if len(found) > 1:
            places = sorted(found.values())
            example = root / places[0]
            raise DataError(
                f"{root} holds several configurations, each with {split or 'training'} data: "
                f"{brief(places)}. Name one of them by its path, such as "
                f"{example if example.parent == root else example.parent}."
            )
    _check_variants(variants, root)
    folders = {parent.rpartition("/")[0] for found in parents.values() for parent in found}
    if len(folders) > 1 and all(folders):
        raise DataError(
            f"The splits of {root} lie in several configurations ({brief(sorted(folders))}). Name "
            "one of them by its path, or put all splits into one folder."
        )
    return {split: found for split, found in shards.items() if split} or {"train": unnamed}


def _check_variants(variants: Mapping[str, Mapping[tuple[str, ...], str]], root: Path) -> None:
    """Check that all files of a split have the same words in their names.

    Args:
        variants: by split and words, one path each.
        root: the data set, for the error.

    Raises:
        DataError: several files name one split in different words.
    """
    for split, named in variants.items():
        if len(named) > 1:
            raise DataError(
                f"{root} holds {brief(sorted(named.values()))}, which all say {split}. Keep one of "
                "them there, or give the shards of one split names that differ in numbers alone."
            )


def _located(path: PurePath, shared: int) -> tuple[str | None, str, str]:
    """The split of a path, its configuration, and the name that contains the split.

    The configuration is the part before the word of the split.
    """
    parts = path.parts
    for place in reversed(range(len(parts))):
        if (split := split_of(parts[place])) is None:
            continue
        # Folders that all files have in common are the data set's name, not a split's.
        outer = {split_of(part) for part in parts[shared:place]} - {None, split}
        if outer:
            raise DataError(
                f"The path {path.as_posix()} says {split} and {', '.join(map(str, outer))}; wanted "
                "is one split. Rename it."
            )
        return split, "/".join([*parts[:place], _before(parts[place])]), parts[place]
    return None, "/".join(parts[:-1]), ""


def _variant(name: str) -> tuple[str, ...]:
    """The words that distinguish `train_small.parquet` from `train.parquet`.

    Numbers of shards and checksums, as in `train-00000-of-00002-abcdef01`, are not words.
    """
    stem = re.sub(r"(?i)[-_.]\d+-of-\d+([-_.][0-9a-f]+)?(?![^-_.])", "", name)
    stem = re.sub(r"(?i)(?<![^-_.])(?=[a-f]*\d)[0-9a-f]{4,}(?![^-_.])", "", stem)
    words = words_of(stem)
    return words[:-1] if words[-1:] == ("parquet",) else words


def _before(name: str) -> str:
    """The part of a name before the word of a split: `en` of `en-train-0.parquet`.

    Numbers alone count shards.
    """
    for match in re.finditer(r"[^\W\d_]+", name.lower()):
        if match[0] in SPLIT_OF:
            before = name[: match.start()]
            return before if words_of(before) else ""
    return ""


def _shared_folder(paths: Sequence[PurePath]) -> int:
    """Number of folders with which all paths begin."""
    columns = zip(*(path.parts[:-1] for path in paths), strict=False)
    count = 0
    for names in columns:
        if len(set(names)) > 1:
            break
        count += 1
    return count


def has_labels(found: Collection[str], classes: Collection[str], where: str) -> bool:
    """Whether a split that is not trained on has labels: all of its classes are in training.

    One name that is no class, as in `test/images/`, is not a label.

    Raises:
        DataError: it has classes that training has not.
    """
    unknown = sorted(set(found) - set(classes))
    spelt_alike = {name.casefold() for name in unknown} & {name.casefold() for name in classes}
    if len(unknown) == len(set(found)) <= 1 and not spelt_alike:
        return False
    if unknown:
        raise DataError(
            f"{where} has images of {brief(unknown)}, which is no class of the training split "
            f"({brief(classes)}). Name it as there, or move it out."
        )
    return True
