"""Tiny-ImageNet: as published, or with its validation images sorted into class folders."""

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from pathlib import PurePosixPath

from denature.core.errors import DataError, brief
from denature.data.decode import Encoded
from denature.data.listing import IMAGE_SUFFIXES
from denature.data.readers.trees import MOST_LIST, Tree, lines_of, read_file
from denature.data.source import DataSource, Opener

WNIDS, WORDS, ANNOTATIONS = "wnids.txt", "words.txt", "val/val_annotations.txt"
MARKS = (ANNOTATIONS, WNIDS)
"""Files that identify the layout."""

SPLITS = {"train": "train", "val": "validation", "test": "test"}


def tiny_imagenet(tree: Tree, prefix: str) -> DataSource:
    """Read train/<wnid>/images/*, and val/images/* with a file that gives their classes.

    Images below val/ and test/ may lie in folders of their classes too, in the order of that file.
    """
    wnids = sorted(lines_of(read_file(tree, prefix + WNIDS, MOST_LIST)))
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    annotated = _annotations(tree, prefix, label_of)
    files: dict[str, list[tuple[str, int]]] = {split: [] for split in SPLITS.values()}
    left_out = Counter(tree.left_out)
    seen: set[str] = set()
    for name in tree.names:
        top, *folders = PurePosixPath(name.removeprefix(prefix)).parts
        if not name.startswith(prefix) or top not in SPLITS or not folders:
            continue
        file = folders.pop()
        if PurePosixPath(file).suffix.lower() not in IMAGE_SUFFIXES:
            continue
        wnid = next((folder for folder in folders if folder in label_of), None)
        if top == "train":
            if wnid is None:
                raise DataError(f"{tree.path}: {name} is of no class in {WNIDS}.")
            files["train"].append((name, label_of[wnid]))
            continue
        noted = annotated.get(file)
        if wnid and noted and wnid != noted:
            raise DataError(
                f"{tree.path}: {name} lies in the folder of {wnid}, and {ANNOTATIONS} says {noted}."
            )
        known = wnid or noted
        if known is None:
            left_out[f"unlabelled {SPLITS[top]} image"] += 1
        elif noted and file in seen:
            left_out["second copy of an image"] += 1
        else:
            files[SPLITS[top]].append((name, label_of[known]))
            seen.add(file)
    if not files["train"]:
        raise DataError(f"{tree.path} holds no image in train/<class>/images/.")
    if missing := [image for image in annotated if image not in seen]:
        raise DataError(f"{tree.path} lacks {brief(missing)} of {ANNOTATIONS}. Copy it again.")
    place = {image: number for number, image in enumerate(annotated)}
    for split in ("validation", "test"):
        files[split].sort(key=lambda found: place.get(PurePosixPath(found[0]).name, len(place)))
    classes = _classes(tree, prefix, wnids)
    listed = [(split, *found) for split, held in files.items() for found in held]
    return DataSource(
        {split: _opener(tree, held) for split, held in files.items() if held},
        classes,
        ("tiny-imagenet", classes, listed, *tree.stats([name for _, name, _ in listed])),
        len(listed),
        left_out=left_out,
    )


def _annotations(tree: Tree, prefix: str, wnids: Container[str]) -> dict[str, str]:
    """The class of each validation image."""
    annotated: dict[str, str] = {}
    for line in lines_of(read_file(tree, prefix + ANNOTATIONS, MOST_LIST)):
        image, *rest = line.split("\t")
        if not rest or rest[0] not in wnids or PurePosixPath(image).name != image:
            raise DataError(
                f"{tree.path}, {ANNOTATIONS} has the line {line[:60]!r}; wanted is image, tab, "
                "class."
            )
        annotated[image] = rest[0]
    return annotated


def _classes(tree: Tree, prefix: str, wnids: Sequence[str]) -> tuple[str, ...]:
    try:
        lines = lines_of(read_file(tree, prefix + WORDS, MOST_LIST))
    except KeyError:
        return tuple(wnids)
    words = dict(line.split("\t", 1) for line in lines if "\t" in line)
    return tuple(f"{wnid}\t{words.get(wnid, '')}".strip() for wnid in wnids)


def _opener(tree: Tree, files: Sequence[tuple[str, int]]) -> Opener:
    def images() -> Iterator[Encoded]:
        for name, label in files:
            try:
                yield Encoded(tree.image(name), label, f"{tree.path}, {name}")
            except KeyError:
                raise DataError(f"{tree.path} lacks {name}. Copy it again.") from None

    return images
