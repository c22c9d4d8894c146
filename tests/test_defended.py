"""Answerers, transfer sets and servers behind a defense."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from denature.answers.answerer import Answers
from denature.answers.function import checked
from denature.answers.kinds import AnswerKind
from denature.answers.transfer import Transfer
from denature.core.errors import ConfigError
from denature.core.types import Pixels
from denature.defenses.base import Chain, Context, Defended, Defense
from denature.defenses.catalogue import DEFENSES
from denature.defenses.label_only import LabelOnly
from denature.defenses.rounding import Rounding
from denature.defenses.top_k import TopK
from denature.extract.victims.local import answerer_of, local, victim_of
from denature.serve.app import create_app
from denature.serve.config import Exposure, ServedModel, Serving
from denature.train import Normal, Run, Training, train
from tests.defending import (
    answers_of,
    same,
)

# Answerers


@dataclass(frozen=True)
class Brightness:
    """Two scores of an image: its mean, and the rest to 1."""

    digest: str
    kind: AnswerKind

    def __call__(self, pixels: Pixels) -> Answers:
        means = pixels.mean(dim=(1, 2, 3))
        return Answers(self.kind, torch.stack([means, 1 - means], dim=1))


IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_defended_answerer_is_one() -> None:
    plain = Brightness("b", "probabilities")
    once = Defended(plain, Chain((Rounding(decimals=1),)))
    twice = Defended(once, Chain((LabelOnly(),)))
    assert (plain.kind, once.kind, twice.kind) == ("probabilities", "probabilities", "label")
    expected = plain(IMAGES).values
    assert same(once(IMAGES).values, expected.round(decimals=1))
    assert same(twice(IMAGES).values, expected.round(decimals=1).argmax(1))
    finer, again = (
        Defended(plain, Chain((Rounding(decimals=2),))),
        Defended(plain, Chain((Rounding(decimals=1),))),
    )
    other = Defended(Brightness("c", "logits"), Chain((Rounding(decimals=1),)))
    digests = {answerer.digest for answerer in (plain, once, twice, finer, other)}
    assert len(digests) == 5
    assert again.digest == once.digest
    with pytest.raises(ConfigError, match="takes logits, probabilities, not label"):
        Defended(twice, Chain((TopK(),)))


@pytest.mark.parametrize(
    "values", [np.zeros((5, 1, 8, 8)), np.zeros(5), np.zeros((5, 2), np.int64), "words"]
)
def test_a_function_that_answers_otherwise_is_refused(values: Any) -> None:
    with pytest.raises(ConfigError, match=r"f answered .*; wanted are floats, batch x classes, or"):
        checked(values, name="f")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    training = Training(epochs=2, batch_size=64, device="cpu", precision="fp32")
    return train("mlp", "digits", Normal(), training, out=tmp_path_factory.mktemp("runs") / "mlp")


def asked(victim: Any, images: np.ndarray) -> np.ndarray:
    async def ask() -> np.ndarray:
        values: np.ndarray = await victim.ask(images, id="1")
        return values

    return asyncio.run(ask())


PIXELS = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8), dtype=np.uint8)


def test_a_run_can_be_a_defended_victim(run: Run) -> None:
    answerer = answerer_of(run, device="cpu")
    plain, hidden = (
        local(run, device="cpu"),
        victim_of(Defended(answerer, Chain((TopK(k=3),))), run),
    )
    full, few = asked(plain, PIXELS), asked(hidden, PIXELS)
    assert np.isnan(few).sum(1).tolist() == [7] * 4
    np.testing.assert_array_equal(np.nanmax(few, 1), full.max(1))
    about, other = asyncio.run(plain.about()), asyncio.run(hidden.about())
    assert about.target == f"mlp {run.digest} probabilities"  # as ledgers of before have it
    assert other.target != about.target  # answers of one are never taken for the other's
    assert (other.kind, other.names) == (about.kind, about.names)
    labels = victim_of(Defended(answerer, Chain((LabelOnly(),))), run)
    assert asked(labels, PIXELS).tolist() == full.argmax(1).tolist()


def test_the_answers_of_a_network_agree_in_all_kinds(run: Run) -> None:
    pixels = torch.from_numpy(PIXELS).float() / 255
    logits, soft, label = (
        answerer_of(run, kind=kind, device="cpu")(pixels)
        for kind in ("logits", "probabilities", "label")
    )
    with torch.no_grad():
        wanted = run.network(pixels)
    torch.testing.assert_close(logits.values, wanted, rtol=1e-4, atol=1e-5)
    assert same(soft.values, logits.values.softmax(1))
    assert same(label.values, logits.values.argmax(1))


# Transfer sets


def test_a_transfer_set_is_defended_once_and_keeps_what_was_answered() -> None:
    transfer = Transfer("probabilities", answers_of("probabilities").values, victim="v", recipe="r")
    labels = transfer.defended(LabelOnly())
    assert labels.as_input().kind == "label"
    assert labels.digest == transfer.digest
    assert same(labels.values, transfer.values)
    assert same(labels.shown(Answers(transfer.kind, transfer.values)).values, transfer.labels)
    with pytest.raises(ConfigError, match="are defended already"):
        labels.defended(Rounding())
    points = Transfer("landmarks", answers_of("landmarks").values, victim="v")
    with pytest.raises(ConfigError, match="not landmarks"):
        points.defended(TopK())


# Serving


@dataclass(frozen=True, kw_only=True)
class Reversed(Defense):
    """Gives the scores of the classes in reverse order."""

    name: ClassVar[str] = "reversed"
    takes: ClassVar[tuple[AnswerKind, ...]] = ("probabilities",)
    keeps_top: ClassVar[bool] = False

    by: int = 0
    """Places by which the reversed scores are shifted."""

    def _change(self, values: Tensor, kind: AnswerKind, context: Context) -> Tensor:
        return values.flip(-1).roll(self.by, -1)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(DEFENSES, "reversed", Reversed)
    yield
    monkeypatch.undo()
    assert "reversed" not in DEFENSES


def served(text: str, images: np.ndarray) -> np.ndarray:
    """The answers of a server in this process to a request in JSON."""
    serving = Serving(models=(ServedModel.of(text, Exposure()),), log="off", device="cpu")
    app = create_app(serving)
    tensor = {"name": "images", "shape": images.shape, "datatype": "UINT8",
              "data": images.reshape(-1).tolist()}  # fmt: skip
    scope = {"type": "http", "method": "POST", "path": "/v2/models/m/infer", "headers": [],
             "query_string": b"", "http_version": "1.1"}  # fmt: skip
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps({"inputs": [tensor]}).encode()}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 200
    [output] = json.loads(b"".join(part.get("body", b"") for part in sent[1:]))["outputs"]
    return np.array(output["data"], np.float32).reshape(output["shape"])


@pytest.mark.usefixtures("toy")
def test_a_new_defense_of_the_catalogue_is_served(run: Run) -> None:
    plain = served(f"m={run.folder}", PIXELS)
    np.testing.assert_allclose(plain.sum(1), 1, atol=1e-6)
    found = served(f"m={run.folder}@defense=reversed+by=2+decimals=3", PIXELS)
    wanted = np.roll(plain[:, ::-1], 2, axis=1).astype(np.float64).round(3)
    np.testing.assert_allclose(found, wanted, atol=1e-7)
    with pytest.raises(ConfigError, match="takes probabilities, not logits"):
        served(f"m={run.folder}@defense=reversed+show=logits", PIXELS)


def test_a_served_defense_is_checked_before_anything_is_served(run: Run) -> None:
    for options, said in (
        ("defense=reversed", "There is no defense 'reversed'"),
        ("defense=label-only+show=logits", "gives label, but show=logits asks for logits"),
        ("defense=top-k+n=3", "has no option 'n'"),
        ("n=3", "A model has no option 'n'; known: show, top, decimals, defense"),
    ):
        with pytest.raises(ConfigError, match=said):
            ServedModel.of(f"m={run.folder}@{options}", Exposure()).resolved()
    warm = served(f"m={run.folder}@defense=temperature+temperature=2.5", PIXELS)
    with torch.no_grad():
        logits = run.network(torch.from_numpy(PIXELS).float() / 255)
    np.testing.assert_allclose(warm, (logits / 2.5).softmax(1).numpy(), atol=1e-5)
