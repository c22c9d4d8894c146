"""More robust, no evidence, or an illusion: a defense against undefended networks.

What a network keeps over undefended ones is compared on the samples that all of them answer
rightly, in one norm, over all budgets together. So nothing is picked where it looks best, and a
network of higher plain accuracy is not called robust for that. Another seed of an undefended
network differs by several points too: a gain must be larger than the spread between seeds allows
(`denature.core.stats.unpaired_difference`). `tests/test_verdicts.py` simulates how often networks
without any defense are called something.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from denature.core.stats import Estimate, unpaired_difference
from denature.robust.catalogue import ATTACKS, ENSEMBLES
from denature.robust.evaluate import NORMS, Evidence, Robustness, spell
from denature.robust.masking import LEAST, Check

Word: TypeAlias = Literal["more robust", "no evidence", "mostly an illusion", "an illusion"]

PLAIN = ("fgsm", "pgd")
"""The attacks of an evaluation that does not look for masked gradients."""

SIGN_ATTACKS = ("pgd-unbounded", "pgd-cooled")
"""Attacks that are added to any others, to see through masks; they decide on no norm."""

CONTROLS = 3
"""Undefended networks that a verdict needs by default: of one alone the spread is unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """What networks keep over undefended ones against some attacks."""

    norm: str
    budgets: tuple[float, ...]
    """All count alike."""
    ours: float
    """Share of the compared samples that stay right, over networks and budgets."""
    theirs: float
    """Of the undefended networks."""
    difference: Estimate
    """Ours less theirs, with what seeds and samples leave open."""

    @property
    def sure(self) -> bool:
        """Whether it is above what another seed may reach, and at least `LEAST`."""
        return self.difference.low > 0 and self.difference.value >= LEAST


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What can be said of a defense."""

    word: Word
    said: str
    samples: int
    """That all compared networks answer rightly and all attacks ran on."""
    networks: tuple[int, int]
    """Seeds of the defense, and undefended networks."""
    apparent: Gain
    """Under plain gradient attacks."""
    real: Gain
    """Under everything that was tried."""
    masked: Estimate
    """The apparent gain less the real one, network by network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """One network, its checks, and what can be said of it."""

    robustness: Robustness
    checks: tuple[Check, ...]
    verdict: Verdict | None
    """None of the undefended network itself."""


def judge(
    defended: Sequence[Evidence], undefended: Sequence[Evidence], checks: Sequence[Check]
) -> Verdict:
    """Compare the seeds of a defense with undefended networks.

    - *more robust*: the gain under everything is sure, and an ensemble ran on all samples
      (AutoAttack, or PGD on the logits with restarts).
    - *an illusion*: plain gradient attacks show a gain of at least `LEAST`, and more than half of
      it is surely lost under everything. *mostly an illusion*: the same, and what is left is
      surely above 0, or at least `LEAST` and not settled.
    - *no evidence*: everything else. A gain that is not significant is not therefore zero.

    Without gradients the word is always *no evidence*: attacks that see as little cannot prove a
    network robust.

    Args:
        defended: runs of one recipe, attacked on the same samples.
        undefended: plainly trained networks, attacked in the same way on the same samples.
        checks: signs of masked gradients of the first.
    """
    if any(evidence.target.shows != "gradients" for evidence in defended):
        return _without_gradients(defended, undefended)
    ours = _complete(defended)
    theirs = [name for name in ours if name in _complete(undefended)]
    plain = [name for name in PLAIN if name in theirs]
    norm, ensembles = _norm(theirs)
    compared = _Comparison(defended, undefended, norm, _budgets(defended[0], norm, ensembles))
    apparent, real = compared.gain(plain, plain), compared.gain(ours, theirs)
    # By the same attacks on both sides: one that the others never met would pass for a mask.
    masked = compared.masked(plain, theirs)
    word, said = _word(apparent, real, masked, ensembles)
    if not compared.samples.any():
        word, said = "no evidence", "There is no sample that all compared networks answer rightly."
    elif not theirs:
        word, said = "no evidence", "No attack ran to its end on all compared networks."
    if word == "more robust" and len(defended) == 1:
        said += " That is said of this network; of its training only more seeds can tell."
    raised = [check.name for check in checks if check.raised]
    signs = f" Signs of masked gradients: {', '.join(raised)}." if raised else ""
    return Verdict(
        word=word,
        said=said + signs,
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
        defended: Sequence[Evidence],
        undefended: Sequence[Evidence],
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
        """Of the defended networks against some attacks, over the others against others."""
        held, others = self._held(self.defended, ours), self._held(self.undefended, theirs)
        return Gain(
            norm=self.norm,
            budgets=self.budgets,
            ours=float(held.mean()) if held.size else 0.0,
            theirs=float(others.mean()) if others.size else 0.0,
            difference=self._difference(held, others),
        )

    def masked(self, plain: Sequence[str], attacks: Sequence[str]) -> Estimate:
        """What the defended networks lose from plain attacks to all, beyond what the others do."""
        lost = [
            self._held(networks, plain) - self._held(networks, attacks)
            for networks in (self.defended, self.undefended)
        ]
        return self._difference(*lost)

    def _difference(self, ours: np.ndarray, theirs: np.ndarray) -> Estimate:
        """Unsettled with one undefended network: the spread of a defense is not that of others."""
        found = unpaired_difference(ours, theirs)
        if len(self.undefended) > 1:
            return found
        return Estimate(found.value, -1.0, 1.0, 1, "seeds")

    def _held(self, networks: Sequence[Evidence], attacks: Sequence[str]) -> np.ndarray:
        """Networks x samples: at what share of the budgets a sample stays right."""
        held = [
            [evidence.robust(attacks, self.norm, budget)[self.samples] for budget in self.budgets]
            for evidence in networks
        ]
        shares: np.ndarray = np.asarray(held, np.float64).mean(axis=1)
        return shares


def _word(
    apparent: Gain, real: Gain, masked: Estimate, ensembles: Sequence[str]
) -> tuple[Word, str]:
    everything = f"Against everything that was tried {_spelled(real)}"
    shown = apparent.difference.value
    if shown >= LEAST and masked.low > shown / 2:
        lost = f"{everything[0].lower()}{everything[1:]}"
        said = f"Against plain gradient attacks {_spelled(apparent)}; {lost}"
        if real.difference.low > 0:
            return "mostly an illusion", f"{said}."
        if real.difference.value >= LEAST:
            return "mostly an illusion", f"{said}; whether that much is left is not settled."
        return "an illusion", f"{said}."
    if real.sure and ensembles:
        part = ""
        if masked.low > 0:
            part = f" Of what plain gradient attacks show, {_points(masked)} points are masked."
        return "more robust", f"{everything}.{part}"
    if real.sure:
        names = ", ".join(ENSEMBLES.get(real.norm, ())) or f"there is none in {real.norm}"
        return "no evidence", (
            f"{everything}, but no ensemble of attacks ran on all samples ({names}), so that "
            "stronger attacks may take it away."
        )
    if not real.difference.settled:
        return "no evidence", (
            f"{everything}; with one undefended network the spread between seeds is unknown."
        )
    if real.difference.high < 0:
        return "no evidence", f"{everything}: surely less robust."
    if real.difference.low > 0:
        return "no evidence", (
            f"{everything}: more than seeds and samples leave open, and less than the "
            f"{100 * LEAST:g} points that count."
        )
    return "no evidence", f"{everything}, which is within what seeds and samples leave open."


def _spelled(gain: Gain) -> str:
    budgets = " and ".join(map(spell, gain.budgets))
    low, high = 100 * gain.difference.low, 100 * gain.difference.high
    reach = f"[{low:+.0f}, {high:+.0f}]" if gain.difference.settled else "[n/a]"
    return (
        f"{gain.ours:.0%} of the samples stay right at {gain.norm} {budgets}, {gain.theirs:.0%} "
        f"with undefended networks: {100 * gain.difference.value:+.0f} {reach} points"
    )


def _points(found: Estimate) -> str:
    return f"{100 * found.value:+.0f} [{100 * found.low:+.0f}, {100 * found.high:+.0f}]"


def _complete(evidence: Sequence[Evidence]) -> list[str]:
    """Attacks that ran to their end on all samples of all networks."""
    return [name for name in evidence[0].tried if all(name in e.complete for e in evidence)]


def _norm(attacks: Sequence[str]) -> tuple[str, list[str]]:
    """The norm of the verdict, and the ensembles that ran in it.

    linf where an ensemble ran in it, then l2; without any the norm of the first attack, those aside
    that look for signs of masks only. One norm alone: of several looks one would find something
    more often than it should.
    """
    for norm, names in ENSEMBLES.items():
        if ran := [name for name in names if name in attacks]:
            return norm, ran
    compared = [name for name in attacks if name not in SIGN_ATTACKS]
    return ATTACKS[compared[0]].norm if compared else NORMS[0], []


def _budgets(evidence: Evidence, norm: str, ensembles: Sequence[str]) -> tuple[float, ...]:
    """The budgets at which an ensemble ran; all where none did."""
    every = evidence.budgets[norm]
    for name in ensembles:
        if ran := tuple(b for b in every if b in evidence.tried[name].budgets):
            return ran
    return every


def _without_gradients(defended: Sequence[Evidence], undefended: Sequence[Evidence]) -> Verdict:
    """What can be said by the attacks that see as little of all networks."""
    common = [name for name in defended[0].tried if all(
        name in e.everything for e in (*defended, *undefended)
    )]  # fmt: skip
    norm, _ = _norm(common)
    compared = _Comparison(defended, undefended, norm, defended[0].budgets[norm], common)
    gain = compared.gain(common, common)
    shows = defended[0].target.shows.capitalize()
    said = f"{shows} are all that it shows, and no attack on them can prove it robust"
    if common and compared.samples.any():
        said += f". By {' and '.join(common)}, {_spelled(gain)}"
    else:
        said += "; no attack that could be compared ran on both"
    return Verdict(
        word="no evidence",
        said=said + ".",
        samples=int(compared.samples.sum()),
        networks=(len(defended), len(undefended)),
        apparent=gain,
        real=gain,
        masked=compared.masked(common, common),
    )
