"""Audits of bad input: odd models and data, plans that do not fit, audits that were cut off."""

import asyncio
import json
import os
import re
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from denature.answers.answerer import Answers
from denature.audit.auditor import Auditor
from denature.audit.config import AuditConfig
from denature.audit.learning import Classroom
from denature.audit.measurements import Trial
from denature.cli.app import main
from denature.core.errors import ConfigError
from denature.data import load
from denature.data.config import DataConfig
from denature.extract import config
from denature.extract.asking.pool import digest_of, pool_of_tests
from denature.extract.strategies.base import Lesson
from denature.extract.strategies.catalogue import strategy_of
from denature.extract.victims.called import FunctionVictim
from denature.extract.victims.find import find
from denature.recipes.audit import Audit
from denature.recipes.runner import run
from denature.train import Normal, Run, Training, train
from denature.train.session import Session
from tests.processes import Command
from tests.served import serve

pytestmark = pytest.mark.usefixtures("without_figures")

HERE = __name__
"""This module, as pytest has imported it: its functions are models."""

SMALL = (
    *("--student", "mlp", "--thief", "naive", "--budget", "20", "--seeds", "1", "--epochs", "1"),
    *("--test-images", "40", "--device", "cpu", "--workers", "1"),
)


@pytest.fixture(scope="module", autouse=True)
def few_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "LEAST_STEPS", 5)
        yield


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("victim") / "mlp"
    return train("mlp", "digits", Normal(), Training(epochs=4, device="cpu"), out=out)


# Models


@cache
def _means() -> np.ndarray:
    split = load("digits").train
    images, labels = split.images[split.rows].float() / 255, split.labels[split.rows]
    means = torch.stack([images[labels == c].mean(0).flatten() for c in range(10)])
    found: np.ndarray = means.numpy()
    return found


ASKED: list[bytes] = []


def probabilities(images: np.ndarray) -> np.ndarray:
    """Of the nearest mean of the classes of digits."""
    ASKED.extend(image.tobytes() for image in images)
    distances = ((images.reshape(len(images), 1, -1) - _means()) ** 2).sum(-1)
    weights = np.exp(distances.min(1, keepdims=True) - distances)
    found: np.ndarray = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return found


def percent(images: np.ndarray) -> np.ndarray:
    return 100 * probabilities(images)


def halves(images: np.ndarray) -> np.ndarray:
    return probabilities(images) / 2


def three_shown(images: np.ndarray) -> np.ndarray:
    found = probabilities(images)
    return np.where(found >= np.sort(found, 1)[:, -3:-2], found, np.float32(np.nan))


def labels(images: np.ndarray) -> np.ndarray:
    found: np.ndarray = probabilities(images).argmax(1)
    return found


def words(images: np.ndarray) -> np.ndarray:
    return np.array(["cat"] * len(images))


def eleven(images: np.ndarray) -> np.ndarray:
    return np.pad(probabilities(images), ((0, 0), (0, 1)))


BROKEN: list[int] = []
"""Images after which `breaking` fails."""


def breaking(images: np.ndarray) -> np.ndarray:
    if BROKEN and len(ASKED) + len(images) > BROKEN[0]:
        raise ValueError("out of memory")
    return probabilities(images)


# Commands


def told(capsys: pytest.CaptureFixture[str], *given: str, out: Path) -> dict[str, Any]:
    """The line of JSON of an audit that succeeds."""
    assert main(["audit", *_with(given), "--out", str(out), "--json", "-q"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def refused(capsys: pytest.CaptureFixture[str], *given: str, out: Path) -> str:
    assert main(["audit", *_with(given), "--out", str(out), "-q"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Traceback" not in error
    return error


def _with(given: Sequence[str]) -> list[str]:
    """Arguments, and those of `SMALL` and the data that they do not have."""
    pairs = list(zip(SMALL[::2], SMALL[1::2], strict=True))
    usual = [
        word for pair in [*pairs, ("--data", "digits")] if pair[0] not in given for word in pair
    ]
    return [*given, *usual]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([f"{HERE}:words"], "answered <U3 of the shape"),
        ([f"{HERE}:eleven"], "gave 11 values an image, and 10 are wanted"),
        ([f"{HERE}:halves"], "from .* in rows that sum to 0.5 to 0.5"),
        ([f"{HERE}:labels", "--data", "drawn-faces"], "has landmarks"),
        ([f"{HERE}:labels", "--max-queries", "10"], "larger --max-queries"),
        ([f"{HERE}:labels", "--budget", "1439"], "digits has 1,438 images .* smaller --budget"),
        ([f"{HERE}:labels", "--budget", "1"], "at least 2 queries"),
        ([f"{HERE}:labels", "--seeds", "0"], "seeds is 0"),
        ([f"{HERE}:labels", "--labelled", "1"], "or at least 2"),
        ([f"{HERE}:labels", "--labelled", "1439"], "owns 1,439 labelled images, and digits has"),
        ([f"{HERE}:labels", "--fail-above", "1.5"], "a share in"),
        ([f"{HERE}:labels", "--defense", "roundign"], "Did you mean rounding"),
        ([f"{HERE}:labels", "--defense", "nastyy"], "Did you mean nasty"),
        ([f"{HERE}:labels", "--defense", "nasty+rounding"], "Name it alone"),
        ([f"{HERE}:labels", "--defense", "rounding@decimal=1"], "known: decimals"),
        ([f"{HERE}:labels", "--thief", "naiv"], "Did you mean naive"),
        ([f"{HERE}:labels", "--pool", "noise"], "Noise is no pool"),
        ([f"{HERE}:absent"], "cannot be imported"),
        (["absent.onnx"], "cannot be read"),
    ],
)
def test_bad_input_is_one_sentence(
    given: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search(message, refused(capsys, *given, out=tmp_path))


def test_percent_are_taken_as_probabilities(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [
        told(capsys, f"{HERE}:{name}", "--defense", "label-only", out=tmp_path / name)
        for name in ("percent", "probabilities")
    ]
    assert found[0]["defenses"][0]["ece"] == pytest.approx(found[1]["defenses"][0]["ece"], abs=1e-5)


def test_defenses_of_hidden_scores_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    defenses = "rounding,reverse-sigmoid,top-k@k=3,top-k@k=4,label-only"
    chosen = ("--kind", "probabilities", "--defense", defenses)
    found = told(capsys, f"{HERE}:three_shown", *chosen, out=tmp_path)
    shown = [row["defense"] for row in found["defenses"]]
    assert shown == ["none", "top-k@k=3", "label-only"]
    assert [sentence.split(":")[0] for sentence in found["left_out"]] == [
        "rounding", "reverse-sigmoid", "top-k@k=4",
    ]  # fmt: skip
    assert "shows 3 of 10 scores" in found["left_out"][0]


def test_a_model_of_labels_has_no_defenses_of_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, f"{HERE}:labels", "--defense", "mad,nasty,label-only", out=tmp_path)
    assert [row["defense"] for row in found["defenses"]] == ["none", "label-only"]
    assert "mad: The defense mad takes logits, probabilities, not label" in found["left_out"][0]
    assert "nasty: it is trained from a run" in found["left_out"][1]


def test_files_of_a_fixed_batch_answer_any_number_of_images(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    path = tmp_path / "four.pt2"
    torch.export.save(torch.export.export(net, (torch.zeros(4, 1, 8, 8),)), path)
    model = find(str(path), trust=[str(path)])
    images = np.random.default_rng(0).integers(0, 256, (10, 1, 8, 8), dtype=np.uint8)
    with torch.no_grad():
        wanted = net(torch.from_numpy(images).float() / 255).numpy()
    for count in (1, 4, 10):
        found = asyncio.run(model.ask(images[:count], id=""))
        np.testing.assert_allclose(found, wanted[:count], rtol=1e-5, atol=1e-6)


def test_a_file_of_another_size_says_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10)).eval()
    path = tmp_path / "big.pt2"
    torch.export.save(torch.export.export(net, (torch.zeros(2, 1, 16, 16),)), path)
    assert "pass --trust" in refused(capsys, str(path), out=tmp_path / "a")
    error = refused(capsys, str(path), "--trust", str(path), out=tmp_path / "a")
    assert "takes images of 16 pixels a side" in error
    assert "Pass --image-size 16" in error
    path.write_bytes(path.read_bytes()[:2000])
    assert "cannot be read" in refused(capsys, str(path), "--trust", str(path), out=tmp_path / "a")


def test_public_networks_must_take_the_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = DataConfig(source="digits", image_size=16)
    train("cnn", data, Normal(), Training(epochs=1, device="cpu"), out=tmp_path / "run")
    for option in ("--encoder", "--backbone"):
        error = refused(capsys, f"{HERE}:labels", option, str(tmp_path / "run"), out=tmp_path / "a")
        assert "1-channel images of 16 pixels a side" in error


def test_a_small_pool_of_another_domain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "few.npz", x_train=images, y_train=np.arange(10))
    pool = ("--other-pool", str(tmp_path / "few.npz"))
    error = refused(capsys, f"{HERE}:labels", *pool, out=tmp_path / "a")
    assert "has 10 images" in error
    assert "a larger --other-pool" in error


# Plans


def test_a_thief_applies_at_each_budget_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = ("--defense", "none", "--thief", "naive,active-both", "--budget", "4,40")
    found = told(capsys, f"{HERE}:probabilities", *plan, out=tmp_path)
    measured = {(cell["thief"], cell["budget"]) for cell in found["cells"]}
    assert measured == {("naive", 4), ("naive", 40), ("active-both", 40)}
    [cell] = found["not_measured"]
    assert (cell["thief"], cell["budget"], cell["outcome"]) == ("active-both", 4, "not applicable")
    assert "8 queries" in cell["note"]


def test_a_plan_in_which_no_thief_applies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = _with([f"{HERE}:probabilities", "--defense", "none", "--thief", "same-features"])
    assert main(["audit", *plan, "--out", str(tmp_path), "-q"]) == 1
    assert (
        "No thief applies. same-features: The victim is not known to be" in capsys.readouterr().err
    )


def test_owned_images_beyond_a_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = ("--defense", "none", "--labelled", "30", "--budget", "20,40")
    found = told(capsys, f"{HERE}:probabilities", *plan, out=tmp_path)
    assert {(cell["threat"], cell["budget"]) for cell in found["cells"]} == {
        ("A", 40), ("B", 20), ("B", 40),
    }  # fmt: skip
    assert "30 owned images" in found["not_measured"][0]["note"]


def test_one_defense_of_two_spellings_is_measured_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = ("--defense", "rounding,rounding@decimals=2")
    found = told(capsys, f"{HERE}:probabilities", *plan, out=tmp_path)
    first, second = found["cells"][1:]
    assert {**first, "defense": ""} == {**second, "defense": ""}
    assert len(list((tmp_path / "cells").iterdir())) == 2


def test_an_estimate_trains_nothing_and_asks_little(
    victim: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ASKED.clear()
    words = ["--effort", "standard", "--data", "digits", "--device", "cpu", "-q", "--estimate"]
    for name, model in (("f", f"{HERE}:probabilities"), ("r", str(victim.folder))):
        assert main(["audit", model, *words, "--out", str(tmp_path / name)]) == 0
        assert "images asked" in capsys.readouterr().out
        left = {path.name for path in (tmp_path / name).iterdir() if path.name[0] != "."}
        assert left == {"ledger.sqlite", "ledger.sqlite.anchor"}
    assert len(ASKED) == 4


def test_no_more_images_are_asked_than_the_plan_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = [
        *_with([f"{HERE}:probabilities", "--defense", "gaussian-noise,mad", "--labelled", "10"]),
        *("--other-pool", "digits", "--out", str(tmp_path), "-q"),
    ]
    thieves = plan.index("--thief") + 1
    plan[thieves] = "naive,augmented,repeated,active-k-center,other-domain"
    assert main(["audit", *plan, "--estimate"]) == 0
    sentence = capsys.readouterr().out
    stated = int(sentence.split("cells, about ")[1].split(" ")[0].replace(",", ""))
    ASKED.clear()
    assert main(["audit", *plan]) == 0
    assert 0 < len(ASKED) <= stated
    assert len(set(ASKED)) == len(ASKED)


# Seeds, keys and what reaches a clone


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
    "other pool": lambda path, run: ({}, {"other_pool": DataConfig(source=str(path / "pool.npz"))}),
    "data": lambda path, run: ({}, {"source": DataConfig(source="digits", holdout=0.3)}),
    "backbone": lambda _, run: ({}, {"backbone": run}),
    "encoder": lambda _, run: ({}, {"encoder": run}),
    "published backbone": lambda _, run: ({}, {"backbone": "timm:resnet18"}),
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
            groups = auditor.classroom.orders(
                lessons, tmp_path, seed=auditor._attempt(trial).seed, recipe=""
            )
            seeds += [order.training.seed for orders, _, _ in groups for order in orders]
    assert len(set(seeds)) == 3 * 5
    # Clones of audits of seeds 0 to 99 start from other weights than models of seeds 0 to 99.
    assert not set(seeds) & set(range(100))
    assert victim.record.seed in range(100)


def test_test_images_reach_no_clone_and_budgets_hold(tmp_path: Path) -> None:
    seen: set[bytes] = set()
    data = Classroom._data

    def noted(self: Classroom, lesson: Any) -> Any:
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
        patch.setattr(Classroom, "_data", noted)
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


# Audits that were cut off


def test_a_model_that_fails_in_the_middle_is_asked_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = (f"{HERE}:breaking", "--defense", "rounding", "--per-request", "8")
    ASKED.clear()
    BROKEN[:] = [50]
    try:
        error = refused(capsys, *plan, out=tmp_path)
    finally:
        BROKEN.clear()
    assert "ValueError: out of memory. Stored answers are kept: run the same command again" in error
    first = len(ASKED)
    assert 40 <= first <= 50
    found = told(capsys, *plan, out=tmp_path)
    assert len(ASKED) == len(set(ASKED)) == 60
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["queries"] >= 60  # lost queries count
    again = told(capsys, *plan, out=tmp_path)
    assert len(ASKED) == 60
    assert json.loads((tmp_path / "result.json").read_text())["queries"] == result["queries"]
    assert again["cells"] == found["cells"]


def test_one_more_seed_keeps_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = (f"{HERE}:probabilities", "--defense", "rounding")
    told(capsys, *plan, out=tmp_path)
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    told(capsys, *plan, "--seeds", "2", out=tmp_path)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    assert len(after) == 2 * len(times)
    assert times.items() <= after.items()


def test_runs_of_a_measured_cell_are_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(capsys, f"{HERE}:probabilities", "--defense", "none", out=tmp_path)
    [cell] = (tmp_path / "cells").iterdir()
    (tmp_path / "cells" / cell.stem / "run").mkdir(parents=True)  # as a kill may leave it
    told(capsys, f"{HERE}:probabilities", "--defense", "none", out=tmp_path)
    assert list((tmp_path / "cells").iterdir()) == [cell]


WHOLE = (
    *("--defense", "gaussian-noise,nasty", "--thief", "naive,active-both"),
    *("--budget", "20,40", "--seeds", "2", "--labelled", "10"),
)


def _words(*given: str, out: Path) -> list[str]:
    return ["audit", *_with(given), "--out", str(out), "-q"]


def _briefly(words: Sequence[str], **options: Any) -> Command:
    """A command in a process of its own, whose clones have few steps."""
    return Command(*words, module="tests.brief", **options)


def _measured(out: Path) -> dict[str, Any]:
    found = json.loads((out / "result.json").read_text())
    return {name: found[name] for name in ("cells", "worst", "baselines", "curves", "queries")}


@pytest.mark.slow
def test_a_killed_audit_ends_as_an_undisturbed_one(victim: Run, tmp_path: Path) -> None:
    words = _words(str(victim.folder), *WHOLE, out=tmp_path / "killed")
    cells = tmp_path / "killed" / "cells"
    for wanted in (1, 14):  # in screening, and in racing
        process = _briefly(words)
        while process.poll() is None and len(list(cells.glob("*.json"))) < wanted:
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert not (tmp_path / "killed" / "result.json").exists()
    assert _briefly(words).wait() == 0
    two = _words(str(victim.folder), *WHOLE, "--workers", "2", out=tmp_path / "whole")
    assert _briefly(two).wait() == 0
    assert _measured(tmp_path / "killed") == _measured(tmp_path / "whole")
    assert not [path for path in cells.iterdir() if path.is_dir()]


@pytest.mark.slow
def test_a_service_that_stops_in_the_middle(victim: Run, tmp_path: Path) -> None:
    served = serve(tmp_path, str(victim.folder))
    words = _words(
        f"http://{served.address}",
        *("--defense", "rounding,mad", "--thief", "naive,labels", "--budget", "20,40"),
        *("--per-request", "8", "--rate", "20", "--attempts", "2", "--longest-wait-s", "1"),
        out=tmp_path / "audit",
    )
    process = _briefly(words, stderr=subprocess.PIPE)
    while sum(entry["images"] for entry in served.entries()) < 20:
        time.sleep(0.01)
    served.process.kill()
    served.process.communicate()
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "run the same command again" in error
    kept = _answered(tmp_path / "audit")
    assert 0 < kept < 80
    again = _serve_at(tmp_path, victim, served.address)
    try:
        assert _briefly(words, stdout=subprocess.DEVNULL).wait() == 0
    finally:
        again.terminate()
        again.communicate(timeout=60)
    entries = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    # 40 test images and the 40 queries of the largest budget, of which no answered one is repeated.
    assert sum(entry["images"] for entry in entries) == 80 - kept
    assert _answered(tmp_path / "audit") == 80


def _answered(folder: Path) -> int:
    """Images of which a ledger holds the answer."""
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as ledger:
        [[count]] = ledger.execute("SELECT count(*) FROM queries WHERE answer NOT NULL")
        return int(count)


def _serve_at(out: Path, victim: Run, address: str) -> "subprocess.Popen[str]":
    process = Command(
        *("serve", victim.folder, "--device", "cpu", "--port", address.rpartition(":")[2]),
        *("--log", out / "again.jsonl"),
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process
