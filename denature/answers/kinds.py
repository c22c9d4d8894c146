"""The kinds of answers; this module imports nothing heavy, so that the command line can use it."""

from typing import Literal, TypeAlias, get_args

ClassAnswerKind: TypeAlias = Literal["logits", "probabilities", "label"]
"""Kinds of answers of networks that predict classes."""

AnswerKind: TypeAlias = Literal[ClassAnswerKind, "landmarks"]
"""Kinds of all answers; ledgers, records and the names of served outputs spell them so."""

CLASS_ANSWER_KINDS: tuple[ClassAnswerKind, ...] = get_args(ClassAnswerKind)

ANSWER_KINDS: tuple[AnswerKind, ...] = get_args(AnswerKind)


def derivable(kind: AnswerKind, answered: AnswerKind) -> bool:
    """Whether answers of a kind follow from those of another: logits tell most, labels least."""
    if "landmarks" in (kind, answered):
        return kind == answered
    return _ORDER[kind] >= _ORDER[answered]


_ORDER: dict[AnswerKind, int] = {kind: place for place, kind in enumerate(CLASS_ANSWER_KINDS)}
