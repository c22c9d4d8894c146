"""Prices of all defenses of an audit, on the reported half of the test images."""

import inspect
from collections.abc import Iterator, Sequence

import numpy as np

from denature.answers.answerer import Answers
from denature.audit.price import AnswerArrays, median_ms, price
from denature.audit.result import DefensePrice
from denature.audit.source import Source, shown_by
from denature.data.dataset import Split

SEED = 1
"""Seed of the defenses' randomness for honest users."""


def prices(sources: Sequence[Source], tests: Split, half: np.ndarray) -> Iterator[DefensePrice]:
    """The price of each defense; the first source is the undefended model.

    Args:
        sources: the model behind each defense.
        tests: labelled test images.
        half: positions of those that are reported.
    """
    rows = tests.rows[half]
    images, labels = tests.images[rows].numpy(), tests.labels[rows].numpy()
    true = sources[0].harvest(images)
    for source in sources:
        answers = source.harvest(images)
        shown = shown_by(source.start(SEED), answers, images)
        yield price(
            _arrays(true),
            _arrays(shown),
            labels,
            defense=source.name,
            about=about(source),
            latency_ms=_latency(source, answers, images),
        )


def _arrays(answers: Answers) -> AnswerArrays:
    return AnswerArrays(answers.kind, answers.values.numpy())


def _latency(source: Source, answers: Answers, images: np.ndarray) -> float:
    """Milliseconds that the defense adds to one image's answer."""
    if not source.chain.defenses:
        return 0.0
    stream = source.start(SEED)
    one = answers._replace(values=answers.values[:1])
    return median_ms(lambda: shown_by(stream, one, images[:1]))


def about(source: Source) -> str:
    """What a defense does, in a sentence each."""
    if not source.chain.defenses:
        return "" if source.name == "none" else "Another model, trained from this one."
    docs = [inspect.getdoc(type(defense)) or "" for defense in source.chain.defenses]
    return " ".join(doc.split("\n\n")[0].replace("\n", " ") for doc in docs)
