"""Defenses at the outputs: what holds for every one, what each computes, and who uses them."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from denature.answers.answerer import Answers
from denature.answers.function import FunctionAnswerer
from denature.answers.kinds import ANSWER_KINDS, AnswerKind
from denature.answers.transfer import Transfer
from denature.core.errors import ConfigError
from denature.defenses.adaptive_misinformation import AdaptiveMisinformation
from denature.defenses.base import Chain, Context, Defended, Defense
from denature.defenses.catalogue import DEFENSES, chain_of, defense_of
from denature.defenses.dirichlet_noise import DirichletNoise
from denature.defenses.gaussian_noise import GaussianNoise
from denature.defenses.gradient_redirection import GradientRedirection
from denature.defenses.label_only import LabelOnly
from denature.defenses.mad import MAD
from denature.defenses.modelguard_s import ModelGuardS
from denature.defenses.modelguard_w import ModelGuardW
from denature.defenses.reverse_sigmoid import ReverseSigmoid
from denature.defenses.rounding import Rounding
from denature.defenses.sparse_logits import SparseLogits
from denature.defenses.temperature import Temperature
from denature.defenses.top_k import TopK
from denature.extract.victims.local import answerer_of, local, victim_of
from denature.serve.app import create_app
from denature.serve.config import Exposure, ServedModel, Serving
from denature.train import Normal, Run, Training, train
from tests import plain_defenses as plain
from tests import plain_perturbations
from tests.defending import (
    adversarial_logits,
    alike,
    answers_of,
    defended,
    in_kind,
    networks_for,
    part_of,
    pixels_for,
    same,
    stream_of,
)
from tests.plain_defenses import Plain

NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is known of a defense: an example, its definition, and which properties hold."""

    defense: Defense
    options: dict[str, str]
    """The same options as text."""
    plain: Plain | None = None
    """The definition, one answer after another; None where another test has it."""
    given: tuple[AnswerKind, list[Any]] | None = None
    """An answer, to which `wanted` is the shown one; None where only the definition is known."""
    wanted: tuple[AnswerKind, list[Any]] | None = None
    idempotent: bool = True
    distribution: bool = False
    """Whether all probabilities are shown, as a distribution."""


ROWS: dict[str, Row] = {
    "label-only": Row(
        defense=LabelOnly(),
        options={},
        plain=plain.label_only,
        given=("probabilities", [[0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [NAN, NAN, 0.1]]),
        wanted=("label", [1, 0, 2]),
    ),
    "top-k": Row(
        defense=TopK(k=2),
        options={"k": "2"},
        plain=partial(plain.top_k, k=2),
        given=("logits", [[3.0, -1.0, 5.0], [1.0, 1.0, 1.0]]),
        wanted=("logits", [[3.0, NAN, 5.0], [1.0, 1.0, NAN]]),
    ),
    "rounding": Row(
        defense=Rounding(decimals=1),
        options={"decimals": "1"},
        given=("probabilities", [[0.75, 0.25, 0.0], [0.34, 0.36, 0.3]]),
        wanted=("probabilities", [[0.8, 0.2, 0.0], [0.3, 0.4, 0.3]]),  # halves to the even digit
    ),
    "temperature": Row(
        defense=Temperature(temperature=2),
        options={"temperature": "2"},
        plain=partial(plain.temperature, temperature=2),
        given=("probabilities", [[0.64, 0.36, 0.0], [0.25, 0.25, 0.5]]),
        wanted=("probabilities", [[4 / 7, 3 / 7, 0.0], [1 / (2 + 2**0.5)] * 2 + [2**0.5 - 1]]),
        idempotent=False,
        distribution=True,
    ),
    "sparse-logits": Row(
        defense=SparseLogits(ratio=0.5),
        options={"ratio": "0.5"},
        plain=partial(plain.sparse_logits, percent=50),
        given=("logits", [[3.0, -1.0, 5.0, 4.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0]]),
        wanted=("logits", [[NAN, NAN, 5.0, 4.0, NAN], [1.0, 1.0, NAN, NAN, NAN]]),
    ),
    "gaussian-noise": Row(
        defense=GaussianNoise(scale=0.5),
        options={"scale": "0.5", "space": "scores"},
        plain=partial(plain.gaussian_noise, scale=0.5),
        idempotent=False,
        distribution=True,
    ),
    "dirichlet-noise": Row(
        defense=DirichletNoise(concentration=4),
        options={"concentration": "4"},
        plain=partial(plain.dirichlet_noise, concentration=4),
        idempotent=False,
        distribution=True,
    ),
    "reverse-sigmoid": Row(
        defense=ReverseSigmoid(beta=1, gamma=0.5),
        options={"beta": "1", "gamma": "0.5"},
        plain=partial(plain.reverse_sigmoid, beta=1, gamma=0.5),
        # The odds are 4 and 1/4, their square roots 2 and 1/2, the sigmoids 2/3 and 1/3.
        given=("probabilities", [[0.8, 0.2], [0.0, 1.0]]),
        wanted=("probabilities", [[0.8 - 1 / 6, 0.2 + 1 / 6], [0.5, 0.5]]),
        idempotent=False,
        distribution=True,
    ),
    "modelguard-s": Row(
        defense=ModelGuardS(epsilon=0.5),
        options={"epsilon": "0.5"},
        plain=partial(plain.modelguard_s, epsilon=0.5),
        # The third is nearer to the second, but the first is older; the last is of another class.
        given=("probabilities", [[0.95, 0.05], [0.6, 0.4], [0.71, 0.29], [0.45, 0.55]]),
        wanted=("probabilities", [[0.95, 0.05], [0.6, 0.4], [0.95, 0.05], [0.45, 0.55]]),
        distribution=True,
    ),
    "adaptive-misinformation": Row(
        defense=AdaptiveMisinformation(tau=0.9, nu=10),
        options={"tau": "0.9", "nu": "10"},
        plain=partial(plain_perturbations.adaptive_misinformation, tau=0.9, nu=10),
        idempotent=False,
        distribution=True,
    ),
    "mad": Row(
        defense=MAD(epsilon=0.8),
        options={"epsilon": "0.8"},
        plain=partial(plain_perturbations.mad, epsilon=0.8),
        idempotent=False,
        distribution=True,
    ),
    "gradient-redirection": Row(
        defense=GradientRedirection(epsilon=0.8),
        options={"epsilon": "0.8"},
        plain=partial(plain_perturbations.gradient_redirection, epsilon=0.8),
        idempotent=False,
        distribution=True,
    ),
    "modelguard-w": Row(
        defense=ModelGuardW(),
        options={"epsilon": "1"},
        given=("probabilities", [[0.9, 0.08, 0.02], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0]]),
        wanted=("probabilities", [[0.4, 0.2001, 0.3999], [0.0001, 0.4999, 0.5],
                                  [0.50005, 0, 0.49995]]),
        idempotent=False,
        distribution=True,
    ),
}  # fmt: skip


EVERY = [(name, kind) for name in DEFENSES for kind in DEFENSES[name].takes]

each_kind = pytest.mark.parametrize(("name", "kind"), EVERY)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def test_each_defense_has_a_row_and_its_name() -> None:
    assert ROWS.keys() == DEFENSES.keys()
    for name, row in ROWS.items():
        assert (row.defense.name, type(row.defense)) == (name, DEFENSES[name])
        assert defense_of(name, row.options) == row.defense
        assert chain_of(row.defense.spelled) == Chain((row.defense,))


@pytest.mark.parametrize("name", [name for name in ROWS if ROWS[name].given])
def test_each_defense_computes_what_its_formula_says(name: str) -> None:
    row = ROWS[name]
    assert row.given is not None and row.wanted is not None  # noqa: PT018
    (kind, values), (wanted_kind, wanted) = row.given, row.wanted
    found = defended(row.defense, Answers(kind, torch.tensor(values)))
    assert found.kind == wanted_kind
    torch.testing.assert_close(found.values, torch.tensor(wanted), equal_nan=True)


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n, k in EVERY if ROWS[n].plain])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
@pytest.mark.parametrize("classes", [6, 50])
def test_each_defense_agrees_with_its_definition_one_answer_after_another(
    name: str, kind: AnswerKind, dtype: torch.dtype, within: float, classes: int
) -> None:
    defense, definition = ROWS[name].defense, ROWS[name].plain
    assert definition is not None
    answers = answers_of(kind, classes=classes, dtype=dtype)
    evidence = None
    if defense.role is not None:
        network = networks_for(defense, classes)[defense.role]
        evidence = defense.look(network, pixels_for(len(answers.values)))
    found = defended(defense, answers).values
    wanted = definition(answers.values.tolist(), kind, evidence)
    torch.testing.assert_close(
        found, torch.tensor(wanted, dtype=found.dtype), rtol=within, atol=within, equal_nan=True
    )


@each_kind
@each_dtype
def test_kind_shape_and_dtype_are_as_declared(
    name: str, kind: AnswerKind, dtype: torch.dtype
) -> None:
    defense, answers = ROWS[name].defense, answers_of(kind, dtype=dtype)
    found = defended(defense, answers)
    assert found.kind == defense.kind(kind) == (defense.gives or kind)
    if found.kind == "label":
        assert (found.values.shape, found.values.dtype) == ((40,), torch.int64)
    else:
        assert (found.values.shape, found.values.dtype) == ((40, 6), dtype)


@pytest.mark.parametrize("name", DEFENSES)
def test_other_kinds_are_refused(name: str) -> None:
    defense = ROWS[name].defense
    for kind in set(ANSWER_KINDS) - set(defense.takes):
        with pytest.raises(ConfigError, match=f"The defense {name} takes .*, not {kind};"):
            defended(defense, answers_of(kind))


def keeps_top(given: Answers, shown: Answers) -> Tensor:
    """For each answer, whether the predicted class has the largest shown value."""
    top = given.values if given.kind == "label" else given.values.argmax(1)
    if shown.kind == "label":
        return shown.values == top
    scores = shown.values.nan_to_num(nan=float("-inf"))
    return scores.gather(1, top[:, None])[:, 0] == scores.amax(1)


@each_kind
@each_dtype
def test_the_predicted_class_is_kept_as_declared(
    name: str, kind: AnswerKind, dtype: torch.dtype
) -> None:
    if kind == "landmarks":
        return
    defense, kept = ROWS[name].defense, []
    for classes in (2, 10, 100, 1000):
        answers = in_kind(adversarial_logits(classes, dtype), kind, dtype)
        kept.append(keeps_top(answers, defended(defense, answers)).all())
    assert all(kept) == defense.keeps_top


@each_kind
@each_dtype
def test_adversarial_answers_are_shown_as_finite_ones_and_distributions(
    name: str, kind: AnswerKind, dtype: torch.dtype
) -> None:
    if kind in ("label", "landmarks"):
        return
    for classes in (2, 10, 100, 1000):
        found = defended(
            ROWS[name].defense, in_kind(adversarial_logits(classes, dtype), kind, dtype)
        )
        assert not found.values.isinf().any()
        assert not found.values.isnan().all(-1).any()  # hidden values are NaN, but never all
        if ROWS[name].distribution:
            assert not found.values.isnan().any()
        if ROWS[name].distribution and found.kind == "probabilities":
            assert (found.values >= 0).all()
            assert ((found.values.double().sum(1) - 1).abs() < 1e-5).all()


@pytest.mark.parametrize("name", [n for n in DEFENSES if "probabilities" in DEFENSES[n].takes])
def test_a_distribution_stays_one_where_it_does(name: str) -> None:
    defense = ROWS[name].defense
    values = defended(defense, answers_of("probabilities", dtype=torch.float64)).values
    within = 1e-12 if defense.role is None else 1e-6  # networks compute in float32
    stays = values.ndim == 2 and bool(((values.sum(1) - 1).abs() < within).all())
    assert stays == ROWS[name].distribution


@each_kind
def test_a_second_time_changes_nothing_where_it_is_idempotent(name: str, kind: AnswerKind) -> None:
    defense = ROWS[name].defense
    once = defended(defense, answers_of(kind))
    if once.kind in defense.takes:
        assert same(defended(defense, once).values, once.values) == ROWS[name].idempotent


@each_kind
def test_a_batch_is_its_answers_one_after_another(name: str, kind: AnswerKind) -> None:
    defense, answers = ROWS[name].defense, answers_of(kind)
    whole = defended(defense, answers).values
    single, few = stream_of(defense), stream_of(defense)
    one_by_one = torch.cat([part_of(answers, single, [place]) for place in range(40)])
    cuts = [slice(0, 7), slice(7, 7), slice(7, 40)]
    in_batches = torch.cat([part_of(answers, few, cut) for cut in cuts])
    assert alike(defense, one_by_one, whole)
    assert alike(defense, in_batches, whole)


@each_kind
def test_an_answer_depends_on_no_other_without_a_memory(name: str, kind: AnswerKind) -> None:
    defense, answers = ROWS[name].defense, answers_of(kind)
    if defense.begin(0) is not None:
        return
    whole = defended(defense, answers).values
    for places in ([7], [39, 0, 7], list(range(40))[::-1]):
        assert alike(defense, part_of(answers, stream_of(defense), places), whole[places])


@each_kind
def test_a_seed_decides_the_answers_of_random_defenses_alone(name: str, kind: AnswerKind) -> None:
    defense, answers = ROWS[name].defense, answers_of(kind)
    first, again, other = (defended(defense, answers, seed=seed).values for seed in (3, 3, 4))
    assert same(first, again)
    assert same(first, other) == (not defense.random)


@each_kind
def test_equal_answers_are_shown_differently_by_random_defenses_alone(
    name: str, kind: AnswerKind
) -> None:
    defense, stream = ROWS[name].defense, stream_of(ROWS[name].defense)
    first, second = (part_of(answers_of(kind), stream, [1]) for _ in range(2))
    assert same(first, second) == (not defense.random)


@each_kind
def test_a_saved_stream_continues_to_the_bit(name: str, kind: AnswerKind) -> None:
    defense, answers = ROWS[name].defense, answers_of(kind)
    one, other = stream_of(defense), stream_of(defense, seed=9)
    part_of(answers, one, slice(0, 15))
    saved = save(one.state())
    wanted = part_of(answers, one, slice(15, 40))
    other.restore(load(saved))
    assert same(part_of(answers, other, slice(15, 40)), wanted)
    if defense.begin(0) is not None:
        assert one.state()
        assert not same(part_of(answers, stream_of(defense, seed=9), slice(15, 40)), wanted)


@pytest.mark.parametrize("name", [name for name in DEFENSES if DEFENSES[name].perturbs])
def test_a_perturbing_defense_changes_shown_scores(name: str) -> None:
    for kind in DEFENSES[name].takes:
        answers = answers_of(kind)
        true = answers.values
        if kind == "logits" and DEFENSES[name].gives == "probabilities":
            true = true.softmax(1)
        shown = defended(ROWS[name].defense, answers).values
        assert ((shown - true).abs() > 0.05).any()


@each_kind
def test_the_given_answers_are_not_written_to(name: str, kind: AnswerKind) -> None:
    answers = answers_of(kind)
    before = answers.values.clone()
    defended(ROWS[name].defense, answers)
    assert same(answers.values, before)


def test_a_temperature_of_logits_is_that_of_their_probabilities() -> None:
    cold, logits = Temperature(temperature=3), answers_of("logits", dtype=torch.float64)
    soft = Answers("probabilities", logits.values.softmax(1))
    torch.testing.assert_close(cold(logits).values.softmax(1), cold(soft).values)


def test_rounding_takes_tens_and_leaves_labels() -> None:
    tens = Rounding(decimals=-1)(Answers("logits", torch.tensor([[14.0, 15.0, -26.0]])))
    assert tens.values.tolist() == [[10, 20, -30]]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("prayer", {}, "There is no defense 'prayer'"),
        ("top-k", {"n": "3"}, "has no option 'n'; known: k"),
        ("label-only", {"n": "3"}, "known: none"),
        ("top-k", {"k": "many"}, "cannot be read"),
        ("top-k", {"k": "0"}, "at least 1"),
        ("temperature", {"temperature": "0"}, "above 0"),
        ("rounding", {"decimals": "16"}, "-8 to 15"),
    ],
)
def test_what_the_catalogue_does_not_hold_is_told(
    name: str, options: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        defense_of(name, options)


# Answerers


def brightness(images: np.ndarray) -> np.ndarray:
    """Two scores of an image: its mean, and the rest to 1."""
    means = images.mean(axis=(1, 2, 3))
    return np.stack([means, 1 - means], axis=1)


IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_defended_answerer_is_one() -> None:
    plain = FunctionAnswerer(brightness, name="b", kind="probabilities")
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
    other = Defended(
        FunctionAnswerer(brightness, name="c", kind="logits"), Chain((Rounding(decimals=1),))
    )
    digests = {answerer.digest for answerer in (plain, once, twice, finer, other)}
    assert len(digests) == 5
    assert again.digest == once.digest
    with pytest.raises(ConfigError, match="takes logits, probabilities, not label"):
        Defended(twice, Chain((TopK(),)))


@pytest.mark.parametrize(
    ("function", "kind", "said"),
    [
        (lambda images: images, "logits", "wanted are floats"),
        (lambda images: np.zeros(len(images)), "label", "wanted are floats"),
        (lambda images: np.zeros((len(images), 2)), "label", "which is no label"),
        (lambda images: np.zeros(len(images), np.int32), "logits", "which is no logits"),
    ],
)
def test_a_function_that_answers_otherwise_is_refused(function: Any, kind: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        FunctionAnswerer(function, name="f", kind=kind)(IMAGES)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    learning = Training(epochs=2, batch_size=64, device="cpu", precision="fp32")
    return train("mlp", "digits", Normal(), learning, out=tmp_path_factory.mktemp("runs") / "mlp")


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
        ("defense=label-only", "gives label, but probabilities are shown; use show=label"),
        ("defense=top-k+n=3", "has no option 'n'"),
        ("n=3", "A model has no option 'n'; known: show, top, decimals, defense"),
    ):
        with pytest.raises(ConfigError, match=said):
            ServedModel.of(f"m={run.folder}@{options}", Exposure()).resolved()
    warm = served(f"m={run.folder}@defense=temperature+temperature=2.5", PIXELS)
    with torch.no_grad():
        logits = run.network(torch.from_numpy(PIXELS).float() / 255)
    np.testing.assert_allclose(warm, (logits / 2.5).softmax(1).numpy(), atol=1e-5)
