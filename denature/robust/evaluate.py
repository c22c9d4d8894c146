"""Attack a network with all that an effort has, and keep what came of it, batch by batch."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from denature.attacks import cross_entropy
from denature.core.errors import DenatureError, Stopped
from denature.core.files import atomic_path
from denature.core.progress import SILENT, Progress, Task
from denature.core.seeds import derive, generator
from denature.core.stats import Estimate, mean_over_images, proportion
from denature.core.stopping import Stopper
from denature.core.types import Labels, Pixels
from denature.data.dataset import Dataset, Split
from denature.robust.blackbox import OutOfQueries
from denature.robust.catalogue import ATTACKS, Attack, Scene, budgets_of, chosen, left_out
from denature.robust.config import Asked
from denature.robust.target import Attacked, Shows

NORMS = ("linf", "l2", "l0")

SLACK = 1e-4
"""Share of a budget by which a change may exceed it: sums of floats are no exact distances."""

CHANGED = 1e-5
"""A value that differs by less is the same."""

FEWEST = 5
"""Distances of which a mean is told: the interval of fewer holds the true one too rarely."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """What one attack did to the samples."""

    name: str
    ran: np.ndarray
    """Of each sample whether the attack really ran on it, or nothing was left to do."""
    distances: Mapping[str, np.ndarray]
    """In each norm how far from the image it was fooled; infinite where it was not."""
    found: np.ndarray
    """The changed images that fooled, float32, like the images; else the images themselves."""
    seconds: float
    budgets: tuple[float, ...]
    """At which it was tried, rising; infinite for the smallest change."""
    error: str = ""
    """Why it did not run, where it did not."""
    crashed: bool = False
    """Whether that was an error of the attack, and not the end of the query budget."""

    def fooled(self, norm: str, epsilon: float) -> np.ndarray:
        """Of each sample whether it was fooled within a budget."""
        within: np.ndarray = self.distances[norm] <= np.float64(epsilon * (1 + SLACK) + CHANGED)
        return within


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """All that was found out about one network."""

    target: Attacked
    rows: np.ndarray
    """Of the test samples that were taken."""
    images: np.ndarray
    """Theirs, float32 in [0, 1]."""
    labels: np.ndarray
    classes: int
    right: np.ndarray
    """Of each whether it is answered rightly as it is."""
    flat: np.ndarray
    """Of each whether the gradient of its cross-entropy is 0 or not finite."""
    tried: Mapping[str, Tried]
    budgets: Mapping[str, tuple[float, ...]]

    def robust(self, attacks: Sequence[str], norm: str, epsilon: float) -> np.ndarray:
        """Of each sample whether it stays right against all of these attacks."""
        held = self.right.copy()
        for name in attacks:
            if name in self.tried:
                held &= ~self.tried[name].fooled(norm, epsilon)
        return held

    def seen(self, attacks: Sequence[str]) -> np.ndarray:
        """Of each sample whether all of these attacks ran, or it was wrong before."""
        ran = np.ones(len(self.right), bool)
        for name in attacks:
            ran &= self.tried[name].ran if name in self.tried else False
        sure: np.ndarray = ran | ~self.right
        return sure

    @property
    def everything(self) -> list[str]:
        """All attacks that ran on a sample and did not crash.

        On which samples an attack crashes may depend on how robust they are, so that a share over
        the others would mean nothing. What it found before still counts in `robust`.
        """
        return [
            name
            for name, tried in self.tried.items()
            if tried.ran[self.right].any() and not tried.crashed
        ]

    @property
    def complete(self) -> list[str]:
        """Attacks that ran to their end on all samples."""
        return [name for name, tried in self.tried.items() if tried.ran[self.right].all()]


@dataclass(frozen=True, kw_only=True, slots=True)
class AttackResult:
    """One attack for people and machines."""

    name: str
    norm: str
    robust: dict[str, Estimate]
    """By budget: the share of samples that stay right; over those on which it ran before the query
    budget was spent. Nothing of an attack that crashed: its survivors are no sample."""
    smallest: Estimate | None
    """Mean distance of what fooled, of an attack that looks for the smallest change."""
    fooled: int
    """Samples that it fooled at all."""
    not_run: int
    """Samples on which it failed; they count as nothing."""
    seconds: float
    error: str = ""
    crashed: bool = False
    """Whether the error was the attack's; it then has no share, and no verdict rests on it."""
    note: str = ""
    """What of it could not be run on this data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Robustness:
    """What came out for one network."""

    run: str
    net: str
    kind: str
    digest: str
    shows: Shows
    """What attacks could see."""
    trained_at: float
    """The temperature of its training."""
    cooled_by: float
    """What the attack that knows of temperatures divided its logits by."""
    shows_probabilities: bool
    gap: float
    """Median of the largest logit less the second."""
    flat: float
    """Share of the samples on which the gradient of the cross-entropy is 0 or not finite."""
    samples: tuple[int, ...]
    """Rows of the test split."""
    clean: Estimate
    attacks: tuple[AttackResult, ...]
    worst: dict[str, dict[str, Estimate]]
    """By norm and budget: the share that stays right against everything that ran, over the samples
    on which all of that ran; nothing in norms in which no attack ran."""
    effort: str
    seed: int
    environment: dict[str, object] = field(default_factory=dict)
    chosen_on_test: bool = False
    """Whether the network's epoch was chosen by the test images, which it is attacked on."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), allow_nan=False)


def spell(epsilon: float) -> str:
    """A budget as a key."""
    return f"{epsilon:g}"


def choose(split: Split, count: int, seed: int) -> Split:
    """So many samples of a split, of each class its share, the same every time."""
    if count >= len(split):
        return split
    labels = split.labels[split.rows].numpy()
    order = generator(seed, "robustness").permutation(len(split))
    # Classes in turn: the k-th of each class comes before the k + 1-st of any.
    rank = np.empty(len(split), np.int64)
    for label in np.unique(labels):
        mine = order[labels[order] == label]
        rank[mine] = np.arange(len(mine))
    place = np.empty(len(split), np.int64)
    place[order] = np.arange(len(split))
    return split.take(np.lexsort((place, rank))[:count])


def evaluate(
    target: Attacked,
    surrogate: Attacked | None,
    data: Dataset,
    asked: Asked,
    out: Path,
    *,
    stopper: Stopper | None = None,
    progress: Progress = SILENT,
) -> Evidence:
    """Attack a network; what was done in `out` is not done again.

    Args:
        target: who is attacked.
        surrogate: another network of the same data, whose adversarial images are tried too; without
            one there is no transfer.
        data: brings the test samples; no other split is looked at.
        asked: how hard.
        out: folder for what is found, one file for each attack and batch.
        stopper: asked between batches whether to stop.
        progress: told how far it is.

    Raises:
        ConfigError: an attack that there is not, or that does not work there.
        MissingExtra: a library that is not installed.
        Stopped: the stopper wanted it; ask again to go on.
    """
    trouble, stopper = asked.trouble, stopper or Stopper()
    split = choose(data.test, asked.samples or trouble.samples, asked.seed)
    images = split.images[split.rows].float().div(255).to(target.device)
    labels = split.labels[split.rows].to(target.device)
    right = (target.says(images) == labels).cpu().numpy()
    budgets = asked.budgets(channels=data.channels)
    scene = Scene(
        target=target, surrogate=surrogate, trouble=trouble, seed=asked.seed, data=data.digest
    )
    names = [name for name in chosen(asked, target) if surrogate or name != "transfer"]
    tried: dict[str, Tried] = {}
    total = len(names) * int(right.sum())
    with progress.task(f"attacking {target.name}", total, "images") as task:
        for name in names:
            wanted = budgets_of(name, asked, channels=data.channels)
            tried[name] = _tried(
                name, scene, images, labels, right, wanted, split, asked, out, stopper, task
            )
    return Evidence(
        target=target,
        rows=split.rows.numpy(),
        images=images.cpu().numpy(),
        labels=labels.cpu().numpy(),
        classes=len(data.classes),
        right=right,
        flat=_flat(target, images, labels),
        tried=tried,
        budgets=budgets,
    )


def _tried(
    name: str,
    scene: Scene,
    images: Pixels,
    labels: Labels,
    right: np.ndarray,
    budgets: Sequence[float],
    split: Split,
    asked: Asked,
    out: Path,
    stopper: Stopper,
    task: Task,
) -> Tried:
    """One attack on all samples that are answered rightly."""
    count = len(right)
    ran, found = ~right, images.cpu().numpy().copy()
    distances = {norm: np.full(count, np.inf) for norm in NORMS}
    seconds, error, crashed = 0.0, "", False
    places = np.flatnonzero(right)
    for start in range(0, len(places), asked.batch):
        if stopper.reason:
            raise Stopped(
                stopper.reason,
                f"Stopped by {stopper.reason} before {name}, batch {start // asked.batch + 1}. Run "
                "the same command again to go on.",
            )
        mine = places[start : start + asked.batch]
        rows = split.rows.numpy()[mine]
        key = _key(name, scene, budgets, rows, asked)
        path = out / f"{name}-{start // asked.batch:03d}-{key}.npz"
        if not path.exists():
            clock = time.perf_counter()
            torch.manual_seed(derive(asked.seed, "attack", name, start))
            some = images[torch.from_numpy(mine).to(images.device)]
            try:
                made = _batch(
                    ATTACKS[name],
                    scene,
                    some,
                    labels[torch.from_numpy(mine).to(labels.device)],
                    budgets,
                )
            except DenatureError as failure:
                if not isinstance(failure, OutOfQueries):
                    raise
                error = str(failure)
                task.advance(len(mine), f"{name}: no queries left")
                continue
            except Exception as failure:  # a library may raise anything; it then did not run
                error, crashed = f"{type(failure).__name__}: {failure}", True
                task.advance(len(mine), f"{name} failed")
                continue
            made["seconds"] = np.array(time.perf_counter() - clock)
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, **made)  # type: ignore[arg-type]
        with np.load(path, allow_pickle=False) as kept:
            ran[mine] = True
            found[mine] = kept["found"]
            seconds += float(kept["seconds"])
            for norm in NORMS:
                distances[norm][mine] = kept[norm]
        task.advance(len(mine), name)
    return Tried(
        name=name,
        ran=ran,
        distances=distances,
        found=found,
        seconds=seconds,
        budgets=tuple(budgets),
        error=error,
        crashed=crashed,
    )


def _key(name: str, scene: Scene, budgets: Sequence[float], rows: np.ndarray, asked: Asked) -> str:
    """What makes the results of a batch those results."""
    plain = {
        "attack": name,
        "target": scene.target.digest,
        "undefended": scene.surrogate.digest if scene.surrogate and name == "transfer" else "",
        "trouble": [scene.trouble.steps, scene.trouble.queries, scene.trouble.iterations],
        "budgets": list(budgets),
        "data": scene.data,
        "rows": rows.tolist(),
        "seed": asked.seed,
        "cooled": scene.target.temperature if name == "pgd-cooled" else 1,
    }
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def _batch(
    attack: Attack, scene: Scene, images: Pixels, labels: Labels, budgets: Sequence[float]
) -> dict[str, np.ndarray]:
    """One attack on one batch at rising budgets; who is fooled is left alone after that."""
    best = images.clone()
    open_ = torch.ones(len(images), dtype=torch.bool, device=images.device)
    for epsilon in budgets:
        if not open_.any():
            break
        changed = attack.propose(scene, images[open_], labels[open_], epsilon)
        changed = changed.detach().to(images.device, torch.float32).clamp(0, 1)
        changed = scene.target.as_sent(changed)
        fooled = scene.target.says(changed) != labels[open_]
        places = open_.nonzero()[:, 0][fooled]
        best[places] = changed[fooled]
        open_[places] = False
    return {"found": best.cpu().numpy(), **_distances(images, best, ~open_)}


def _distances(images: Pixels, changed: Pixels, fooled: torch.Tensor) -> dict[str, np.ndarray]:
    """In each norm; infinite where nobody was fooled. l0 counts pixels, of whatever channels."""
    change = (changed - images).abs()
    pixels = (change.amax(dim=1) > CHANGED).flatten(1).sum(dim=1).double()
    flat = change.flatten(1).double()
    measured = {"linf": flat.amax(dim=1), "l2": flat.norm(dim=1), "l0": pixels}
    return {
        norm: torch.where(fooled, value, torch.inf).cpu().numpy()
        for norm, value in measured.items()
    }


def _flat(target: Attacked, images: Pixels, labels: Labels) -> np.ndarray:
    """Of each image whether the gradient of its cross-entropy is 0 everywhere, or not finite."""
    if target.shows != "gradients":
        return np.zeros(len(images), bool)
    found = []
    for some, its in zip(images.split(50), labels.split(50), strict=True):
        at = some.clone().requires_grad_()
        losses = cross_entropy(target(at), its)
        gradient = _gradient(losses, at).flatten(1)
        found.append((gradient == 0).all(dim=1) | ~gradient.isfinite().all(dim=1))
    return np.asarray(torch.cat(found).cpu().numpy())


def _gradient(losses: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Zero where nothing depends on the image at all."""
    if not losses.requires_grad:
        return torch.zeros_like(at)
    [gradient] = torch.autograd.grad(losses.sum(), at, allow_unused=True)
    return torch.zeros_like(at) if gradient is None else gradient


def summary(evidence: Evidence, asked: Asked, environment: dict[str, object]) -> Robustness:
    """The evidence as shares with intervals."""
    target, right = evidence.target, evidence.right
    results = []
    for name, it in evidence.tried.items():
        attack = ATTACKS[name]
        ran = it.ran | ~right
        wanted = evidence.budgets[attack.norm] if attack.only is None else (attack.only,)
        shares = {}
        for epsilon in wanted if ran.any() and not it.crashed else ():
            held = right & ran & ~it.fooled(attack.norm, epsilon)
            shares[spell(epsilon)] = proportion(int(held.sum()), int(ran.sum()))
        fooled = right & np.isfinite(it.distances[attack.norm])
        smallest = None
        if attack.smallest and fooled.sum() >= FEWEST and not it.crashed:
            smallest = mean_over_images(it.distances[attack.norm][fooled].tolist())
        results.append(
            AttackResult(
                name=name,
                norm=attack.norm,
                robust=shares,
                smallest=smallest,
                fooled=int(fooled.sum()),
                not_run=int((~ran).sum()),
                seconds=it.seconds,
                error=it.error,
                crashed=it.crashed,
                note=left_out(name, evidence.classes),
            )
        )
    everything = evidence.everything
    seen = evidence.seen(everything)
    worst: dict[str, dict[str, Estimate]] = {norm: {} for norm in evidence.budgets}
    ran_in = {ATTACKS[name].norm for name in everything}
    for norm, budgets in evidence.budgets.items():
        for epsilon in budgets if norm in ran_in and seen.any() else ():
            # What an attack found before it crashed is found.
            held = evidence.robust(list(evidence.tried), norm, epsilon) & seen
            worst[norm][spell(epsilon)] = proportion(int(held.sum()), int(seen.sum()))
    return Robustness(
        run=target.name,
        net=target.net,
        kind=target.kind,
        digest=target.digest,
        shows=target.shows,
        trained_at=target.trained_at,
        cooled_by=target.temperature,
        shows_probabilities=target.shows_probabilities,
        gap=target.gap,
        flat=float(evidence.flat.mean()),
        samples=tuple(evidence.rows.tolist()),
        clean=proportion(int(right.sum()), len(right)),
        attacks=tuple(results),
        worst=worst,
        effort=asked.effort,
        seed=asked.seed,
        environment=environment,
        chosen_on_test=target.chosen_on_test,
    )
