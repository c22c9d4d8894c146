"""Answers of a face service to pictures: queried over its wire, or read from a recorded file."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from denature.core.errors import DataError
from denature.core.progress import Progress
from denature.core.untrusted import MIB, read_json
from denature.data.config import DataConfig
from denature.data.dataset import Dataset, Split
from denature.data.decode import DecodedBlock, Decoder, Encoded
from denature.data.landmarks import WIDEST
from denature.data.loading import groups_of
from denature.extract.asking.ledger import Ledger
from denature.extract.asking.oracle import Oracle
from denature.extract.asking.pool import StoredPool
from denature.extract.victims.base import Victim, VictimInfo
from denature.extract.victims.rekognition import numbers, outputs_of
from denature.recipes.nose.settings import VALUES
from denature.remote.config import RequestConfig
from denature.train.session import Session

MOST_ANSWERS = 384 * MIB
"""Estimated bytes of recorded answers in memory at most: those of 30,000 faces."""

HOLDOUT = 0.2
"""Share of the pictures, or of their groups, in the test split of recorded answers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ServiceAnswers:
    """Pictures with the answers of a service, one row of `VALUES` for each picture."""

    victim: str
    """Name of the service."""
    source: str
    """Name or folder of the pictures."""
    train: Split
    test: Split
    truth: torch.Tensor | None
    """Landmarks that people placed in the test pictures; brightness and sharpness are NaN. None for
    pictures without landmarks."""
    queries: int
    """Queries that were or may have been billed, lost ones included."""
    unseen: int
    """Pictures in which the service found no face."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the numbers in an answer."""
        return outputs_of(VALUES)

    def dataset(self, values: Sequence[str]) -> Dataset:
        """Training and test data of a clone of some values; labels are the service's answers."""
        names = outputs_of(values)
        columns = [self.outputs.index(name) for name in names]

        def cut(split: Split) -> Split:
            return replace(split, labels=split.labels[:, columns].contiguous())

        hashed = hashlib.sha256()
        for split in (self.train, self.test):
            hashed.update(split.images[split.rows].numpy().data)
            hashed.update(split.labels[split.rows].numpy().data)
        return Dataset(
            config=DataConfig(source=self.source),
            train=cut(self.train),
            test=cut(self.test),
            validation=None,
            classes=names,
            digest=hashlib.sha256(f"{hashed.hexdigest()} {names}".encode()).hexdigest()[:16],
            test_origin="what the service says of the test pictures",
        )

    def seen_by_people(self, values: Sequence[str]) -> Split | None:
        """The test split with people's landmarks as labels; None where values lack landmarks."""
        names = outputs_of(values)
        if self.truth is None or not all(name.endswith((".x", ".y")) for name in names):
            return None
        columns = [self.outputs.index(name) for name in names]
        return replace(self.test, labels=self.truth[:, columns].contiguous())


def query_service(
    service: Callable[[], AbstractContextManager[Victim]],
    *,
    name: str,
    pool: Split,
    data: Dataset,
    fidelity: int,
    ledger: Path,
    price: float | None,
    session: Session,
) -> ServiceAnswers:
    """Query all pictures of a pool, and some test pictures on a budget of their own.

    Args:
        service: context manager that starts the service; entered only if queries remain.
        name: name of the target in the ledger, the same for every port of the service.
        pool: pictures of persons outside the victim's training data.
        data: test pictures with people's landmarks.
        fidelity: number of test pictures to query.
        ledger: file of the ledger.
        price: US dollars per query.
        session: saved states, stops, workers and progress.

    Raises:
        AskFailed, BudgetSpent, Stopped: see `denature.extract.asking.oracle.Oracle.ask`.
    """
    test = data.test
    if fidelity < len(test):
        test = test.take(np.linspace(0, len(test) - 1, fidelity).round().astype(np.int64))
    outputs = outputs_of(VALUES)
    about = VictimInfo(
        target=name,
        options={"values": ",".join(VALUES)},
        kind="landmarks",
        classes=len(outputs),
        channels=3,
        most=1,
        names=outputs,
    )
    splits: list[tuple[torch.Tensor, Split]] = []
    queries = unseen = 0
    with Ledger(ledger) as opened_ledger, ExitStack() as stack:
        target, victim = opened_ledger.target(about), None
        for purpose, part in (("train", pool), ("measure", test)):
            images = StoredPool(data.config.source, part, data.digest, channels=3)
            contents = images.contents(range(len(part)))
            if not set(contents) <= opened_ledger.answers(target).keys():
                victim = victim or stack.enter_context(service())
                oracle = Oracle(
                    victim=victim,
                    ledger=opened_ledger,
                    about=about,
                    budget=2 * len(part),  # a lost query is repeated once
                    purpose=purpose,
                    pace=RequestConfig(),
                    price=price,
                    stopper=session.stopper,
                    progress=session.progress,
                )
                oracle.ask(images, range(len(part)))
            answers = opened_ledger.answers(target)
            labels = torch.from_numpy(np.stack([answers[content][0] for content in contents]))
            has_face = labels.isfinite().all(dim=1)
            unseen += int((~has_face).sum())
            rows = part.rows[has_face]
            split = Split(part.images[rows], labels[has_face], torch.arange(len(rows)))
            splits.append((rows, split))
            queries += opened_ledger.spent(target, purpose)
    (_, train), (rows, measured) = splits
    return ServiceAnswers(
        victim=name,
        source=data.config.source,
        train=train,
        test=measured,
        truth=_truth(data, rows, outputs),
        queries=queries,
        unseen=unseen,
    )


def _truth(data: Dataset, rows: torch.Tensor, outputs: Sequence[str]) -> torch.Tensor:
    truth = torch.full((len(rows), len(outputs)), torch.nan)
    for column, name in enumerate(outputs):
        if name in data.classes:
            truth[:, column] = data.test.labels[rows, data.classes.index(name)]
    return truth


def load_recorded(
    images: Path, labels: Path, *, size: int, group: str | None, progress: Progress
) -> ServiceAnswers:
    """Read recorded answers: {"path or key": a Rekognition response}, as JSON.

    An entry with null or an error instead of a response counts as a query without an answer; their
    number is reported. Any other entry without a list of FaceDetails is an error.

    Args:
        images: folder of the pictures; a key is a path in it, or ends with the name of one.
        labels: the JSON file.
        size: side of the resized pictures, in pixels.
        group: see `denature.data.config.Reading`; without a group the test pictures are random.
        progress: receives progress reports.

    Raises:
        DataError: the file or a picture is missing, or an entry is not a possible answer.
    """
    entries = _read(labels)
    responses = {
        key: entry for key, entry in entries.items() if entry is not None and not _is_failure(entry)
    }
    if failed := [key for key in entries if key not in responses]:
        progress.say(
            f"{labels}: {len(failed):,} of {len(entries):,} entries hold an error instead of an "
            f"answer, such as {failed[0]}; they are left out, and count as queries."
        )
    encoded: list[Encoded] = []
    unseen = 0
    for key, response in responses.items():
        answer = numbers(response, VALUES)
        if not np.isfinite(answer).all():
            unseen += 1
            continue
        if (np.abs(answer - 0.5) > WIDEST - 0.5).any():
            listed = ", ".join(f"{number:g}" for number in answer)
            raise DataError(
                f"{labels}: the entry {key!r} holds {listed}; wanted are places as fractions of "
                "the picture's sides, and qualities up to 100. Mend or remove that entry."
            )
        encoded.append(Encoded(_picture(images, key), answer, f"{key} in {labels}", key))
    if len(encoded) < 10:
        raise DataError(
            f"{labels} holds places and quality of {len(encoded)} faces; at least 10 are needed."
        )
    decoder = Decoder(image_size=size, skip_bad=False, stretch=True)
    decoder.channels = 3
    with progress.task(f"decoding {images}", len(encoded), "pictures") as task:
        blocks: list[DecodedBlock] = []
        for block in decoder.blocks(encoded):
            blocks.append(block)
            task.advance(len(block.images))
    everything = Split(
        torch.from_numpy(np.concatenate([block.images for block in blocks])),
        torch.from_numpy(np.concatenate([block.labels for block in blocks])),
        torch.arange(len(encoded)),
        None
        if group is None
        else groups_of([picture.path for picture in encoded], group, str(labels)),
    )
    train, test = everything.divide(HOLDOUT, "holdout")
    return ServiceAnswers(
        victim=f"what {labels} says",
        source=str(images),
        train=train,
        test=test,
        truth=None,
        queries=len(entries),
        unseen=unseen,
    )


ERRORS = ("Error", "error", "errors", "Exception", "__type", "errorMessage", "errorType")
"""Keys under which boto3, AWS and harvesters record the reason for a missing answer."""


def _is_failure(entry: dict[str, Any] | None) -> bool:
    """Whether an entry records a failed query."""
    if entry is None:
        return True
    return entry.get("FaceDetails") is None and any(key in entry for key in ERRORS)


def _read(labels: Path) -> dict[str, dict[str, Any] | None]:
    """Read all entries; each holds a list of FaceDetails, or a failure.

    Raises:
        DataError: the file has another form, or an entry is neither.
    """
    try:
        entries = read_json(labels, values=MOST_ANSWERS)
    except (OSError, ValueError) as error:
        raise DataError(f"{labels} cannot be read: {error}.") from None
    if (fault := _fault(entries)) is not None:
        raise DataError(
            f'{labels} is no JSON of the form {{"path or key": {{"FaceDetails": [...]}}, ...}}, as '
            f'Rekognition answers, with {{"Error": {{...}}}} where it failed: {fault}.'
        )
    return dict(entries)


def _fault(entries: Any) -> str | None:
    """Fault of recorded answers: the form of the file, or its first bad entry; None if valid."""
    if not isinstance(entries, dict) or not entries:
        return f"it is {_excerpt(entries)}"
    for key, entry in entries.items():
        if entry is None or (isinstance(entry, dict) and _is_failure(entry)):
            continue
        if not isinstance(entry, dict) or not isinstance(entry.get("FaceDetails"), list):
            return f"the entry {key!r} is {_excerpt(entry)}; mend or remove it"
    return None


def _excerpt(value: object) -> str:
    """The beginning of a JSON value, for error messages."""
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _picture(images: Path, key: str) -> Path:
    """File of a key: a path inside the folder, or the name of a file in it."""
    for path in (images / key, images / Path(key).name):
        if path.resolve().is_relative_to(images.resolve()) and path.is_file():
            return path
    raise DataError(
        f"There is no picture {key} in {images}. Add it, or remove its entry from the answers."
    )
