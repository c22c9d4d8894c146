"""Run all attacks of an effort on a network, and store the outcomes batch by batch."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from denature.attacks import cross_entropy
from denature.core.errors import DenatureError, Stopped
from denature.core.files import atomic_path
from denature.core.progress import Both, Progress, Task
from denature.core.seeds import generator, seeded
from denature.core.stopping import Stopper
from denature.core.threads import computing
from denature.core.types import Labels, Pixels
from denature.data.dataset import Dataset, Split
from denature.data.readers.arrays import open_npz
from denature.robust.base import Attack, AttackContext
from denature.robust.blackbox import OutOfQueries
from denature.robust.catalogue import ATTACKS, budgets_of, chosen
from denature.robust.config import AttackConfig
from denature.robust.estimate import counted, passes_at_most
from denature.robust.outcomes import CHANGED, NORMS, AttackOutcome, EvaluationData
from denature.robust.target import Attacked
from denature.train.session import Session

FORMER_NAMES = {"pgd-rescaled": "pgd-cooled"}
"""Names of attacks in files of outcomes that were stored before."""


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
        Stopped: the stopper stopped the evaluation; the same call resumes it.
    """
    session = session or Session()
    preset = attack_config.preset
    split = choose(data.test, attack_config.samples or preset.samples, attack_config.seed)
    images = split.images[split.rows].float().div(255).to(target.device)
    labels = split.labels[split.rows].to(target.device)
    said = [target.says(batch) for batch in images.split(attack_config.batch_size)]
    right = (torch.cat(said) == labels).cpu().numpy()
    budgets = attack_config.budgets(channels=data.channels)
    context = AttackContext(
        target=target, surrogate=surrogate, preset=preset, seed=attack_config.seed, data=data.digest
    )
    names = [name for name in chosen(attack_config, target) if surrogate or name != "transfer"]
    passes = {
        name: passes_at_most(name, attack_config, channels=data.channels) * float(right.sum())
        for name in names
    }
    title = f"attacking {target.name}"
    with (
        computing(say=session.progress.say),
        session.progress.task(title, sum(passes.values()), "passes") as task,
    ):
        runner = _Runner(
            context=context,
            images=images,
            labels=labels,
            right=right,
            rows=split.rows.numpy(),
            config=attack_config,
            out=out,
            stopper=session.stopper,
            progress=session.progress,
            whole=task,
        )
        tried = {
            name: runner.run(
                name, budgets_of(name, attack_config, channels=data.channels), passes[name]
            )
            for name in names
        }
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Runner:
    """Runs attacks batch by batch on the samples that are answered rightly."""

    context: AttackContext
    images: Pixels
    labels: Labels
    right: np.ndarray
    rows: np.ndarray
    config: AttackConfig
    out: Path
    stopper: Stopper
    progress: Progress
    whole: Task
    """Receives the passes through networks that attacks take."""

    def run(self, name: str, budgets: Sequence[float], passes: float) -> AttackOutcome:
        """Run one attack at rising budgets, with so many passes at most."""
        with self.progress.task(name, passes, "passes") as own:
            return self._run(name, budgets, passes, Both(own, self.whole))

    def _run(self, name: str, budgets: Sequence[float], passes: float, task: Task) -> AttackOutcome:
        ran, found = ~self.right, self.images.cpu().numpy().copy()
        distances = {norm: np.full(len(ran), np.inf) for norm in NORMS}
        seconds, error, crashed = 0.0, "", False
        places = np.flatnonzero(self.right)
        for start in range(0, len(places), self.config.batch_size):
            self._check_stop(name, start)
            batch = places[start : start + self.config.batch_size]
            path = self._path(name, budgets, batch, start)
            task.advance(0, f"{start:,} of {len(places):,} images")
            outcome = self._stored(path)
            if outcome is None:
                planned = passes * len(batch) / len(places)
                try:
                    with counted(self.context, task, planned):
                        outcome = self._attack(name, budgets, batch, start)
                except OutOfQueries as failure:
                    error = str(failure)
                    continue
                except DenatureError:
                    raise
                except Exception as failure:  # a library may raise anything; it counts as not run
                    error, crashed = f"{type(failure).__name__}: {failure}", True
                    continue
                with atomic_path(path) as temporary, open(temporary, "wb") as file:
                    np.savez(file, **outcome)  # type: ignore[arg-type]
            else:
                task.grow(-passes * len(batch) / len(places))
            ran[batch] = True
            found[batch] = outcome["found"]
            seconds += float(outcome["seconds"])
            for norm in NORMS:
                distances[norm][batch] = outcome[norm]
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

    def _stored(self, path: Path) -> dict[str, np.ndarray] | None:
        """The arrays of a file; None where there is none, or a checksum of its zip does not fit."""
        if not path.exists():
            return None
        try:
            names = ("found", "seconds", *NORMS)
            with open_npz(path, *names) as stored:
                return {name: stored[name].whole() for name in names}
        except Exception:  # NumPy, zipfile and struct raise a dozen kinds for a damaged file
            self.progress.say(f"{path} is damaged; its images are attacked again.")
            return None

    def _check_stop(self, name: str, start: int) -> None:
        if self.stopper.reason:
            raise Stopped(
                self.stopper.reason,
                f"Stopped by {self.stopper.reason} before {name}, batch "
                f"{start // self.config.batch_size + 1}. Run the same command again to go on.",
            )

    def _attack(
        self, name: str, budgets: Sequence[float], batch: np.ndarray, start: int
    ) -> dict[str, np.ndarray]:
        """Outcome of an attack on the samples of a batch, and the seconds that it took."""
        clock = time.perf_counter()
        pixels = self.images[torch.from_numpy(batch).to(self.images.device)]
        labels = self.labels[torch.from_numpy(batch).to(self.labels.device)]
        with seeded(self.config.seed, "attack", name, start):
            outcome = _batch(ATTACKS[name], self.context, pixels, labels, budgets)
        return {**outcome, "seconds": np.array(time.perf_counter() - clock)}

    def _path(self, name: str, budgets: Sequence[float], batch: np.ndarray, start: int) -> Path:
        """File of a batch's outcome; the name has a digest of all that determines the outcome."""
        context = self.context
        surrogate = context.surrogate if name == "transfer" else None
        plain = {
            "attack": _stored_name(name),
            "target": context.target.digest,
            "undefended": surrogate.digest if surrogate else "",
            "trouble": [context.preset.steps, context.preset.queries, context.preset.iterations],
            "budgets": list(budgets),
            "data": context.data,
            "rows": self.rows[batch].tolist(),
            "seed": self.config.seed,
            "cooled": context.target.temperature if name == "pgd-rescaled" else 1,
        }
        key = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]
        number = start // self.config.batch_size
        return self.out / f"{_stored_name(name)}-{number:03d}-{key}.npz"


def _stored_name(attack: str) -> str:
    """The name of an attack in files: outcomes under a former name stay valid."""
    return FORMER_NAMES.get(attack, attack)


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
        # An image that is not finite is none, and fools nothing.
        finite = changed.flatten(1).isfinite().all(dim=1)
        changed = context.target.as_sent(changed.nan_to_num(0.0))
        fooled = (context.target.says(changed) != labels[open_]) & finite
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
