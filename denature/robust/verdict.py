"""More robust, no evidence, or an illusion: a defense against an undefended network."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from denature.robust.evaluate import Evidence, Robustness, spell
from denature.robust.masking import ACCIDENT, LEAST, Check, chance

Word: TypeAlias = Literal["more robust", "no evidence", "an illusion"]

PLAIN = ("fgsm", "pgd")
"""What somebody tries who does not look for masked gradients."""


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

    A gain under everything makes it more robust. A gain under plain gradient attacks that is gone
    under everything else is an illusion, whatever the checks say. Otherwise there is no evidence,
    as there never is of who shows no gradients: only those who have its weights could tell.
    """
    if defended.target.shows != "gradients":
        return _unseen(defended, undefended)
    apparent = _largest(defended, undefended, list(PLAIN), ("linf",))
    everything = [it for it in defended.everything if it in undefended.everything]
    real = _largest(defended, undefended, everything, tuple(defended.budgets))
    raised = [check.name for check in checks if check.raised]
    signs = f" Signs of masked gradients: {', '.join(raised)}." if raised else ""
    if real.sure:
        word: Word = "more robust"
        said = f"Against everything that was tried {_spelled(real)}."
    elif apparent.sure:
        word = "an illusion"
        said = f"Against plain gradient attacks {_spelled(apparent)}; "
        said += f"against everything {_spelled(real)}."
    else:
        word = "no evidence"
        said = f"Against everything that was tried {_spelled(real)}, which may be an accident."
    return Verdict(word=word, said=said + signs, apparent=apparent, real=real)


def _unseen(defended: Evidence, undefended: Evidence) -> Verdict:
    """Without gradients: what can be said by the attacks that see as little of both."""
    # The undefended network's own gradients make its transfer, which would be unfair to it.
    common = [it for it in defended.everything if it != "transfer" and it in undefended.everything]
    gain = _largest(defended, undefended, common, tuple(defended.budgets))
    said = f"{defended.target.shows.capitalize()} are all that it shows, and no attack on them can "
    said += "prove it robust"
    if not common:
        said += "; none but transfer ran on both networks"
    elif gain.sure:
        said += f": by {' and '.join(common)} {_spelled(gain)}"
    else:
        said += f", nor did one find it to be: by {' and '.join(common)} {_spelled(gain)}"
    return Verdict(word="no evidence", said=said + ".", apparent=gain, real=gain)


def _spelled(gain: Gain) -> str:
    return (
        f"{gain.ours:.0%} of the samples stay right at {gain.norm} {spell(gain.epsilon)}, "
        f"{gain.theirs:.0%} of the undefended network's"
    )


def _largest(
    defended: Evidence, undefended: Evidence, attacks: list[str], norms: tuple[str, ...]
) -> Gain:
    """The budget at which most is won; a sure one comes before one that is not."""
    both = defended.seen(attacks) & undefended.seen(attacks)
    gains = []
    looks = sum(len(defended.budgets[norm]) for norm in norms)
    for norm in norms:
        for epsilon in defended.budgets[norm]:
            ours = defended.robust(attacks, norm, epsilon)[both]
            theirs = undefended.robust(attacks, norm, epsilon)[both]
            more, fewer = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
            count = max(1, int(both.sum()))
            sure = more - fewer >= LEAST * count and chance(more, fewer) < ACCIDENT / looks
            shares = [float(np.mean(it)) if len(it) else 0.0 for it in (ours, theirs)]
            gains.append(
                Gain(norm=norm, epsilon=epsilon, ours=shares[0], theirs=shares[1], sure=sure)
            )
    return max(gains, key=lambda it: (it.sure, it.ours - it.theirs))
