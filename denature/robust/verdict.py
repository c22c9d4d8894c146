"""More robust, no evidence, or an illusion: a defense against an undefended network."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from denature.robust.catalogue import ATTACKS
from denature.robust.evaluate import Evidence, Robustness, spell
from denature.robust.masking import ACCIDENT, LEAST, Check, chance

Word: TypeAlias = Literal["more robust", "no evidence", "an illusion"]

PLAIN = ("fgsm", "pgd")
"""What somebody tries who does not look for masked gradients."""


SEEING = ("pgd-margin", "pgd-cooled", "autoattack")
"""What sees through a softmax that saturates. Without any of these a gain may be a mask."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """What a defense seems to win at one budget, on the same samples."""

    norm: str
    epsilon: float
    ours: float
    """Share that stays right."""
    theirs: float
    """Of the undefended network."""
    sure: bool
    """Whether that is at least `LEAST` of the samples, and no accident."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What can be said of a defense."""

    word: Word
    said: str
    apparent: Gain
    """Under plain gradient attacks, where it is largest."""
    real: Gain
    """Under everything that was tried, where it is largest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """One network, its checks, and what can be said of it."""

    robustness: Robustness
    checks: tuple[Check, ...]
    verdict: Verdict | None
    """None of the undefended network itself."""


def judge(defended: Evidence, undefended: Evidence, checks: list[Check]) -> Verdict:
    """Compare two networks on the samples that both were attacked on.

    A gain under everything makes it more robust, if something that sees through masked gradients
    was tried. A gain under plain gradient attacks that is gone under everything else is an
    illusion, whatever the checks say. Otherwise there is no evidence, as there never is of who
    shows no gradients: only those who have its weights could tell.
    """
    if defended.target.shows != "gradients":
        return _unseen(defended, undefended)
    plain, ours = list(PLAIN), defended.everything
    theirs = [it for it in ours if it in undefended.everything]
    apparent = _most(_gains(defended, undefended, plain, plain))
    real = _most(_gains(defended, undefended, ours, theirs))
    raised = [check.name for check in checks if check.raised]
    signs = f" Signs of masked gradients: {', '.join(raised)}." if raised else ""
    everything = f"against everything that was tried {_spelled(real)}"
    word: Word = "no evidence"
    if real.sure and any(it in SEEING for it in theirs):
        word = "more robust"
        said = f"{everything[0].upper()}{everything[1:]}."
        if raised and apparent.sure:
            said = f"Against plain gradient attacks {_spelled(apparent)}; {everything}."
    elif real.sure:
        said = f"{everything[0].upper()}{everything[1:]}, but nothing was that sees through masked "
        said += f"gradients: {', '.join(SEEING)}."
    elif apparent.sure:
        word = "an illusion"
        said = f"Against plain gradient attacks {_spelled(apparent)}; {everything}."
    else:
        said = f"{everything[0].upper()}{everything[1:]}, which may be an accident."
    return Verdict(word=word, said=said + signs, apparent=apparent, real=real)


def _unseen(defended: Evidence, undefended: Evidence) -> Verdict:
    """Without gradients: what can be said by the attacks that see as little of both."""
    # The undefended network's own gradients make its transfer, which would be unfair to it.
    common = [it for it in defended.everything if it != "transfer" and it in undefended.everything]
    gains = _gains(defended, undefended, common, common)
    most, least = _most(gains), min(gains, key=lambda it: it.ours - it.theirs)
    said = f"{defended.target.shows.capitalize()} are all that it shows, and no attack on them can "
    said += "prove it robust"
    if not common:
        said += "; nothing that could be compared ran on both networks"
    else:
        said += f". By {' and '.join(common)}, where it does best, {_spelled(most)}"
        if least != most:
            said += f"; where it does worst, {_spelled(least)}"
    return Verdict(word="no evidence", said=said + ".", apparent=most, real=most)


def _spelled(gain: Gain) -> str:
    return (
        f"{gain.ours:.0%} of the samples stay right at {gain.norm} {spell(gain.epsilon)}, "
        f"{gain.theirs:.0%} of the undefended network's"
    )


def _most(gains: list[Gain]) -> Gain:
    """Where most is won; a sure gain comes before one that is not."""
    return max(gains, key=lambda it: (it.sure, it.ours - it.theirs))


def _gains(
    defended: Evidence, undefended: Evidence, ours: list[str], theirs: list[str]
) -> list[Gain]:
    """At each budget in the norms that attacks had, on the samples that all of them ran on.

    Args:
        defended: the one network.
        undefended: the other.
        ours: attacks that count against the one.
        theirs: attacks that count against the other.
    """
    both = defended.seen(ours) & undefended.seen(theirs)
    norms = [n for n in defended.budgets if n in {ATTACKS[it].norm for it in (*ours, *theirs)}]
    budgets = [(n, epsilon) for n in norms or ["linf"] for epsilon in defended.budgets[n]]
    gains = []
    for norm, epsilon in budgets:
        held = defended.robust(ours, norm, epsilon)[both]
        its = undefended.robust(theirs, norm, epsilon)[both]
        more, fewer = int((held & ~its).sum()), int((its & ~held).sum())
        sure = more - fewer >= LEAST * max(1, len(held))
        sure = sure and chance(more, fewer) < ACCIDENT / len(budgets)
        shares = [float(np.mean(it)) if len(it) else 0.0 for it in (held, its)]
        gains.append(Gain(norm=norm, epsilon=epsilon, ours=shares[0], theirs=shares[1], sure=sure))
    return gains
