"""Find the image and label columns of a table, and the kind of its labels."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from denature.core.classes import composed
from denature.core.errors import DataError, brief, unknown
from denature.core.untrusted import parse_json
from denature.data.config import DataConfig

LabelKind = Literal["whole", "names", "landmarks"]

IMAGE_NAMES = ("image", "img")
LANDMARK_NAMES = ("keypoints", "landmarks")
MOST_COORDINATES = 2000
"""Numbers of a label at most."""

LABEL_NAMES = (
    *("label", "labels", "fine_label", "class", "target", "y"),
    *("category", "class_id", "label_id", *LANDMARK_NAMES),
)
"""Usual names, in any letter case: a column of such a name is the label, whatever the others."""

ROUNDED = 0.02
"""Largest difference of the sum of rounded probabilities from one."""

NO_LABELS = {
    *("id", "idx", "index", "__index_level_0__", "image_id", "file_id", "width", "height", "size"),
    *("bbox", "bboxes", "box", "boxes", "embedding", "path", "file_name", "filename", "url"),
    *("caption", "text"),
}
"""Usual names of columns that are not labels, unless the caller names them."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The two columns of a table that are read."""

    image: str
    label: str
    kind: LabelKind
    guessed: bool = False
    """Whether the label column has no usual name and was not named by the caller."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the user about the choice."""
        line = f"labels are read from the column {self.label}; --label-column names another"
        return (line,) if self.guessed else ()


def columns_of(schema: Any, config: DataConfig, where: object) -> Columns:
    """The image and the label column: named by the caller, of a usual name, or the only candidate.

    Raises:
        DataError: no column or several columns qualify, or one of a usual name does not.
    """
    label = config.label_column or _usual(schema.names, LABEL_NAMES)
    image = _image_column(schema, config, label, where)
    serving = [f.name for f in schema if kind_of(f.type) and f.name != image]
    if label is not None:
        _check("label", label, schema, serving, where)
        return Columns(image, label, _kind(schema, label))
    from pyarrow import types

    # Floats are weights or ages; a number that counts rows or pixels is no class either.
    likely = [name for name in serving if name.lower() not in NO_LABELS]
    likely = [name for name in likely if not types.is_floating(schema.field(name).type)]
    classes = [name for name in likely if class_names(schema, name)]
    label = classes[0] if len(classes) == 1 else _only("label", likely, schema, where)
    return Columns(image, label, _kind(schema, label), guessed=not classes)


def class_names(schema: Any, label: str) -> tuple[str, ...] | None:
    """Class names from the metadata that `datasets` writes into a Parquet file."""
    try:
        text = (schema.metadata or {})[b"huggingface"].decode()
        info = parse_json(text)["info"]["features"][label]
        return tuple(composed(str(name)) for name in info["names"])
    except (KeyError, TypeError, ValueError):
        return None


def is_truth(schema: Any, label: str) -> bool:
    """Whether the labels are truth values."""
    from pyarrow import types

    return bool(types.is_boolean(schema.field(label).type))


def is_unlabelled(schema: Any, label: str) -> bool:
    """Whether a table lacks the column of the labels, or the column holds nothing."""
    from pyarrow import types

    return label not in schema.names or bool(types.is_null(schema.field(label).type))


def check_same_labels(
    schema: Any, first: Any, label: str, where: object, first_where: object
) -> None:
    """Check that labels have the same meaning in one table as in the first.

    Raises:
        DataError: the table has other classes, or another order of them; or labels of another kind:
            names, landmarks, truth values or numbers.
    """
    names, first_names = class_names(schema, label), class_names(first, label)
    if names is not None and first_names is not None and names != first_names:
        raise DataError(
            f"The classes of {where} are {brief(names)}, of {first_where} {brief(first_names)}; "
            "one number would stand for two classes. Write all splits with the same list of names."
        )
    if is_unlabelled(first, label):
        return
    if is_truth(schema, label) != is_truth(first, label):
        raise DataError(
            f"The column {label} holds truth values in one of {where} and {first_where} and "
            "numbers in the other. Shards of one data set must have labels of one kind."
        )
    kind, first_kind = schema.field(label).type, first.field(label).type
    if kind_of(kind) != kind_of(first_kind):
        raise DataError(
            f"The column {label} of {where} is {kind}, of {first_where} {first_kind}. Shards of "
            "one data set must have labels of one kind."
        )


def _kind(schema: Any, label: str) -> LabelKind:
    kind = kind_of(schema.field(label).type)
    assert kind is not None  # other types were refused before
    return kind


def kind_of(kind: Any) -> LabelKind | None:
    """Kind of the labels in a column of this type; None where the type can hold none."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return kind_of(kind.value_type)
    # pandas writes whole numbers as floats where a row lacks one.
    if types.is_integer(kind) or types.is_boolean(kind) or types.is_floating(kind):
        return "whole"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "names"
    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    if any(test(kind) for test in lists) and types.is_floating(kind.value_type):
        return "landmarks"
    return None


def _image_column(schema: Any, config: DataConfig, label: str | None, where: object) -> str:
    fitting = [field.name for field in schema if _can_be_image(field.type) and field.name != label]
    if config.image_column is not None:
        _check("image", config.image_column, schema, fitting, where)
        return config.image_column
    # A struct with bytes is an image for certain; a text could be anything.
    fitting = [name for name in fitting if _is_image(schema.field(name).type)] or fitting
    return _only("image", fitting, schema, where, usual=IMAGE_NAMES)


def _check(what: str, name: str, schema: Any, serving: Collection[str], where: object) -> None:
    if name not in schema.names:
        raise unknown(f"column in {where}", name, schema.names)
    if name not in serving:
        raise DataError(
            f"The column {name} of {where} is {schema.field(name).type}; it cannot hold the "
            f"{what}. Name another with --{what}-column; those that can: "
            f"{', '.join(serving) or 'none'}."
        )


def _usual(names: Iterable[str], usual: Iterable[str]) -> str | None:
    known = list(names)
    lower = {name.lower(): name for name in reversed(known)}
    return next((n if n in known else lower[n] for n in usual if n in lower), None)


def _only(
    what: str, fitting: list[str], schema: Any, where: object, usual: Iterable[str] = ()
) -> str:
    if len(fitting) == 1:
        return fitting[0]
    if (name := _usual(fitting, usual)) is not None:
        return name
    raise DataError(
        f"{where} has {len(fitting)} columns that could hold the {what} ({', '.join(fitting)}) "
        f"among {', '.join(schema.names)}. Choose one with --{what}-column."
    )


def _is_image(kind: Any) -> bool:
    from pyarrow import types

    fields = range(kind.num_fields) if types.is_struct(kind) else ()
    return "bytes" in {kind.field(place).name for place in fields}


def _can_be_image(kind: Any) -> bool:
    from pyarrow import types

    tests = [types.is_binary, types.is_large_binary, types.is_string, types.is_large_string]
    if _is_image(kind):
        kind = kind.field("bytes").type
        tests.append(types.is_null)
    return any(test(kind) for test in tests)


def check_landmarks(lists: Iterable[Any], columns: Columns, where: object) -> None:
    """Check that the lists of floats in a column can be landmarks.

    Args:
        lists: the column, in batches.
        columns: names of the columns; of a usual name of landmarks no list is checked.
        where: the data set, for the error.

    Raises:
        DataError: all lists are classes, one-hot or as probabilities.
    """
    import pyarrow.compute as pc

    if columns.label.lower() in LANDMARK_NAMES:
        return
    first, shares, flags = "", True, True
    for batch in lists:
        given = batch.drop_null()
        lengths = set(pc.unique(pc.list_value_length(given)).to_pylist())
        if len(lengths) != 1 or max(lengths) > MOST_COORDINATES:
            return
        values = given.flatten().to_numpy(zero_copy_only=False)
        if not len(values):
            return
        rows = values.reshape(len(given), -1)
        shares &= bool(((rows >= 0).all(1) & (np.abs(rows.sum(1) - 1) <= ROUNDED)).all())
        flags &= bool(np.isin(rows, (0, 1)).all())
        if not shares and not flags:
            return
        place = int(np.argmax(np.asarray(batch.is_valid())))
        first = first or f"{where}, row {place}: the label is {str(rows[0].tolist())[:60]}"
    if first:
        raise DataError(
            f"{first}, and all in the column {columns.label} are classes written one-hot or as "
            "probabilities; a list of floats is read as landmarks. Write the number of the class "
            "instead."
        )
