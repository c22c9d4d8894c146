"""Verdict on a defense against undefended networks: more robust, no evidence, or an illusion.

The gain over undefended networks is measured on the samples that all networks answer rightly, in
one norm, over all budgets together. No favourable budget is picked that way, and a higher clean
accuracy is not taken for robustness. Another seed of an undefended network differs by several
points too: a gain must be larger than the spread between seeds allows
(`denature.core.stats.unpaired_difference`). `tests/test_verdicts.py` simulates how often networks
without any defense get each verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from denature.core.checks import Check
from denature.core.stats import Estimate, unpaired_difference
from denature.robust.catalogue import ATTACKS, ENSEMBLES
from denature.robust.config import budget_text
from denature.robust.masking import LEAST
from denature.robust.outcomes import NORMS, EvaluationData
from denature.robust.summary import Robustness

Word: TypeAlias = Literal["more robust", "no evidence", "mostly an illusion", "an illusion"]

PLAIN = ("fgsm", "pgd")
"""The attacks of an evaluation that does not look for masked gradients."""

SIGN_ATTACKS = ("pgd-unbounded", "pgd-rescaled")
"""Attacks added to any others to detect masked gradients; they decide on no norm."""

CONTROLS = 3
"""Undefended networks that a verdict needs by default: with one alone the spread is unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """Gain of networks over undefended ones under a set of attacks."""

    norm: str
    budgets: tuple[float, ...]
    """Budgets of the mean, with equal weights."""
    ours: float
    """Share of the compared samples that stay right, over networks and budgets."""
    theirs: float
    """The same share of the undefended networks."""
    difference: Estimate
    """Ours less theirs, with an interval over seeds and samples."""

    @property
    def sure(self) -> bool:
        """Whether the gain exceeds the spread between seeds and is at least `LEAST`."""
        return self.difference.low > 0 and self.difference.value >= LEAST


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Verdict on a defense, with the gains behind it."""

    word: Word
    said: str
    samples: int
    """Samples that all compared networks answer rightly and all attacks ran on."""
    networks: tuple[int, int]
    """Seeds of the defense, and undefended networks."""
    apparent: Gain | None
    """Under plain gradient attacks; None where none of them ran."""
    real: Gain
    """Under all attacks; where the defense is behind, under those that ran on both sides."""
    masked: Estimate | None
    """The apparent gain less the real one, network by network; None without an apparent one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """One network's robustness, its checks and its verdict."""

    robustness: Robustness
    checks: tuple[Check, ...]
    verdict: Verdict | None
    """None for an undefended network."""


def judge(
    defended: Sequence[EvaluationData],
    undefended: Sequence[EvaluationData],
    checks: Sequence[Check],
) -> Verdict:
    """Compare the seeds of a defense with undefended networks.

    - *more robust*: the gain under everything is sure, and an ensemble ran on all samples
      (AutoAttack, or PGD on the logits with restarts).
    - *an illusion*: plain gradient attacks show a gain of at least `LEAST`, and more than half of
      it is surely lost under everything. *mostly an illusion*: the same, and what is left is
      surely above 0, or at least `LEAST` and not settled.
    - *no evidence*: everything else. A gain that is not significant is not therefore zero.

    Without gradients the word is always *no evidence*: black-box attacks alone cannot prove a
    network robust.

    Args:
        defended: runs of one recipe, attacked on the same samples.
        undefended: plainly trained networks, attacked in the same way on the same samples.
        checks: checks for masked gradients of the defended networks.
    """
    if any(evidence.target.shows != "gradients" for evidence in defended):
        return _without_gradients(defended, undefended)
    ours = _complete(defended)
    theirs = [name for name in ours if name in _complete(undefended)]
    plain = [name for name in PLAIN if name in theirs]
    norm, ensembles = _norm(theirs)
    compared = _Comparison(defended, undefended, norm, _budgets(defended[0], norm, ensembles))
    apparent, real = compared.gain(plain, plain) if plain else None, compared.gain(ours, theirs)
    if real.difference.high < 0:
        # An attack that ran on the defense alone makes it no less robust than the others.
        real = compared.gain(theirs, theirs)
    # The same attacks on both sides: an attack on the defense alone would look like a mask.
    masked = compared.masked(plain, theirs) if plain else None
    word, sentence = _word(apparent, real, masked, ensembles)
    if not compared.samples.any():
        word = "no evidence"
        sentence = "There is no sample that all compared networks answer rightly."
    elif not theirs:
        word, sentence = "no evidence", "No attack ran to its end on all compared networks."
    if word == "more robust" and len(defended) == 1:
        sentence += (
            " The verdict is about this network; a verdict about its training needs more seeds."
        )
    raised = [check.name for check in checks if check.raised]
    signs = f" Signs of masked gradients: {', '.join(raised)}." if raised else ""
    return Verdict(
        word=word,
        said=sentence + signs,
        samples=int(compared.samples.sum()),
        networks=(len(defended), len(undefended)),
        apparent=apparent,
        real=real,
        masked=masked,
    )


class _Comparison:
    """Networks of two kinds on the samples that all of them answer rightly."""

    def __init__(
        self,
        defended: Sequence[EvaluationData],
        undefended: Sequence[EvaluationData],
        norm: str,
        budgets: tuple[float, ...],
        attacks: Sequence[str] = (),
    ) -> None:
        self.defended, self.undefended = defended, undefended
        self.norm, self.budgets = norm, budgets
        self.samples = np.logical_and.reduce(
            [evidence.right & evidence.seen(attacks) for evidence in (*defended, *undefended)]
        )

    def gain(self, ours: Sequence[str], theirs: Sequence[str]) -> Gain:
        """Gain of the defended networks under `ours` over the undefended ones under `theirs`."""
        held, reference = self._held(self.defended, ours), self._held(self.undefended, theirs)
        return Gain(
            norm=self.norm,
            budgets=self.budgets,
            ours=float(held.mean()) if held.size else 0.0,
            theirs=float(reference.mean()) if reference.size else 0.0,
            difference=self._difference(held, reference),
        )

    def masked(self, plain: Sequence[str], attacks: Sequence[str]) -> Estimate:
        """Loss of the defended networks from plain attacks to all, less that of the undefended."""
        lost = [
            self._held(networks, plain) - self._held(networks, attacks)
            for networks in (self.defended, self.undefended)
        ]
        return self._difference(*lost)

    def _difference(self, ours: np.ndarray, theirs: np.ndarray) -> Estimate:
        """Difference of means; with one undefended network the interval is [-1, 1].

        The spread between seeds of a defense is not that of undefended networks.
        """
        difference = unpaired_difference(ours, theirs)
        if len(self.undefended) > 1:
            return difference
        return Estimate(difference.value, -1.0, 1.0, 1, "seeds")

    def _held(self, networks: Sequence[EvaluationData], attacks: Sequence[str]) -> np.ndarray:
        """Share of the budgets at which a sample stays right, networks x samples."""
        held = [
            [evidence.robust(attacks, self.norm, budget)[self.samples] for budget in self.budgets]
            for evidence in networks
        ]
        shares: np.ndarray = np.asarray(held, np.float64).mean(axis=1)
        return shares


def _word(
    apparent: Gain | None, real: Gain, masked: Estimate | None, ensembles: Sequence[str]
) -> tuple[Word, str]:
    everything = f"Against everything that was tried {_spelled(real)}"
    shown = 0.0 if apparent is None else apparent.difference.value
    if apparent is not None and masked is not None and LEAST <= shown < 2 * masked.low:
        lost = f"{everything[0].lower()}{everything[1:]}"
        sentence = f"Against plain gradient attacks {_spelled(apparent)}; {lost}"
        if real.difference.low > 0:
            return "mostly an illusion", f"{sentence}."
        if real.difference.value >= LEAST:
            return "mostly an illusion", f"{sentence}; whether that much is left is not settled."
        return "an illusion", f"{sentence}."
    if real.sure and ensembles:
        part = ""
        if masked is not None and masked.low > 0:
            part = f" Of what plain gradient attacks show, {_points(masked)} points are masked."
        return "more robust", f"{everything}.{part}"
    if real.sure:
        names = ", ".join(ENSEMBLES.get(real.norm, ())) or f"there is none in {real.norm}"
        return "no evidence", (
            f"{everything}, but no ensemble of attacks ran on all samples ({names}), so that "
            "stronger attacks may take it away."
        )
    if not real.difference.significant:
        return "no evidence", (
            f"{everything}; with one undefended network the spread between seeds is unknown."
        )
    if real.difference.high < 0:
        return "no evidence", f"{everything}: less robust, with the whole interval."
    if real.difference.low > 0:
        return "no evidence", (
            f"{everything}: more than seeds and samples leave open, and less than the "
            f"{100 * LEAST:g} points that count."
        )
    return "no evidence", f"{everything}, which is within what seeds and samples leave open."


def _spelled(gain: Gain) -> str:
    mean = "on average over " if len(gain.budgets) > 1 else ""
    budgets = mean + ", ".join(map(budget_text, gain.budgets))
    low, high = 100 * gain.difference.low, 100 * gain.difference.high
    reach = f"[{low:+.0f}, {high:+.0f}]" if gain.difference.significant else "[n/a]"
    return (
        f"{100 * gain.ours:.0f} % of the samples stay right at {gain.norm} {budgets}, and "
        f"{100 * gain.theirs:.0f} % with undefended networks: "
        f"{100 * gain.difference.value:+.0f} {reach} points"
    )


def _points(gain: Estimate) -> str:
    return f"{100 * gain.value:+.0f} [{100 * gain.low:+.0f}, {100 * gain.high:+.0f}]"


def _complete(evidence: Sequence[EvaluationData]) -> list[str]:
    """Attacks that ran to their end on all samples of all networks."""
    return [name for name in evidence[0].tried if all(name in e.complete for e in evidence)]


def _norm(attacks: Sequence[str]) -> tuple[str, list[str]]:
    """The norm of the verdict, and the ensembles that ran in it.

    linf if an ensemble ran in linf, then l2; without any ensemble the norm of the first attack that
    is not one of `SIGN_ATTACKS`. One norm alone: several comparisons would find a difference by
    chance more often than the level of the intervals allows.
    """
    for norm, names in ENSEMBLES.items():
        if ran := [name for name in names if name in attacks]:
            return norm, ran
    compared = [name for name in attacks if name not in SIGN_ATTACKS]
    return ATTACKS[compared[0]].norm if compared else NORMS[0], []


def _budgets(evidence: EvaluationData, norm: str, ensembles: Sequence[str]) -> tuple[float, ...]:
    """The budgets at which an ensemble ran; all budgets if none did."""
    every = evidence.budgets[norm]
    for name in ensembles:
        if ran := tuple(b for b in every if b in evidence.tried[name].budgets):
            return ran
    return every


def _without_gradients(
    defended: Sequence[EvaluationData], undefended: Sequence[EvaluationData]
) -> Verdict:
    """Verdict by the attacks that ran on all networks, none of which needs gradients."""
    common = [name for name in defended[0].tried if all(
        name in e.everything for e in (*defended, *undefended)
    )]  # fmt: skip
    norm, _ = _norm(common)
    compared = _Comparison(defended, undefended, norm, defended[0].budgets[norm], common)
    gain = compared.gain(common, common)
    shows = defended[0].target.shows.capitalize()
    sentence = f"{shows} are all that it shows, and no attack on them can prove it robust"
    if common and compared.samples.any():
        sentence += f". By {' and '.join(common)}, {_spelled(gain)}"
    else:
        sentence += "; no attack that could be compared ran on both"
    return Verdict(
        word="no evidence",
        said=sentence + ".",
        samples=int(compared.samples.sum()),
        networks=(len(defended), len(undefended)),
        apparent=gain,
        real=gain,
        masked=compared.masked(common, common),
    )
