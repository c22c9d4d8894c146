"""Single defenses: special cases of formulas, distributions of noise, damaged memories."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from denature.answers.answerer import Answers
from denature.core.errors import ConfigError, RunError
from denature.defenses.base import Defense
from denature.defenses.catalogue import chain_of
from denature.defenses.codebook import Codebook
from denature.defenses.dirichlet_noise import DirichletNoise
from denature.defenses.gaussian_noise import GaussianNoise
from denature.defenses.modelguard_s import ModelGuardS
from denature.defenses.reverse_sigmoid import ReverseSigmoid
from denature.defenses.sparse_logits import SparseLogits
from denature.defenses.temperature import Temperature
from denature.defenses.top_k import TopK
from tests import plain_defenses as plain
from tests.defending import answers_of, defended, same, stream_of

DOUBLE = torch.float64
assert_equal = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)


def shown(defense: Defense, rows: list[list[float]], *, seed: int = 0) -> Tensor:
    """Shown answers to true probabilities."""
    return defended(
        defense, Answers("probabilities", torch.tensor(rows, dtype=DOUBLE)), seed=seed
    ).values


# The largest scores


@pytest.mark.parametrize("k", [1, 3, 9])
def test_renormalised_top_k_agrees_with_its_definition(k: int) -> None:
    answers = answers_of("probabilities", dtype=DOUBLE)
    found = defended(TopK(k=k, renormalise=True), answers).values
    wanted = plain.top_k(answers.values.tolist(), "probabilities", None, k=k, renormalise=True)
    assert_equal(found, torch.tensor(wanted, dtype=DOUBLE), equal_nan=True)
    assert_equal(found.nansum(1), torch.ones(40, dtype=DOUBLE))


def test_renormalised_top_k_takes_rounded_answers_and_refuses_logits() -> None:
    chain = chain_of("rounding@decimals=1+top-k@k=2+renormalise=true")
    found = chain(Answers("probabilities", torch.tensor([[0.04] * 25, [0.56, 0.44] + [0.0] * 23])))
    assert found.values[:, :2].tolist() == [[0, 0], [pytest.approx(0.6), pytest.approx(0.4)]]
    assert found.values[:, 2:].isnan().all()
    with pytest.raises(ConfigError, match="renormalises probabilities only, not logits"):
        defended(TopK(renormalise=True), answers_of("logits"))


def test_settings_of_top_k_are_those_of_before_it_could_renormalise() -> None:
    assert TopK(k=3).settings == {"defense": {"name": "top-k", "k": 3}}
    assert TopK(k=3, renormalise=True).settings != TopK(k=3).settings


@pytest.mark.parametrize(
    ("ratio", "classes", "count"),
    [(0.2, 10, 2), (0.1, 100, 10), (0.1, 200, 20), (0.1, 9, 1), (0.29, 100, 29), (1, 7, 7)],
)
def test_sparse_logits_show_the_share_that_is_stated(
    ratio: float, classes: int, count: int
) -> None:
    answers = answers_of("logits", classes=classes)
    found = defended(SparseLogits(ratio=ratio), answers).values
    assert ((~found.isnan()).sum(1) == count).all()
    assert same(found, defended(TopK(k=count), answers).values)


# Noise


@pytest.mark.parametrize("space", ["scores", "log-odds"])
@pytest.mark.parametrize("scale", [0.01, 0.2, 5.0])
def test_gaussian_noise_agrees_with_its_definition_at_any_scale(space: str, scale: float) -> None:
    answers = answers_of("probabilities", 400, dtype=DOUBLE)
    noise = GaussianNoise(scale=scale, space=space)  # type: ignore[arg-type]
    found = defended(noise, answers, seed=5).values
    wanted = plain.gaussian_noise(
        answers.values.tolist(), "probabilities", None, scale=scale, space=space, seed=5
    )
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=DOUBLE), rtol=1e-10, atol=1e-10)


def test_a_row_of_noise_below_zero_names_its_largest_class() -> None:
    rows = [[0.5, 0.3, 0.2]] * 200
    found = shown(GaussianNoise(scale=50), rows)
    random = torch.from_numpy(GaussianNoise().begin(0).generator.standard_normal((200, 3)))
    below = (torch.tensor(rows, dtype=DOUBLE) + 50 * random).amax(1) < 0
    assert below.sum() > 10
    assert found[below].sort(1).values.tolist() == [[0, 0, 1]] * int(below.sum())
    assert found[below].argmax(1).tolist() == random[below].argmax(1).tolist()


def test_gaussian_noise_of_logits_is_normal() -> None:
    answers = answers_of("logits", 2000, dtype=DOUBLE)
    noise = (defended(GaussianNoise(scale=3), answers).values - answers.values).flatten().numpy()
    assert stats.kstest(noise, stats.norm(scale=3).cdf).pvalue > 0.01


def test_noise_in_log_odds_keeps_certain_answers_and_is_of_probabilities_only() -> None:
    found = shown(GaussianNoise(scale=0.5, space="log-odds"), [[0.0, 1.0, 0.0]] * 3)
    assert found.tolist() == [[0, 1, 0]] * 3
    with pytest.raises(ConfigError, match="log-odds of probabilities only, not of logits"):
        defended(GaussianNoise(space="log-odds"), answers_of("logits"))


@pytest.mark.parametrize("concentration", [0.5, 20.0])
def test_dirichlet_noise_is_that_distribution_around_the_true_answer(concentration: float) -> None:
    true = [0.7, 0.2, 0.06, 0.04]
    found = shown(DirichletNoise(concentration=concentration), [true] * 20_000)
    for column, y in zip(found.T.numpy(), true, strict=True):
        error = math.sqrt(y * (1 - y) / (concentration + 1) / 20_000)
        assert abs(column.mean() - y) < 4 * error
        marginal = stats.beta(concentration * y, concentration * (1 - y))
        # Draws of a small shape are 0 in float64, which the test of two samples takes as ties.
        drawn = marginal.rvs(20_000, random_state=np.random.default_rng(0))
        assert stats.ks_2samp(column, drawn).pvalue > 0.01


def test_dirichlet_noise_takes_the_smallest_shapes_and_answers_of_zeros() -> None:
    flat = shown(DirichletNoise(concentration=1e-4), [[1e-3] * 1000] * 50)
    assert_equal(flat.sum(1), torch.ones(50, dtype=DOUBLE))
    assert (flat.amax(1) > 0.99).all()
    assert len(flat.argmax(1).unique()) > 40
    rounded = shown(DirichletNoise(), [[0.0] * 30, [1.0] + [0.0] * 29])
    assert rounded.sum(1).tolist() == [pytest.approx(1)] * 2
    assert rounded[1, 0] > 1 - 1e-9


# Reverse sigmoid


def test_a_reverse_sigmoid_of_beta_and_gamma_one_answers_uniformly() -> None:
    for kind in ("logits", "probabilities"):
        found = defended(ReverseSigmoid(beta=1, gamma=1), answers_of(kind, dtype=DOUBLE)).values
        assert_equal(found, torch.full_like(found, 1 / 6))


def test_a_reverse_sigmoid_of_gamma_one_is_a_line_and_of_beta_or_gamma_zero_changes_nothing() -> (
    None
):
    answers = answers_of("probabilities", dtype=DOUBLE)
    line = 0.7 * answers.values + 0.15
    found = defended(ReverseSigmoid(beta=0.3, gamma=1), answers).values
    assert_equal(found, line / line.sum(1, keepdim=True))
    extreme = Answers("probabilities", torch.tensor([[0, 1, 0], [0.5, 0.3, 0.2]], dtype=DOUBLE))
    for still in (ReverseSigmoid(beta=0), ReverseSigmoid(gamma=0)):
        assert_equal(defended(still, extreme).values, extreme.values)


def test_a_reverse_sigmoid_reorders_small_classes_and_loses_the_predicted_one() -> None:
    # literature: .7 .2 .06 .03 .01 at beta 1 and gamma .1 gives .53 .183 .100 .091 .096
    found = shown(ReverseSigmoid(beta=1, gamma=0.1), [[0.7, 0.2, 0.06, 0.03, 0.01]])[0]
    assert found.tolist() == pytest.approx([0.53, 0.183, 0.1, 0.091, 0.096], abs=1e-3)
    many = answers_of("logits", 300, classes=100, dtype=DOUBLE)
    lost = defended(ReverseSigmoid(beta=1, gamma=0.1), many).values.argmax(1)
    assert 0.2 < (lost != many.values.argmax(1)).double().mean() < 0.8


@pytest.mark.parametrize("gap", [0.1, 5.0, 30.0, 200.0])
def test_a_reverse_sigmoid_of_logits_is_exact_where_probabilities_are_saturated(gap: float) -> None:
    # Of two classes the log-odds are the difference of the logits, and f(y) + f(1 - y) = 1.
    [row] = defended(
        ReverseSigmoid(beta=0.8, gamma=0.05),
        Answers("logits", torch.tensor([[gap, 0.0]], dtype=DOUBLE)),
    ).values.tolist()
    y, reverse = 1 / (1 + math.exp(-gap)), 1 / (1 + math.exp(-0.05 * gap))
    assert row[0] == pytest.approx(y - 0.8 * (reverse - 0.5), abs=1e-14)
    assert row[1] == pytest.approx(1 - row[0], abs=1e-14)


# ModelGuard-S


def share_exact(classes: int, epsilon: float) -> float:
    logits = 3 * torch.randn(2000, classes, generator=torch.Generator().manual_seed(1))
    answers = Answers("probabilities", logits.softmax(1))
    found = defended(ModelGuardS(epsilon=epsilon), answers).values
    assert ((found - answers.values).abs().sum(1) <= epsilon + 1e-6).all()
    return float((found == answers.values).all(1).double().mean())


def test_the_codebook_leaks_more_with_more_classes_and_a_smaller_radius() -> None:
    shares = {(k, e): share_exact(k, e) for k in (10, 100) for e in (0.2, 1.0)}
    assert shares[10, 1.0] < 0.05
    assert shares[10, 1.0] < shares[10, 0.2] < shares[100, 0.2]
    assert shares[100, 1.0] > 0.5
    assert shares[100, 0.2] > 0.95


def test_the_codebook_is_shared_and_depends_on_the_order_of_queries() -> None:
    pair = [[0.8, 0.2], [0.7, 0.3]]
    assert shown(ModelGuardS(epsilon=0.3), pair).tolist() == [[0.8, 0.2]] * 2
    assert shown(ModelGuardS(epsilon=0.3), pair[::-1]).tolist() == [[0.7, 0.3]] * 2
    assert shown(ModelGuardS(epsilon=0.1), pair).tolist() == pair


def test_a_full_codebook_shows_what_it_holds_and_grows_no_more() -> None:
    """Where a class has no codeword yet, its first answer still becomes one."""
    book = Codebook(most=6)
    answers = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.99, 0.01], [0.1, 0.9]]).double()
    shown = book.quantised(answers, answers.argmax(-1), 0.01)
    torch.testing.assert_close(shown, answers[[0, 1, 2, 0, 4]])
    more = torch.rand(50, 2, generator=torch.Generator().manual_seed(0)).double()
    more /= more.sum(-1, keepdim=True)
    book.quantised(more, more.argmax(-1), 0.01)
    assert len(book) == 4


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
def test_a_temperature_leaves_distributions_of_any_rounded_answer(values: list[float]) -> None:
    shown = Temperature(temperature=0.001)(Answers("probabilities", torch.tensor([values]))).values
    assert shown.isfinite().all()
    torch.testing.assert_close(shown.sum(), torch.tensor(1.0))
    hidden = Answers("probabilities", torch.tensor([[0.5, torch.nan, 0.2]]))
    with pytest.raises(ConfigError, match="hidden scores"):
        Temperature()(hidden)


def test_a_codebook_counts_its_answers_and_stays_as_it_was_saved() -> None:
    book, answers = Codebook(), torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]).double()
    assert len(book) == 0
    assert {key: tuple(value.shape) for key, value in book.state().items()} == {
        "codewords": (0, 0), "predicted": (0,)
    }  # fmt: skip
    book.quantised(answers[:2], answers[:2].argmax(1), 0.1)
    saved = book.state()
    book.quantised(answers, answers.argmax(1), 0.1)
    assert (len(book), len(saved["codewords"])) == (3, 2)
    book.restore(saved)
    assert len(book) == 2
    empty = Codebook()
    empty.restore(Codebook().state())
    assert same(empty.quantised(answers, answers.argmax(1), 0.1), answers)


def test_a_damaged_memory_is_refused() -> None:
    good = {"codewords": torch.ones(2, 3).double(), "predicted": torch.tensor([0, 1])}
    for bad in (
        {},
        {**good, "predicted": torch.tensor([0])},
        {**good, "codewords": torch.ones(2, 3)},
        {**good, "codewords": torch.ones(2).double()},
    ):
        with pytest.raises(RunError, match="state of a codebook is damaged"):
            Codebook().restore(bad)
    stream = stream_of(ModelGuardS())
    stream.restore({f"0.{name}": tensor for name, tensor in good.items()})
    with pytest.raises(ConfigError, match="holds answers of 3 classes, but got one of 6"):
        stream(answers_of("probabilities"))
    with pytest.raises(RunError, match="state of a random defense is damaged"):
        stream_of(DirichletNoise()).restore({})


# Options and hidden scores


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sparse-logits@ratio=0", "above 0 and at most 1"),
        ("sparse-logits@ratio=1.1", "above 0 and at most 1"),
        ("gaussian-noise@scale=0", "above 0"),
        ("gaussian-noise@space=odds", "Invalid enum value 'odds'"),
        ("dirichlet-noise@concentration=-1", "above 0"),
        ("reverse-sigmoid@beta=2.5", "0 to 2"),
        ("reverse-sigmoid@gamma=-1", "at least 0"),
        ("modelguard-s@epsilon=0", "above 0 and at most 2"),
        ("top-k@k=2+renormalise=maybe", "cannot be read"),
    ],
)
def test_options_out_of_range_are_told(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        chain_of(text)


@pytest.mark.parametrize(
    "text", ["gaussian-noise", "dirichlet-noise", "reverse-sigmoid", "modelguard-s"]
)
def test_hidden_scores_are_refused_where_all_are_needed(text: str) -> None:
    with pytest.raises(ConfigError, match="hidden scores, but needs all"):
        chain_of(f"top-k@k=2+{text}")(answers_of("probabilities"))


@pytest.mark.parametrize(
    "text", ["gaussian-noise@space=log-odds", "dirichlet-noise", "reverse-sigmoid", "modelguard-s"]
)
def test_probabilities_beyond_their_range_by_a_rounding_error_give_distributions(text: str) -> None:
    beyond = torch.tensor([[1 + 2e-7, -1e-9, -1e-9]])
    found = chain_of(text)(Answers("probabilities", beyond)).values
    assert ((found >= 0) & (found <= 1)).all()
    assert float(found.sum()) == pytest.approx(1)
