"""Folders of images: a folder for each class, in folders for each split where there are splits.

A folder is a split only where all folders beside it are splits too, see `docs/data.md`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from denature.core.errors import DataError, brief
from denature.data.config import DataConfig
from denature.data.decode import Encoded
from denature.data.listing import IMAGE_SUFFIXES, ListedFolder, list_folder
from denature.data.readers.splits import (
    SPELT,
    has_labels,
    is_keyword,
    split_of,
    splits_in,
    words_of,
)
from denature.data.source import DataSource, Opener, format_left_out, legible, stats_of

OF_IMAGES = {
    *("image", "images", "img", "imgs", "picture", "pictures", "photo", "photos"),
    *("jpegimages", "jpg", "jpeg", "png", "frames", "data", "dataset"),
}
OF_ANNOTATIONS = {
    *("label", "labels", "mask", "masks", "annotation", "annotations", "annot", "gt"),
    *("groundtruth", "truth", "ground", "segmentation", "segmentations", "segmentationclass"),
    *("bbox", "bboxes", "xml", "xmls", "json"),
}
"""Words in names of folders that state the kind of their files and no class."""

Files = Mapping[str, Sequence[tuple[Path, int]]]
"""Files of each split, with their labels."""


def image_folder(root: Path, config: DataConfig) -> DataSource | None:
    """Read train/<class>/*, test/<class>/*, or <class>/* as one split.

    Images in one folder without subfolders have no labels.

    Raises:
        DataError: no image, or folders that could be read in several ways.
    """
    if not root.is_dir():
        return None
    listing, left_out = list_folder(root, IMAGE_SUFFIXES)
    top = _unwrapped(listing)
    if not top.total:
        raise DataError(
            f"{root} holds no .parquet file and no image, itself or in train/<class>/ or <class>/ "
            f"(looked for {', '.join(sorted(IMAGE_SUFFIXES))}; "
            f"found {format_left_out(left_out) or 'nothing'})."
        )
    files: Files
    if not top.filled:
        classes: list[str] = []
        files = {"train": [(file, -1) for file in top.files]}
    else:
        classes, files = _labelled(top, left_out)

    def read(split: str) -> Opener:
        return lambda: (
            Encoded(file, label, str(file), legible(file.relative_to(root).as_posix()))
            for file, label in files[split]
        )

    stats = [
        (split, label, *stat)
        for split, listed in files.items()
        for (_, label), stat in zip(listed, stats_of(file for file, _ in listed), strict=True)
    ]
    return DataSource(
        {split: read(split) for split in files},
        tuple(map(legible, classes)),
        ("folder", classes, *stats),
        len(stats),
        labelled=bool(classes),
        left_out=+left_out,  # drops zero counts
        notes=(f"all images are of one class, {legible(classes[0])}",) if len(classes) == 1 else (),
    )


def _labelled(top: ListedFolder, left_out: Counter[str]) -> tuple[list[str], Files]:
    """Class names, and the files of each split; images without labels are counted."""
    splits = _splits(top)
    if splits:
        left_out["folder without images"] += len(top.folders) - len(top.filled)
        left_out["image outside of class folders"] += len(top.files)
    else:
        splits = {"train": [top]}
        _check_configurations(top.filled)
    if "train" not in splits:
        raise DataError(
            f"{top.path} has only the split{'s' * (len(splits) > 1)} {', '.join(splits)} and no "
            f"training split (the words are {SPELT}). If its folders are classes, put them into a "
            f"folder train/ in {top.path}."
        )
    classes = sorted({inner.name for part in splits["train"] for inner in part.folders})
    for part in splits["train"]:
        _check_kinds(part)
    files: dict[str, list[tuple[Path, int]]] = {}
    for split, parts in splits.items():
        found = {inner.name for part in parts for inner in part.filled}
        where = " and ".join(str(part.path) for part in parts)
        if split != "train" and not has_labels(found, classes, where):
            left_out[f"unlabelled {split} image"] += sum(part.total for part in parts)
            continue
        left_out["image outside of class folders"] += sum(len(part.files) for part in parts)
        label_of = {name: label for label, name in enumerate(classes)}
        folders = [inner for part in parts for inner in part.filled]
        files[split] = [
            (file, label_of[inner.name])
            for inner in sorted(folders, key=lambda inner: inner.name)
            for file in inner.everything()
        ]
    return classes, files


def _splits(top: ListedFolder) -> dict[str, list[ListedFolder]]:
    """The folders of each split; empty where all folders are classes."""
    named = [folder for folder in top.filled if splits_in(folder.name)]
    others = [folder.name for folder in top.filled if not splits_in(folder.name)]
    if others:
        # A class may be called train, or test_tube; a folder test/ beside classes holds images
        # to test on, which must never be trained on.
        held_out = [f for f in named if is_keyword(f.name) and splits_in(f.name) != {"train"}]
        if not held_out and not any(folder.filled for folder in named):
            return {}
        raise DataError(
            f"{top.path} holds {brief(folder.name for folder in named)}, named as a split, beside "
            f"{brief(others)}, not named as one. Wanted are splits or classes: put all classes to "
            f"train on into a folder train/ in {top.path}, and move other data out. The words of "
            f"splits are {SPELT}."
        )
    if empty := [f.name for f in top.folders if not f.total and is_keyword(f.name)]:
        raise DataError(
            f"The split {brief(empty)} of {top.path} holds no image. Remove the folder."
        )
    splits: dict[str, list[ListedFolder]] = {}
    for folder in named:
        splits.setdefault(str(split_of(folder.name)), []).append(folder)
    return {split: _parts(split, folders, top) for split, folders in splits.items()}


def _parts(split: str, folders: Sequence[ListedFolder], top: ListedFolder) -> list[ListedFolder]:
    """The folders that hold the class folders of a split."""
    names = [folder.name for folder in folders]
    parts = [_unwrapped(folder, split=True) for folder in folders]
    if len({words_of(name) for name in names}) > 1:
        raise DataError(
            f"{top.path} holds {brief(names)}, which all say {split}. Keep one of them there; if "
            f"they are classes, put all classes into a folder train/ in {top.path}."
        )
    if split == "train" and not any(part.filled for part in parts):
        raise DataError(
            f"{parts[0].path} holds images and no class folders, so they have no labels. Put "
            "those of each class into a folder of its own; if it is a class itself, put all "
            f"classes into a folder train/ in {top.path}."
        )
    for part in parts:
        if _holds_splits(part) and any(folder.filled for folder in part.filled):
            _refuse_configurations([part])
        _check_configurations(part.filled)
    return parts


def _check_kinds(part: ListedFolder) -> None:
    """Check that class folders are not named for kinds of files, such as images and masks.

    Some such names may be classes, as mask beside no_mask is.

    Raises:
        DataError: all names state kinds of files, or images and annotations lie side by side, here
            or inside a class.
    """
    filled = [folder.name for folder in part.filled]
    kinds = filled if all(_kind(name) for name in filled) else []
    for folder in (part, *part.filled):
        found = {name: _kind(name) for name in (inner.name for inner in folder.folders)}
        if {"image", "annotation"} <= set(found.values()):
            part, kinds = folder, [name for name, kind in found.items() if kind]
            break
    if kinds:
        raise DataError(
            f"{part.path} holds {brief(kinds)}, named for kinds of files; they are no classes. "
            "Wanted are images in a folder for each class, or Parquet files with a label column: "
            "labels in files beside images are not read. To query images without labels, name "
            "the one folder that holds them; if they are classes, give them other names."
        )


def _kind(name: str) -> str | None:
    """The kind of file that the name of a folder states; None where it states none."""
    words = set(words_of(name))
    if words & OF_ANNOTATIONS and words <= OF_ANNOTATIONS | OF_IMAGES:
        return "annotation"
    return "image" if words and words <= OF_IMAGES else None


def _check_configurations(folders: Sequence[ListedFolder]) -> None:
    """Check that class folders hold no splits of their own, nor all of them the same folders."""
    if found := [folder for folder in folders if _holds_splits(folder)]:
        _refuse_configurations(found)
    inside = [_unwrapped(folder, split=True) for folder in folders]
    if len(inside) < 2 or any(folder.files for folder in inside):
        return
    names = [{inner.name for inner in folder.filled} for folder in inside]
    shared, known = set.intersection(*names), set.union(*names)
    if len(shared) > 1 and 2 * len(shared) >= len(known):
        raise DataError(
            f"{brief(str(folder.path) for folder in folders)} hold the same folders "
            f"({brief(sorted(shared))}) where class folders were expected. If those are the "
            f"classes, name one data set by its path, such as {folders[0].path}, or put all "
            "images of a class into one folder."
        )


def _refuse_configurations(found: Sequence[ListedFolder]) -> None:
    raise DataError(
        f"{brief(str(folder.path) for folder in found)} {_hold(found)} splits "
        f"({brief(f.name for f in found[0].filled)}) where class folders were expected. If they "
        f"are data sets of their own, name one by its path, such as {found[0].path}."
    )


def _holds_splits(folder: ListedFolder) -> bool:
    return bool(folder.filled) and all(splits_in(inner.name) for inner in folder.filled)


def _unwrapped(folder: ListedFolder, *, split: bool = False) -> ListedFolder:
    """The innermost of folders that hold one folder and nothing else, as archives unpack.

    Args:
        folder: the outermost folder.
        split: whether the folder is a split, whose name may occur again inside it, as in
            seg_train/seg_train/.
    """
    if folder.files or len(folder.filled) != 1:
        return folder
    [inner] = folder.filled
    if inner.files or (not split and splits_in(inner.name) and not _holds_splits(inner)):
        return folder
    deeper = _unwrapped(inner, split=split)
    return (
        deeper if deeper is not inner or len(inner.filled) > 1 or _holds_splits(inner) else folder
    )


def _hold(names: Sequence[object]) -> str:
    return "hold" if len(names) > 1 else "holds"
