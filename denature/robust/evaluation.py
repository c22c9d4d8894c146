"""Run all attacks of an effort on a network, and store the outcomes batch by batch."""

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
from denature.core.progress import Task
from denature.core.seeds import derive, generator
from denature.core.stats import Estimate, mean_over_images, proportion
from denature.core.stopping import Stopper
from denature.core.types import Labels, Pixels
from denature.data.dataset import Dataset, Split
from denature.robust.blackbox import OutOfQueries
from denature.robust.catalogue import ATTACKS, Attack, AttackContext, budgets_of, chosen, left_out
from denature.robust.config import AttackConfig
from denature.robust.target import AccessLevel, Attacked
from denature.train.session import Session

FORMER_NAMES = {"pgd-rescaled": "pgd-cooled"}

NORMS = ("linf", "l2", "l0")

SLACK = 1e-4
"""Share of a budget by which a change may exceed the budget: sums of floats are inexact."""

CHANGED = 1e-5
"""Values that differ by less count as equal."""

FEWEST = 5
"""Distances of which a mean is told: the interval of fewer holds the true one too rarely."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttackOutcome:
    """Outcome of one attack on the samples."""

    name: str
    ran: np.ndarray
    """Per sample: whether the attack ran, or the sample was misclassified without it."""
    distances: Mapping[str, np.ndarray]
    """By norm: distance of the image that fooled from the original; infinite if none fooled."""
    found: np.ndarray
    """Adversarial examples, float32, shaped like the images; the original image if none fooled."""
    seconds: float
    budgets: tuple[float, ...]
    """Budgets that were tried, in rising order; infinite for attacks that minimise the change."""
    error: str = ""
    """Why the attack did not run; empty if it ran."""
    crashed: bool = False
    """Whether the attack itself failed, in contrast to an exhausted query budget."""

    def fooled(self, norm: str, epsilon: float) -> np.ndarray:
        """Per sample: whether an adversarial example lies within a budget."""
        within: np.ndarray = self.distances[norm] <= np.float64(epsilon * (1 + SLACK) + CHANGED)
        return within


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationData:
    """Samples, outcomes of all attacks, and budgets of one network."""

    target: Attacked
    rows: np.ndarray
    """Rows of the chosen test samples."""
    images: np.ndarray
    """Images of the samples, float32 in [0, 1]."""
    labels: np.ndarray
    classes: int
    right: np.ndarray
    """Per sample: whether the unchanged image is answered rightly."""
    flat: np.ndarray
    """Per sample: whether the gradient of the cross-entropy is 0 or not finite."""
    tried: Mapping[str, AttackOutcome]
    budgets: Mapping[str, tuple[float, ...]]

    def robust(self, attacks: Sequence[str], norm: str, epsilon: float) -> np.ndarray:
        """Per sample: whether it stays right against all of these attacks."""
        held = self.right.copy()
        for name in attacks:
            if name in self.tried:
                held &= ~self.tried[name].fooled(norm, epsilon)
        return held

    def seen(self, attacks: Sequence[str]) -> np.ndarray:
        """Per sample: whether all of these attacks ran, or the unchanged image is misclassified."""
        ran = np.ones(len(self.right), bool)
        for name in attacks:
            ran &= self.tried[name].ran if name in self.tried else False
        sure: np.ndarray = ran | ~self.right
        return sure

    @property
    def everything(self) -> list[str]:
        """Attacks that ran on at least one sample and did not crash.

        The samples on which an attack crashes may depend on their robustness, so that a share over
        the others would mean nothing. Adversarial examples found before a crash count in `robust`.
        """
        return [
            name
            for name, outcome in self.tried.items()
            if outcome.ran[self.right].any() and not outcome.crashed
        ]

    @property
    def complete(self) -> list[str]:
        """Attacks that ran to their end on all samples."""
        return [name for name, outcome in self.tried.items() if outcome.ran[self.right].all()]


@dataclass(frozen=True, kw_only=True, slots=True)
class AttackResult:
    """One attack's shares and distances, for reports and JSON."""

    name: str
    norm: str
    robust: dict[str, Estimate]
    """By budget: the share of samples that stay right, over those on which the attack ran before
    the query budget was spent. Empty for an attack that crashed: its survivors are no sample."""
    smallest: Estimate | None
    """Mean distance of the adversarial examples, for an attack that minimises the change."""
    fooled: int
    """Samples with an adversarial example at any distance."""
    not_run: int
    """Samples on which the attack did not run; they count nowhere."""
    seconds: float
    error: str = ""
    crashed: bool = False
    """Whether the attack itself failed; it then has no share, and no verdict rests on it."""
    note: str = ""
    """Part of the attack that could not run on this data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Robustness:
    """Robustness of one network under all attacks."""

    run: str
    net: str
    kind: str
    digest: str
    shows: AccessLevel
    """Outputs that attacks could see."""
    trained_at: float
    """The training temperature."""
    attack_temperature: float
    """Divisor of the logits in pgd-rescaled."""
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
    """By norm and budget: the share that stays right against all attacks that ran, over the samples
    on which all of them ran; empty for norms in which no attack ran."""
    effort: str
    seed: int
    environment: dict[str, object] = field(default_factory=dict)
    chosen_on_test: bool = False
    """Whether the network's epoch was chosen by the test images, which it is attacked on."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), allow_nan=False)


def format_budget(epsilon: float) -> str:
    """A budget as a key of results."""
    return f"{epsilon:g}"


def choose(split: Split, count: int, seed: int) -> Split:
    """A sample of `count` rows of a split, balanced over classes, the same for the same seed."""
    if count >= len(split):
        return split
    labels = split.labels[split.rows].numpy()
    order = generator(seed, "robustness").permutation(len(split))
    # Classes in turn: the k-th of each class comes before the k + 1-st of any.
    rank = np.empty(len(split), np.int64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    place = np.empty(len(split), np.int64)
    place[order] = np.arange(len(split))
    return split.take(np.lexsort((place, rank))[:count])


def evaluate(
    target: Attacked,
    surrogate: Attacked | None,
    data: Dataset,
    attack_config: AttackConfig,
    out: Path,
    *,
    session: Session | None = None,
) -> EvaluationData:
    """Attack a network; batches whose outcome is in `out` are not attacked again.

    Args:
        target: the model under attack.
        surrogate: another network of the same data, whose adversarial examples are tried too;
            without one there is no transfer attack.
        data: provides the test samples; no other split is used.
        attack_config: effort, attacks and budgets.
        out: folder for the outcomes, one file for each attack and batch.
        session: saved states, stops, workers and progress.

    Raises:
        ConfigError: an attack is unknown, or does not work on the target.
        MissingExtra: a library is not installed.
        Stopped: the stopper stopped the evaluation; the same call resumes it.
    """
    session = session or Session()
    preset = attack_config.preset
    split = choose(data.test, attack_config.samples or preset.samples, attack_config.seed)
    images = split.images[split.rows].float().div(255).to(target.device)
    labels = split.labels[split.rows].to(target.device)
    right = (target.says(images) == labels).cpu().numpy()
    budgets = attack_config.budgets(channels=data.channels)
    context = AttackContext(
        target=target, surrogate=surrogate, preset=preset, seed=attack_config.seed, data=data.digest
    )
    names = [name for name in chosen(attack_config, target) if surrogate or name != "transfer"]
    tried: dict[str, AttackOutcome] = {}
    total = len(names) * int(right.sum())
    with session.progress.task(f"attacking {target.name}", total, "images") as task:
        for name in names:
            tried[name] = _run_attack(
                name,
                context,
                images,
                labels,
                right,
                budgets_of(name, attack_config, channels=data.channels),
                split,
                attack_config,
                out,
                session.stopper,
                task,
            )
    return EvaluationData(
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


def _run_attack(
    name: str,
    context: AttackContext,
    images: Pixels,
    labels: Labels,
    right: np.ndarray,
    budgets: Sequence[float],
    split: Split,
    config: AttackConfig,
    out: Path,
    stopper: Stopper,
    task: Task,
) -> AttackOutcome:
    """Run one attack on all samples that are answered rightly."""
    count = len(right)
    ran, found = ~right, images.cpu().numpy().copy()
    distances = {norm: np.full(count, np.inf) for norm in NORMS}
    seconds, error, crashed = 0.0, "", False
    places = np.flatnonzero(right)
    for start in range(0, len(places), config.batch):
        if stopper.reason:
            raise Stopped(
                stopper.reason,
                f"Stopped by {stopper.reason} before {name}, batch {start // config.batch + 1}. "
                "Run the same command again to go on.",
            )
        batch = places[start : start + config.batch]
        rows = split.rows.numpy()[batch]
        key = _key(name, context, budgets, rows, config)
        path = out / f"{_stored_name(name)}-{start // config.batch:03d}-{key}.npz"
        if not path.exists():
            clock = time.perf_counter()
            torch.manual_seed(derive(config.seed, "attack", name, start))
            pixels = images[torch.from_numpy(batch).to(images.device)]
            try:
                outcome = _batch(
                    ATTACKS[name],
                    context,
                    pixels,
                    labels[torch.from_numpy(batch).to(labels.device)],
                    budgets,
                )
            except DenatureError as failure:
                if not isinstance(failure, OutOfQueries):
                    raise
                error = str(failure)
                task.advance(len(batch), f"{name}: no queries left")
                continue
            except Exception as failure:  # a library may raise anything; it counts as not run
                error, crashed = f"{type(failure).__name__}: {failure}", True
                task.advance(len(batch), f"{name} failed")
                continue
            outcome["seconds"] = np.array(time.perf_counter() - clock)
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, **outcome)  # type: ignore[arg-type]
        with np.load(path, allow_pickle=False) as stored:
            ran[batch] = True
            found[batch] = stored["found"]
            seconds += float(stored["seconds"])
            for norm in NORMS:
                distances[norm][batch] = stored[norm]
        task.advance(len(batch), name)
    return AttackOutcome(
        name=name,
        ran=ran,
        distances=distances,
        found=found,
        seconds=seconds,
        budgets=tuple(budgets),
        error=error,
        crashed=crashed,
    )


def _stored_name(attack: str) -> str:
    """The name of an attack in files: outcomes under a former name stay valid."""
    return FORMER_NAMES.get(attack, attack)


def _key(
    name: str,
    context: AttackContext,
    budgets: Sequence[float],
    rows: np.ndarray,
    config: AttackConfig,
) -> str:
    """Digest of all that determines the outcome of a batch."""
    plain = {
        "attack": _stored_name(name),
        "target": context.target.digest,
        "undefended": context.surrogate.digest if context.surrogate and name == "transfer" else "",
        "trouble": [context.preset.steps, context.preset.queries, context.preset.iterations],
        "budgets": list(budgets),
        "data": context.data,
        "rows": rows.tolist(),
        "seed": config.seed,
        "cooled": context.target.temperature if name == "pgd-rescaled" else 1,
    }
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def _batch(
    attack: Attack, context: AttackContext, images: Pixels, labels: Labels, budgets: Sequence[float]
) -> dict[str, np.ndarray]:
    """One attack on one batch at rising budgets; a fooled image is not attacked again."""
    best = images.clone()
    open_ = torch.ones(len(images), dtype=torch.bool, device=images.device)
    for epsilon in budgets:
        if not open_.any():
            break
        changed = attack.propose(context, images[open_], labels[open_], epsilon)
        changed = changed.detach().to(images.device, torch.float32).clamp(0, 1)
        changed = context.target.as_sent(changed)
        fooled = context.target.says(changed) != labels[open_]
        places = open_.nonzero()[:, 0][fooled]
        best[places] = changed[fooled]
        open_[places] = False
    return {"found": best.cpu().numpy(), **_distances(images, best, ~open_)}


def _distances(images: Pixels, changed: Pixels, fooled: torch.Tensor) -> dict[str, np.ndarray]:
    """Distances by norm; infinite where no image fooled. l0 counts pixels, not channels."""
    change = (changed - images).abs()
    pixels = (change.amax(dim=1) > CHANGED).flatten(1).sum(dim=1).double()
    flat = change.flatten(1).double()
    measured = {"linf": flat.amax(dim=1), "l2": flat.norm(dim=1), "l0": pixels}
    return {
        norm: torch.where(fooled, value, torch.inf).cpu().numpy()
        for norm, value in measured.items()
    }


def _flat(target: Attacked, images: Pixels, labels: Labels) -> np.ndarray:
    """Per image: whether the gradient of the cross-entropy is 0 everywhere, or not finite."""
    if target.shows != "gradients":
        return np.zeros(len(images), bool)
    flat = []
    for pixels, classes in zip(images.split(50), labels.split(50), strict=True):
        at = pixels.clone().requires_grad_()
        losses = cross_entropy(target(at), classes)
        gradient = _gradient(losses, at).flatten(1)
        flat.append((gradient == 0).all(dim=1) | ~gradient.isfinite().all(dim=1))
    return np.asarray(torch.cat(flat).cpu().numpy())


def _gradient(losses: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Gradient of the summed losses; zero if they do not depend on the image."""
    if not losses.requires_grad:
        return torch.zeros_like(at)
    [gradient] = torch.autograd.grad(losses.sum(), at, allow_unused=True)
    return torch.zeros_like(at) if gradient is None else gradient


def summary(
    evidence: EvaluationData, config: AttackConfig, environment: dict[str, object]
) -> Robustness:
    """The evidence as shares with intervals."""
    target, right = evidence.target, evidence.right
    results = []
    for name, outcome in evidence.tried.items():
        attack = ATTACKS[name]
        ran = outcome.ran | ~right
        budgets = evidence.budgets[attack.norm] if attack.only is None else (attack.only,)
        shares = {}
        for epsilon in budgets if ran.any() and not outcome.crashed else ():
            held = right & ran & ~outcome.fooled(attack.norm, epsilon)
            shares[format_budget(epsilon)] = proportion(int(held.sum()), int(ran.sum()))
        fooled = right & np.isfinite(outcome.distances[attack.norm])
        smallest = None
        if attack.smallest and fooled.sum() >= FEWEST and not outcome.crashed:
            smallest = mean_over_images(outcome.distances[attack.norm][fooled].tolist())
        results.append(
            AttackResult(
                name=name,
                norm=attack.norm,
                robust=shares,
                smallest=smallest,
                fooled=int(fooled.sum()),
                not_run=int((~ran).sum()),
                seconds=outcome.seconds,
                error=outcome.error,
                crashed=outcome.crashed,
                note=left_out(name, evidence.classes),
            )
        )
    everything = evidence.everything
    seen = evidence.seen(everything)
    worst: dict[str, dict[str, Estimate]] = {norm: {} for norm in evidence.budgets}
    ran_in = {ATTACKS[name].norm for name in everything}
    for norm, budgets in evidence.budgets.items():
        for epsilon in budgets if norm in ran_in and seen.any() else ():
            # Adversarial examples found before a crash count too.
            held = evidence.robust(list(evidence.tried), norm, epsilon) & seen
            worst[norm][format_budget(epsilon)] = proportion(int(held.sum()), int(seen.sum()))
    return Robustness(
        run=target.name,
        net=target.net,
        kind=target.kind,
        digest=target.digest,
        shows=target.shows,
        trained_at=target.trained_at,
        attack_temperature=target.temperature,
        shows_probabilities=target.shows_probabilities,
        gap=target.gap,
        flat=float(evidence.flat.mean()),
        samples=tuple(evidence.rows.tolist()),
        clean=proportion(int(right.sum()), len(right)),
        attacks=tuple(results),
        worst=worst,
        effort=config.effort,
        seed=config.seed,
        environment=environment,
        chosen_on_test=target.chosen_on_test,
    )
