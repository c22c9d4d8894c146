"""Cells of an audit: what identifies them, their seeds, and what reaches a clone."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from denature.answers.answerer import Answers
from denature.audit.auditor import Auditor
from denature.audit.clone_training import CloneTrainer
from denature.audit.config import AuditConfig
from denature.audit.measurements import Trial
from denature.core.errors import ConfigError
from denature.data import load
from denature.data.config import DataConfig
from denature.defenses.top_k import TopK
from denature.extract.asking.pool import digest_of, pool_of_tests
from denature.extract.strategies.base import Lesson
from denature.extract.strategies.catalogue import STRATEGIES, strategy_of
from denature.extract.victims.called import FunctionVictim
from denature.recipes.audit import Audit
from denature.recipes.runner import run
from denature.train import Normal, Run, Training, train
from denature.train.session import Session
from denature.train.untrained import untrained
from tests.class_means import labels, probabilities

pytestmark = pytest.mark.usefixtures("without_figures", "few_steps")


def opened(config: dict[str, Any], tmp_path: Path, **changed: Any) -> Audit:
    settings: dict[str, Any] = {
        "model": FunctionVictim(probabilities, name="means", kind="probabilities"),
        "name": "means",
        "config": AuditConfig(
            **{
                "defense": ("rounding", "mad"), "thief": ("naive",), "budget": (20,), "seeds": 1,
                "student": "mlp", "test_images": 40, "labelled": 10, **config,
            }
        ),
        "source": DataConfig(source="digits"),
        "folder": tmp_path,
        "training": Training(epochs=1, device="cpu", precision="fp32"),
        "device": "cpu",
    }  # fmt: skip
    return Audit(**{**settings, **changed})


def keys(audit: Audit) -> dict[tuple[str, str], str]:
    """Keys of the cells of the smallest budget, by defense and threat."""
    data = audit.data(Session().progress)
    found: dict[tuple[str, str], str] = {}
    with audit.opened({}, data, Session()) as everything:
        auditor = everything.auditor
        for source in auditor.sources:
            for threat in auditor.threats:
                [trial] = auditor._column(source, threat).trials(auditor.budgets[0])
                found[source.name, threat] = auditor.store.key(auditor._settings(trial))
    return found


MUTATIONS: dict[str, Callable[[Path, Run], tuple[dict[str, Any], dict[str, Any]]]] = {
    "student": lambda _, run: ({"student": "cnn"}, {}),
    "epochs": lambda _, run: ({}, {"training": Training(epochs=2, device="cpu", precision="fp32")}),
    "seed": lambda _, run: (
        {}, {"training": Training(epochs=1, seed=1, device="cpu", precision="fp32")}
    ),
    "budget": lambda _, run: ({"budget": (30,)}, {}),
    "tests": lambda _, run: ({"test_images": 60}, {}),
    "model": lambda _, run: (
        {}, {"model": FunctionVictim(probabilities, name="other", kind="probabilities")}
    ),
    "kind": lambda _, run: ({}, {"model": FunctionVictim(labels, name="means", kind="label")}),
    "pool": lambda path, run: ({}, {"pool": DataConfig(source=str(path / "pool.npz"))}),
    "data": lambda path, run: ({}, {"source": DataConfig(source="digits", holdout=0.3)}),
}  # fmt: skip


@pytest.mark.parametrize("setting", MUTATIONS)
def test_every_setting_is_part_of_a_cells_identity(
    setting: str, victim: Run, tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (100, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "pool.npz", x_train=images, y_train=np.arange(100) % 10)
    plan, changed = MUTATIONS[setting](tmp_path, victim)
    before = keys(opened({}, tmp_path / "a"))
    after = keys(opened(plan, tmp_path / "b", **changed))
    assert len(set(before.values())) == len(before)
    shared = set(before) & set(after)
    assert shared
    assert not {before[cell] for cell in shared} & {after[cell] for cell in shared}


EXTRAS: Mapping[str, Callable[[Path, Run], Any]] = {
    "other_pool": lambda path, _: DataConfig(source=str(path / "pool.npz")),
    "backbone": lambda _, run: run,
    "encoder": lambda _, run: run,
}


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_one_thief_takes_is_no_part_of_the_cells_of_others(
    extra: str, victim: Run, tmp_path: Path
) -> None:
    """So a backbone that is named later trains its own cells alone."""
    images = np.random.default_rng(0).integers(0, 256, (100, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "pool.npz", x_train=images, y_train=np.arange(100) % 10)
    value = EXTRAS[extra](tmp_path, victim)
    assert keys(opened({}, tmp_path / "a")) == keys(opened({}, tmp_path / "b", **{extra: value}))
    used = "other" if extra == "other_pool" else extra
    [name] = [name for name in STRATEGIES if used in strategy_of(name).uses]
    with opened({}, tmp_path / "c", **{extra: value}).opened(
        {}, load("digits"), Session()
    ) as everything:
        auditor = everything.auditor
        assert {name: digest for name, digest in auditor.extras.items() if digest}.keys() == {used}
        trial = replace(next(iter(auditor.trials())), strategy=strategy_of(name))
        mine = auditor.store.key(auditor._settings(trial))
        others: Mapping[Any, str] = {used: "another"}
        other = replace(auditor, extras={**auditor.extras, **others})
        assert other.store.key(other._settings(trial)) != mine


def test_a_cells_identity_is_free_of_its_folder(tmp_path: Path) -> None:
    assert keys(opened({}, tmp_path / "a")) == keys(opened({}, tmp_path / "b"))


def test_threat_a_is_told_by_what_the_thief_owns(tmp_path: Path) -> None:
    few, more = (keys(opened({"labelled": n}, tmp_path / str(n))) for n in (10, 12))
    assert few["none", "A"] != more["none", "A"]
    assert few["none", "B"] == more["none", "B"]


def test_settings_of_thieves_and_defenses_are_part_of_the_identity(tmp_path: Path) -> None:
    plan = {"defense": ("top-k@k=3", "top-k@k=3+renormalise=true", "top-k@k=2")}
    found = keys(opened(plan, tmp_path))
    assert len(set(found.values())) == len(found)


def test_networks_of_the_defender_are_trained_as_the_model_was(tmp_path: Path) -> None:
    """Even where the model learned its last layer alone."""
    training = Training(epochs=2, batch_size=50, device="cpu", precision="fp32")
    public = train("mlp", "digits", Normal(), training, out=tmp_path / "public")
    frozen = replace(training, frozen=True)
    model = train("mlp", "digits", Normal(), frozen, backbone=public, out=tmp_path / "model")
    plan = {"defense": ("adaptive-misinformation", "nasty"), "student": "cnn"}
    orders = list(opened(plan, tmp_path / "audit", model=model).orders())
    assert [order.objective.kind for order in orders] == ["nasty", "misinformed"]
    for order in orders:
        found = order.training
        assert (order.net, found.epochs, found.batch_size, found.frozen) == ("mlp", 2, 50, False)


def test_an_untrained_network_is_the_one_that_a_service_looks_at(tmp_path: Path) -> None:
    training = Training(epochs=1, device="cpu", precision="fp32")
    model = train("mlp", "digits", Normal(), training, out=tmp_path / "model")
    [auditor] = _auditor(opened({"defense": ("mad",)}, tmp_path / "audit", model=model))
    found = auditor.sources[1].networks["untrained"].state_dict()
    wanted = untrained(model).state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_changed_defense_is_measured_again_behind_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {"defense": ("top-k@k=3", "rounding")}
    before = keys(opened(plan, tmp_path))
    monkeypatch.setattr(TopK, "revision", 2)
    after = keys(opened(plan, tmp_path))
    assert {place[0] for place in before if before[place] != after[place]} == {"top-k@k=3"}


def _auditor(audit: Audit) -> Iterator[Auditor]:
    with audit.opened({}, audit.data(Session().progress), Session()) as everything:
        yield everything.auditor


def test_repetitions_share_neither_images_nor_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts, noise = [], []
    for audit_seed in (0, 1):
        training = Training(epochs=1, seed=audit_seed, device="cpu", precision="fp32")
        audit = opened(
            {"seeds": 2, "defense": ("gaussian-noise",)}, tmp_path / str(audit_seed),
            training=training,
        )  # fmt: skip
        for auditor in _auditor(audit):
            for seed in (0, 1):
                trial = Trial(
                    source=auditor.sources[1], threat="A", strategy=strategy_of("naive"),
                    budget=20, seed=seed,
                )  # fmt: skip
                attempt = auditor._attempt(trial)
                attempts.append(attempt)
                same = np.repeat(load("digits").train.images[:1].numpy(), 3, axis=0)
                noise.append(attempt.ask(same).values.numpy())
    queries = {attempt.pool(10, 10).tobytes() for attempt in attempts}
    owned = {attempt.owned.images.tobytes() for attempt in attempts if attempt.owned}
    assert len(queries) == len(owned) == 4
    assert len({shown.tobytes() for shown in noise}) == 4


def test_no_clone_starts_from_the_models_weights(victim: Run, tmp_path: Path) -> None:
    images = np.zeros((4, 1, 8, 8), np.uint8)
    lessons = [
        Lesson(images=images, answers=Answers("label", torch.arange(4)), seed=number)
        for number in range(5)
    ]
    seeds: list[int] = []
    for auditor in _auditor(opened({"seeds": 3}, tmp_path, model=victim)):
        for number in range(3):
            trial = Trial(
                source=auditor.sources[0], threat="B", strategy=strategy_of("naive"), budget=20,
                seed=number,
            )  # fmt: skip
            groups = auditor.trainer.orders(
                lessons, tmp_path, seed=auditor._attempt(trial).seed, recipe=""
            )
            seeds += [order.training.seed for orders, _, _ in groups for order in orders]
    assert len(set(seeds)) == 3 * 5
    # Clones of audits of seeds 0 to 99 start from other weights than models of seeds 0 to 99.
    assert not set(seeds) & set(range(100))
    assert victim.record.seed in range(100)


def test_test_images_reach_no_clone_and_budgets_hold(tmp_path: Path) -> None:
    seen: set[bytes] = set()
    data = CloneTrainer._data

    def noted(self: CloneTrainer, lesson: Any) -> Any:
        seen.update(digest_of(image) for image in lesson.images)
        return data(self, lesson)

    digits = load("digits")
    tests = digits.test.images[digits.test.rows][:100].numpy()
    train_images = digits.train.images[digits.train.rows][:200].numpy()
    train_labels = digits.train.labels[digits.train.rows][:200].numpy()
    test_labels = digits.test.labels[digits.test.rows][:100].numpy()
    # The training split holds all test images, and each of its own images twice.
    np.savez(
        tmp_path / "twice.npz",
        x_train=np.concatenate([train_images, train_images, tests])[:, 0],
        y_train=np.concatenate([train_labels, train_labels, test_labels]),
        x_test=tests[:, 0],
        y_test=test_labels,
    )
    thieves = ("naive", "labels", "label-smoothing", "augmented", "repeated", "active-both",
               "semi-supervised")  # fmt: skip
    audit = opened(
        {"thief": thieves, "labelled": 60, "budget": (80,), "defense": ("gaussian-noise",),
         "grid": True},
        tmp_path / "a", source=DataConfig(source=str(tmp_path / "twice.npz")),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CloneTrainer, "_data", noted)
        result = run(audit).result
    hidden = pool_of_tests(load(str(tmp_path / "twice.npz")))
    assert len(seen) > 190
    assert not seen & set(hidden.contents(range(hidden.size)))
    for cell in result.cells:
        assert cell.queries <= cell.budget
        if cell.outcome == "raced" and cell.thief in ("naive", "labels", "active-both"):
            assert cell.queries == cell.budget


def test_owned_images_differ_from_each_other_and_from_test_images(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    numbers = np.arange(40) % 10
    np.savez(
        tmp_path / "d.npz", x_train=np.concatenate([images, images[:20]]),
        y_train=np.concatenate([numbers, numbers[:20]]), x_test=images[:20], y_test=numbers[:20],
    )  # fmt: skip
    source = DataConfig(source=str(tmp_path / "d.npz"))
    plan = {"labelled": 20, "budget": (20,), "test_images": 20, "defense": ("none",)}
    for auditor in _auditor(opened(plan, tmp_path / "a", source=source)):
        owned, contents = auditor.owned(0)
        assert len(contents) == len(owned.images) == 20
        assert contents == {digest_of(image[None]) for image in images[20:]}
    with pytest.raises(ConfigError, match="owns 21 labelled images"):
        next(_auditor(opened({**plan, "labelled": 21}, tmp_path / "b", source=source)))
