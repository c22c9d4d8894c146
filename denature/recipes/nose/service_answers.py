"""What a service said of pictures: asked across a wire, or as somebody wrote it down."""

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
from denature.core.stopping import Stopper
from denature.data.config import DataConfig
from denature.data.dataset import Dataset, Split
from denature.data.decode import Block, Decoder, Encoded
from denature.data.landmarks import WIDEST
from denature.data.loading import groups_of
from denature.extract.config import RequestConfig
from denature.extract.ledger import Ledger
from denature.extract.oracle import Oracle
from denature.extract.pool import StoredPool
from denature.extract.victims.base import Victim, VictimInfo
from denature.extract.victims.rekognition import numbers, outputs_of
from denature.recipes.nose.settings import VALUES

HOLDOUT = 0.2
"""Share of the pictures, or groups of them, to test on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ServiceAnswers:
    """Pictures with what a service said of them, one row of `VALUES` each."""

    who: str
    source: str
    """Of the pictures."""
    train: Split
    test: Split
    truth: torch.Tensor | None
    """Where people see the places in the test pictures; brightness and sharpness are NaN. None
    where nobody looked."""
    queries: int
    """That were or may have been billed, lost ones among them."""
    unseen: int
    """Pictures in which it found no face."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the numbers."""
        return outputs_of(VALUES)

    def dataset(self, values: Sequence[str]) -> Dataset:
        """What a clone of some of the values learns and is tested on: the service's answers."""
        names = outputs_of(values)
        columns = [self.outputs.index(name) for name in names]

        def cut(split: Split) -> Split:
            return replace(split, labels=split.labels[:, columns].contiguous())

        found = hashlib.sha256()
        for split in (self.train, self.test):
            found.update(split.images[split.rows].numpy().data)
            found.update(split.labels[split.rows].numpy().data)
        return Dataset(
            config=DataConfig(source=self.source),
            train=cut(self.train),
            test=cut(self.test),
            validation=None,
            classes=names,
            digest=hashlib.sha256(f"{found.hexdigest()} {names}".encode()).hexdigest()[:16],
            test_origin="what the service says of the test pictures",
        )

    def seen_by_people(self, values: Sequence[str]) -> Split | None:
        """The test split with people's landmarks in the place of the service's answers."""
        names = outputs_of(values)
        if self.truth is None or not all(name.endswith((".x", ".y")) for name in names):
            return None
        columns = [self.outputs.index(name) for name in names]
        return replace(self.test, labels=self.truth[:, columns].contiguous())


def query_service(
    service: Callable[[], AbstractContextManager[Victim]],
    *,
    who: str,
    pool: Split,
    data: Dataset,
    fidelity: int,
    ledger: Path,
    price: float | None,
    stopper: Stopper,
    progress: Progress,
) -> ServiceAnswers:
    """Ask about all pictures of a pool, and about some test pictures on a budget of their own.

    Args:
        service: who is asked; entered if something was not asked yet.
        who: by which its answers are kept, whatever port it has today.
        pool: pictures of persons that are not in the victim's training.
        data: brings the test pictures with people's landmarks.
        fidelity: test pictures to ask about.
        ledger: where all is written down.
        price: of a query in US dollars.
        stopper: asked whether to stop.
        progress: told how far it is.

    Raises:
        AskFailed, BudgetSpent, Stopped: see `denature.extract.oracle.Oracle.ask`.
    """
    test = data.test
    if fidelity < len(test):
        test = test.take(np.linspace(0, len(test) - 1, fidelity).round().astype(np.int64))
    outputs = outputs_of(VALUES)
    about = VictimInfo(
        target=who,
        options={"values": ",".join(VALUES)},
        kind="landmarks",
        classes=len(outputs),
        channels=3,
        most=1,
        names=outputs,
    )
    found: list[tuple[torch.Tensor, Split]] = []
    queries = unseen = 0
    with Ledger(ledger) as kept, ExitStack() as stack:
        target, victim = kept.target(about), None
        for purpose, part in (("train", pool), ("measure", test)):
            images = StoredPool(data.config.source, part, data.digest, channels=3)
            contents = images.contents(range(len(part)))
            if not set(contents) <= kept.answers(target).keys():
                victim = victim or stack.enter_context(service())
                oracle = Oracle(
                    victim=victim,
                    ledger=kept,
                    about=about,
                    budget=2 * len(part),  # what is lost is asked once more
                    purpose=purpose,
                    pace=RequestConfig(),
                    price=price,
                    stopper=stopper,
                    progress=progress,
                )
                oracle.ask(images, range(len(part)))
            answers = kept.answers(target)
            labels = torch.from_numpy(np.stack([answers[it][0] for it in contents]))
            seen = labels.isfinite().all(dim=1)
            unseen += int((~seen).sum())
            rows = part.rows[seen]
            found.append((rows, Split(part.images[rows], labels[seen], torch.arange(len(rows)))))
            queries += kept.spent(target, purpose)
    (_, train), (rows, measured) = found
    return ServiceAnswers(
        who=who,
        source=data.config.source,
        train=train,
        test=measured,
        truth=_truth(data, rows, outputs),
        queries=queries,
        unseen=unseen,
    )


def _truth(data: Dataset, rows: torch.Tensor, outputs: Sequence[str]) -> torch.Tensor:
    truth = torch.full((len(rows), len(outputs)), torch.nan)
    for place, name in enumerate(outputs):
        if name in data.classes:
            truth[:, place] = data.test.labels[rows, data.classes.index(name)]
    return truth


def load_recorded(
    images: Path, labels: Path, *, size: int, group: str | None, progress: Progress
) -> ServiceAnswers:
    """Answers that were harvested before: {"path or key": a Rekognition response}, as JSON.

    An entry that holds an error in the place of a response, as harvesters write it, or null, counts
    as a query without an answer; how many there are is told. Any other entry without a list of
    FaceDetails refuses the file.

    Args:
        images: folder of the pictures; a key is a path in it, or ends with the name of one.
        labels: the JSON file.
        size: pixels a side to bring the pictures to.
        group: see `denature.data.config.Reading`; without, pictures are tested on at random.
        progress: told how far it is.

    Raises:
        DataError: no such file, no such picture, or an entry that no service would have said.
    """
    entries = _read(labels)
    responses = {k: it for k, it in entries.items() if it is not None and not _is_failure(it)}
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
            told = ", ".join(f"{number:g}" for number in answer)
            raise DataError(
                f"{labels}: the entry {key!r} tells {told}; wanted are places as fractions of the "
                "picture's sides, and qualities up to 100. Mend or remove that entry."
            )
        encoded.append(Encoded(_picture(images, key), answer, f"{key} in {labels}", key))
    if len(encoded) < 10:
        raise DataError(
            f"{labels} tells places and quality of {len(encoded)} faces; at least 10 are needed."
        )
    decoder = Decoder(image_size=size, skip_bad=False, stretch=True)
    decoder.channels = 3
    with progress.task(f"decoding {images}", len(encoded), "pictures") as task:
        blocks: list[Block] = []
        for block in decoder.blocks(encoded):
            blocks.append(block)
            task.advance(len(block.images))
    everything = Split(
        torch.from_numpy(np.concatenate([block.images for block in blocks])),
        torch.from_numpy(np.concatenate([block.labels for block in blocks])),
        torch.arange(len(encoded)),
        None if group is None else groups_of([it.path for it in encoded], group, str(labels)),
    )
    train, test = everything.divide(HOLDOUT, "holdout")
    return ServiceAnswers(
        who=f"what {labels} says",
        source=str(images),
        train=train,
        test=test,
        truth=None,
        queries=len(entries),
        unseen=unseen,
    )


ERRORS = ("Error", "error", "errors", "Exception", "__type", "errorMessage", "errorType")
"""Keys under which boto3, AWS and harvesters write down why there is no answer."""


def _is_failure(entry: dict[str, Any] | None) -> bool:
    """Whether an entry says that there was no answer."""
    if entry is None:
        return True
    return entry.get("FaceDetails") is None and any(key in entry for key in ERRORS)


def _read(labels: Path) -> dict[str, dict[str, Any] | None]:
    """All entries; each holds a list of FaceDetails, or a failure.

    Raises:
        DataError: it is no such file, or an entry is neither.
    """
    try:
        found = json.loads(labels.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{labels} cannot be read: {error}.") from None
    if (fault := _fault(found)) is not None:
        raise DataError(
            f'{labels} is no JSON of the form {{"path or key": {{"FaceDetails": [...]}}, ...}}, as '
            f'Rekognition answers, with {{"Error": {{...}}}} where it failed: {fault}.'
        )
    return dict(found)


def _fault(found: Any) -> str | None:
    """What is wrong with saved answers: the file as a whole, or its first bad entry."""
    if not isinstance(found, dict) or not found:
        return f"it is {_spelled(found)}"
    for key, entry in found.items():
        if entry is None or (isinstance(entry, dict) and _is_failure(entry)):
            continue
        if not isinstance(entry, dict) or not isinstance(entry.get("FaceDetails"), list):
            return f"the entry {key!r} is {_spelled(entry)}; mend or remove it"
    return None


def _spelled(value: object) -> str:
    """The beginning of a JSON value, for people."""
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _picture(images: Path, key: str) -> Path:
    """The file that a key means: a path inside of the folder, or a name there."""
    for place in (images / key, images / Path(key).name):
        if place.resolve().is_relative_to(images.resolve()) and place.is_file():
            return place
    raise DataError(f"There is no picture {key} in {images}.")
