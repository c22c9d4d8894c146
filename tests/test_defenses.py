"""Defenses at the outputs: what holds for every one, and what each computes."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from denature.answers.answerer import Answers
from denature.answers.kinds import ANSWER_KINDS, AnswerKind
from denature.core.errors import ConfigError
from denature.defenses.adaptive_misinformation import AdaptiveMisinformation
from denature.defenses.base import Chain, Defense
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


OTHERS: dict[str, Row] = {
    "top-k, renormalised": Row(
        defense=TopK(k=2, renormalise=True),
        options={"k": "2", "renormalise": "true"},
        idempotent=False,
    ),
    "gaussian-noise on log-odds": Row(
        defense=GaussianNoise(scale=0.5, space="log-odds"),
        options={"scale": "0.5", "space": "log-odds"},
        idempotent=False,
        distribution=True,
    ),
    "mad that keeps the class": Row(
        defense=MAD(epsilon=0.8, keep_top=True),
        options={"epsilon": "0.8", "keep_top": "true"},
        idempotent=False,
        distribution=True,
    ),
}
"""Settings that take another way through the code than those of `ROWS`."""

ALL = ROWS | OTHERS


def taken(defense: Defense) -> list[AnswerKind]:
    """Kinds that the defense takes with these options, which may refuse some of its class."""
    refused = getattr(defense, "renormalise", False) or getattr(defense, "space", "") == "log-odds"
    return [kind for kind in defense.takes if kind != "logits" or not refused]


EVERY = [(name, kind) for name in ALL for kind in taken(ALL[name].defense)]

each_kind = pytest.mark.parametrize(("name", "kind"), EVERY)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def test_each_defense_has_a_row_and_its_name() -> None:
    assert ROWS.keys() == DEFENSES.keys()
    for name, row in ROWS.items():
        assert (row.defense.name, type(row.defense)) == (name, DEFENSES[name])
    for row in ALL.values():
        assert defense_of(row.defense.name, row.options) == row.defense
        assert chain_of(row.defense.spelled) == Chain((row.defense,))


@pytest.mark.parametrize("name", [name for name in ALL if ALL[name].given])
def test_each_defense_computes_what_its_formula_says(name: str) -> None:
    row = ALL[name]
    assert row.given is not None and row.wanted is not None  # noqa: PT018
    (kind, values), (wanted_kind, wanted) = row.given, row.wanted
    found = defended(row.defense, Answers(kind, torch.tensor(values)))
    assert found.kind == wanted_kind
    torch.testing.assert_close(found.values, torch.tensor(wanted), equal_nan=True)


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n, k in EVERY if ALL[n].plain])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
@pytest.mark.parametrize("classes", [6, 50])
def test_each_defense_agrees_with_its_definition_one_answer_after_another(
    name: str, kind: AnswerKind, dtype: torch.dtype, within: float, classes: int
) -> None:
    defense, definition = ALL[name].defense, ALL[name].plain
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
    defense, answers = ALL[name].defense, answers_of(kind, dtype=dtype)
    found = defended(defense, answers)
    assert found.kind == defense.kind(kind) == (defense.gives or kind)
    if found.kind == "label":
        assert (found.values.shape, found.values.dtype) == ((40,), torch.int64)
    else:
        assert (found.values.shape, found.values.dtype) == ((40, 6), dtype)


@pytest.mark.parametrize("name", ALL)
def test_other_kinds_are_refused(name: str) -> None:
    defense = ALL[name].defense
    for kind in set(ANSWER_KINDS) - set(defense.takes):
        with pytest.raises(ConfigError, match=f"The defense {defense.name} takes .*, not {kind};"):
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
    defense, kept = ALL[name].defense, []
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
            ALL[name].defense, in_kind(adversarial_logits(classes, dtype), kind, dtype)
        )
        assert not found.values.isinf().any()
        assert not found.values.isnan().all(-1).any()  # hidden values are NaN, but never all
        if ALL[name].distribution:
            assert not found.values.isnan().any()
        if ALL[name].distribution and found.kind == "probabilities":
            assert (found.values >= 0).all()
            assert ((found.values.double().sum(1) - 1).abs() < 1e-5).all()


@pytest.mark.parametrize("name", [n for n in ALL if "probabilities" in ALL[n].defense.takes])
def test_a_distribution_stays_one_where_it_does(name: str) -> None:
    defense = ALL[name].defense
    values = defended(defense, answers_of("probabilities", dtype=torch.float64)).values
    within = 1e-12 if defense.role is None else 1e-6  # networks compute in float32
    stays = values.ndim == 2 and bool(((values.sum(1) - 1).abs() < within).all())
    assert stays == ALL[name].distribution


@each_kind
def test_a_second_time_changes_nothing_where_it_is_idempotent(name: str, kind: AnswerKind) -> None:
    defense = ALL[name].defense
    once = defended(defense, answers_of(kind))
    if once.kind in defense.takes:
        assert same(defended(defense, once).values, once.values) == ALL[name].idempotent


@each_kind
def test_a_batch_is_its_answers_one_after_another(name: str, kind: AnswerKind) -> None:
    defense, answers = ALL[name].defense, answers_of(kind)
    whole = defended(defense, answers).values
    single, few = stream_of(defense), stream_of(defense)
    one_by_one = torch.cat([part_of(answers, single, [place]) for place in range(40)])
    cuts = [slice(0, 7), slice(7, 7), slice(7, 40)]
    in_batches = torch.cat([part_of(answers, few, cut) for cut in cuts])
    assert alike(defense, one_by_one, whole)
    assert alike(defense, in_batches, whole)


@each_kind
def test_an_answer_depends_on_no_other_without_a_memory(name: str, kind: AnswerKind) -> None:
    defense, answers = ALL[name].defense, answers_of(kind)
    if defense.begin(0) is not None:
        return
    whole = defended(defense, answers).values
    for places in ([7], [39, 0, 7], list(range(40))[::-1]):
        assert alike(defense, part_of(answers, stream_of(defense), places), whole[places])


@each_kind
def test_a_seed_decides_the_answers_of_random_defenses_alone(name: str, kind: AnswerKind) -> None:
    defense, answers = ALL[name].defense, answers_of(kind)
    first, again, other = (defended(defense, answers, seed=seed).values for seed in (3, 3, 4))
    assert same(first, again)
    assert same(first, other) == (not defense.random)


@each_kind
def test_equal_answers_are_shown_differently_by_random_defenses_alone(
    name: str, kind: AnswerKind
) -> None:
    defense, stream = ALL[name].defense, stream_of(ALL[name].defense)
    first, second = (part_of(answers_of(kind), stream, [1]) for _ in range(2))
    assert same(first, second) == (not defense.random)


@each_kind
def test_a_saved_stream_continues_to_the_bit(name: str, kind: AnswerKind) -> None:
    defense, answers = ALL[name].defense, answers_of(kind)
    one, other = stream_of(defense), stream_of(defense, seed=9)
    part_of(answers, one, slice(0, 15))
    saved = save(one.state())
    wanted = part_of(answers, one, slice(15, 40))
    other.restore(load(saved))
    assert same(part_of(answers, other, slice(15, 40)), wanted)
    if defense.begin(0) is not None:
        assert one.state()
        assert not same(part_of(answers, stream_of(defense, seed=9), slice(15, 40)), wanted)


@pytest.mark.parametrize("name", [n for n in ALL if ALL[n].defense.perturbs])
def test_a_perturbing_defense_changes_shown_scores(name: str) -> None:
    for kind in taken(ALL[name].defense):
        answers = answers_of(kind)
        true = answers.values
        if kind == "logits" and ALL[name].defense.gives == "probabilities":
            true = true.softmax(1)
        shown = defended(ALL[name].defense, answers).values
        assert ((shown - true).abs() > 0.05).any()


@each_kind
def test_the_given_answers_are_not_written_to(name: str, kind: AnswerKind) -> None:
    answers = answers_of(kind)
    before = answers.values.clone()
    defended(ALL[name].defense, answers)
    assert same(answers.values, before)


def test_a_temperature_of_logits_is_that_of_their_probabilities() -> None:
    cold, logits = Temperature(temperature=3), answers_of("logits", dtype=torch.float64)
    soft = Answers("probabilities", logits.values.softmax(1))
    torch.testing.assert_close(cold(logits).values.softmax(1), cold(soft).values)


def test_rounding_takes_tens_and_leaves_labels() -> None:
    tens = Rounding(decimals=-1)(Answers("logits", torch.tensor([[14.0, 15.0, -26.0]])))
    assert tens.values.tolist() == [[10, 20, -30]]


def test_rounding_leaves_scores_without_such_decimals() -> None:
    large = torch.tensor([[1e30, -1e30, 0.25, NAN]])
    found = Rounding(decimals=15)(Answers("logits", large)).values
    assert same(found, large)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("prayer", {}, "There is no defense 'prayer'"),
        ("top-k", {"n": "3"}, "has no option 'n'; known: k"),
        ("label-only", {"n": "3"}, "known: none"),
        ("top-k", {"k": "many"}, "cannot be read"),
        ("top-k", {"k": "0"}, "at least 1"),
        ("temperature", {"temperature": "0"}, "from 0.001 to 1,000"),
        ("rounding", {"decimals": "16"}, "-8 to 15"),
    ],
)
def test_what_the_catalogue_does_not_hold_is_told(
    name: str, options: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        defense_of(name, options)
