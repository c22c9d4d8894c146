"""Attacks and checks against networks of which the truth is known, by paper or by build."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from denature.attacks import Ball
from denature.cli.app import main
from denature.core.errors import ConfigError, Stopped
from denature.core.stopping import Stopper
from denature.data import Dataset, load
from denature.data.dataset import Split
from denature.robust.base import Attack, AttackCost
from denature.robust.catalogue import ATTACKS, chosen
from denature.robust.config import EFFORTS, AttackConfig
from denature.robust.evaluation import choose, evaluate
from denature.robust.masking import SIGNS, chance, look
from denature.robust.summary import summary
from denature.robust.target import Target
from denature.robust.verdict import Evaluation
from denature.train import Adversarial, Normal, Run, Training, load_run, train
from denature.train.session import Session
from tests.evaluations import (
    flatness,
    page_is_drawn_again,
    robustness,
    robustness_and_page,
)

QUICK = Training(epochs=8, batch_size=64, device="cpu", precision="fp32")

ATTACK_CONFIG = AttackConfig(effort="quick", samples=40)

ENSEMBLE = ("fgsm", "pgd", "pgd-margin-restarts")


@pytest.fixture(scope="module")
def plains(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Undefended networks of three seeds."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        train("mlp", "digits", Normal(), replace(QUICK, seed=seed), out=folder / f"plain-{seed}")
        for seed in range(3)
    ]


@pytest.fixture(scope="module")
def hardened(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An adversarially trained network."""
    objective = Adversarial(ball=Ball(epsilon=0.15), steps=5)
    return train("mlp", "digits", objective, QUICK, out=tmp_path_factory.mktemp("runs") / "hard")


@pytest.fixture(scope="module")
def plain(plains: list[Run]) -> Run:
    return plains[0]


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which what several tests attack alike is attacked once."""
    return tmp_path_factory.mktemp("attacked")


def around(run: Run, network: nn.Module, name: str, recipe: str = "") -> Run:
    """A run with another network in it, of a recipe of its own."""
    net = replace(run.record.net, digest=name)
    record = replace(run.record, recipe=recipe or name, net=net)
    return Run(record, network.eval(), run.folder and run.folder.parent / name)


class Loud(nn.Module):
    """Logits so large that a softmax is 1 in float32, and its gradient 0."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x) * 1000
        return found


class Stepped(Loud):
    """Pixels in eight steps: no gradient comes through."""

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.body((x * 7).round() / 7)
        return found


class Shown(Loud):
    """Probabilities instead of logits."""

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x).softmax(1)
        return found


class Noisy(Loud):
    """Another answer each time."""

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x)
        return found + torch.randn_like(found)


def judged(
    runs: list[Run], undefended: list[Run], out: Path, attack_config: AttackConfig = ATTACK_CONFIG
) -> list[Evaluation]:
    """Runs against exactly these undefended ones."""
    count = len(undefended)
    found = robustness(
        runs, "digits", attack_config, out, undefended=undefended, controls=count, device="cpu"
    )
    return list(found.judged)


def raised(it: Evaluation) -> set[str]:
    return {check.name for check in it.checks if check.raised}


# What is known by pen and paper


class Linear(nn.Module):
    """The gap of the logits of two classes is w . (x - 1/2) + bias; others are out of reach."""

    def __init__(self, weights: Tensor, bias: float, classes: int = 2) -> None:
        super().__init__()
        self.weights, self.bias, self.classes = weights, bias, classes

    def forward(self, x: Tensor) -> Tensor:
        gap = ((x - 0.5) * self.weights).flatten(1).sum(1) + self.bias
        others = [torch.full_like(gap, -20.0 - n) for n in range(self.classes - 2)]
        return torch.stack([torch.zeros_like(gap), gap, *others], dim=1)


@pytest.fixture(scope="module")
def line() -> tuple[Dataset, Run]:
    """Grey images, all alike, of class 1; the border is 0.6 / |w| away in each norm."""
    weights = torch.zeros(1, 8, 8)
    weights[0, 2, 3], weights[0, 5, 5] = 3.0, 4.0
    data, count = load("digits"), 40
    images = torch.full((count, 1, 8, 8), 128, dtype=torch.uint8)
    split = Split(images, torch.ones(count, dtype=torch.int64), torch.arange(count))
    data = replace(data, test=split, train=split, classes=("no", "yes"), digest="line")
    run = train("mlp", data, Normal(), Training(epochs=1, device="cpu"))
    return data, around(run, Linear(weights, 0.6), "line")


GAP = 0.6 + (128 / 255 - 0.5) * 7


def test_the_ensemble_finds_the_border_of_a_line(
    line: tuple[Dataset, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It attacks nine classes one by one, so ten are needed."""
    data, run = line
    data = replace(data, classes=tuple("abcdefghij"))
    network = run.network
    assert isinstance(network, Linear)
    run = around(run, Linear(network.weights, network.bias, classes=10), "ten")
    trouble = replace(EFFORTS["standard"], attacks=("autoattack",))
    monkeypatch.setitem(EFFORTS, "standard", trouble)
    target = Target(run, torch.full((4, 1, 8, 8), 128 / 255), device="cpu")
    border = GAP / 7
    attack_config = AttackConfig(samples=10, linf=(border * 1.02,))
    [tried] = evaluate(target, target, data, attack_config, tmp_path).tried.values()
    assert tried.error == ""
    assert tried.ran.all()
    assert (tried.distances["linf"] >= border * 0.999).all()
    assert tried.fooled("linf", border * 1.02).all()


ELSEWHERE = ("pgd-unbounded", "decision", "autoattack")
"""Attacks with no border of their own, or with a test of their own."""


@pytest.mark.parametrize("name", [n for n in ATTACKS if n not in ELSEWHERE])
def test_each_attack_finds_the_border_of_a_line(
    name: str, line: tuple[Dataset, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """|w|_1 is 7, |w|_2 is 5; one pixel is enough."""
    data, run = line
    attack = ATTACKS[name]
    border = {"linf": GAP / 7, "l2": GAP / 5, "l0": 1.0}[attack.norm]
    near = (border * 0.9, border * 1.15)
    trouble = replace(EFFORTS["standard"], attacks=(name,), ensembles=2, steps=20)
    monkeypatch.setitem(EFFORTS, "standard", trouble)
    budgets = {"linf": near, "l2": near} if attack.norm != "l0" else {}
    attack_config = replace(AttackConfig(samples=10), **budgets)  # type: ignore[arg-type]
    target = Target(run, torch.full((4, 1, 8, 8), 128 / 255), device="cpu")
    found = evaluate(target, target, data, attack_config, tmp_path)
    [tried] = found.tried.values()
    assert tried.error == ""
    assert tried.ran.all()
    measured = tried.distances[attack.norm]
    # Nobody gets through below the border; who does is not far beyond it.
    assert (measured >= border * 0.999).all()
    most = {"l0": 2.0, "linf": border * 1.16, "l2": border * 1.16}[attack.norm]
    if name == "square":  # random: some get through
        assert (measured <= most).any()
    else:
        assert (measured <= most).all()


def test_a_border_is_found_by_the_answered_class_alone(
    line: tuple[Dataset, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HopSkipJump comes from outside, and is near in a few steps."""
    data, run = line
    trouble = replace(EFFORTS["full"], attacks=("decision",), iterations=200)
    monkeypatch.setitem(EFFORTS, "full", trouble)
    target = Target(run, torch.full((4, 1, 8, 8), 128 / 255), device="cpu")
    attack_config = AttackConfig(effort="full", samples=10)
    [tried] = evaluate(target, target, data, attack_config, tmp_path).tried.values()
    assert tried.error == ""
    measured = tried.distances["l2"]
    assert (measured >= GAP / 5 * 0.999).all()
    assert (measured <= GAP / 5 * 2).all()


def test_of_two_kinds_of_distance_each_is_measured() -> None:
    images = torch.zeros(1, 3, 2, 2)
    changed = images.clone()
    changed[0, 0, 0, 0], changed[0, 2, 0, 0], changed[0, 1, 1, 1] = 0.3, 0.4, 1.0
    from denature.robust.evaluation import _distances

    found = _distances(images, changed, torch.tensor([True]))
    assert found["linf"].item() == 1
    assert found["l2"].item() == pytest.approx((0.25 + 1) ** 0.5)
    assert found["l0"].item() == 2  # pixels, not values
    assert np.isinf(_distances(images, changed, torch.tensor([False]))["l0"]).all()


@pytest.mark.parametrize(
    ("more", "fewer", "wanted"), [(5, 0, 1 / 32), (0, 0, 1.0), (3, 3, 42 / 64), (10, 0, 2**-10)]
)
def test_the_sign_test_is_that_of_the_books(more: int, fewer: int, wanted: float) -> None:
    assert chance(more, fewer) == pytest.approx(wanted)


# What is known by build


@pytest.mark.parametrize(
    ("mask", "signs"),
    [
        (Loud, {"flat gradients", "the cross-entropy misleads"}),
        (
            Stepped,
            {"flat gradients", "black-box attacks are stronger", "unbounded attacks fail"},
        ),
    ],
)
def test_masked_gradients_are_called_an_illusion(
    mask: type[Loud], signs: set[str], plain: Run, plains: list[Run], attacked: Path
) -> None:
    hidden = around(plain, mask(plain.network), f"hidden-{mask.__name__}")
    first, *others = judged([hidden], plains, attacked)
    assert raised(first) >= signs
    assert first.verdict is not None
    assert first.verdict.word == "an illusion"
    assert first.verdict.apparent.ours > first.verdict.apparent.theirs + 0.3
    assert first.verdict.masked.low > 0.15
    assert first.verdict.networks == (1, 3)
    for other in others:
        assert other.verdict is None
        assert raised(other) == set()


class Trapped(nn.Module):
    """Going from grey to bright, the wrong class comes nearer, falls far behind, and then wins."""

    def forward(self, x: Tensor) -> Tensor:
        moved = x.flatten(1).mean(1) - 128 / 255
        near, hump = 1.5 - 50 * moved, 0.5 + 50 * (moved - 0.02)
        far = 2 - 60 * (moved - 0.05)
        gap = torch.where(moved < 0.02, near, torch.where(moved < 0.05, hump, far))
        return torch.stack([torch.zeros_like(gap), gap], dim=1)


def test_small_steps_that_are_caught_are_found_out(
    line: tuple[Dataset, Run], tmp_path: Path
) -> None:
    data, run = line
    run = around(run, Trapped(), "trapped")
    target = Target(run, torch.full((4, 1, 8, 8), 128 / 255), device="cpu")
    attack_config = AttackConfig(effort="quick", samples=40, linf=(0.1,), attacks=("fgsm", "pgd"))
    evidence = evaluate(target, target, data, attack_config, tmp_path)
    checks = {check.name: check for check in look(evidence)}
    assert checks["one step beats many"].raised
    assert "fgsm fools 100% of 40 samples at 0.1, pgd 0%" in checks["one step beats many"].found
    assert checks["unbounded attacks fail"].found == "pgd-unbounded did not run."
    assert checks["the cross-entropy misleads"].found.startswith("Not checked")
    assert {name for name, check in checks.items() if check.raised} == {"one step beats many"}


def test_adversarial_training_is_no_illusion(
    plains: list[Run], hardened: Run, attacked: Path
) -> None:
    attack_config = replace(ATTACK_CONFIG, attacks=ENSEMBLE, linf=(0.1, 0.15))
    first, *_ = judged([hardened], plains, attacked, attack_config)
    assert first.verdict is not None
    assert first.verdict.word == "more robust"
    assert raised(first) == set()
    assert first.verdict.real.ours > first.verdict.real.theirs + 0.2
    assert first.verdict.real.budgets == (0.1, 0.15)


def test_without_an_ensemble_nothing_is_called_more_robust(
    plains: list[Run], hardened: Run, attacked: Path
) -> None:
    attack_config = replace(ATTACK_CONFIG, attacks=("fgsm", "pgd", "pgd-margin"), linf=(0.1, 0.15))
    first, *_ = judged([hardened], plains, attacked, attack_config)
    assert first.verdict is not None
    assert first.verdict.real.sure
    assert first.verdict.word == "no evidence"
    assert "no ensemble of attacks ran" in first.verdict.said


def test_one_undefended_network_settles_nothing(plain: Run, hardened: Run, attacked: Path) -> None:
    attack_config = replace(ATTACK_CONFIG, attacks=ENSEMBLE, linf=(0.1, 0.15))
    first, _ = judged([hardened], [plain], attacked, attack_config)
    assert first.verdict is not None
    assert first.verdict.word == "no evidence"
    assert "the spread between seeds is unknown" in first.verdict.said


def test_seeds_of_one_defense_are_judged_together(plains: list[Run], attacked: Path) -> None:
    """Three normal networks against three others: six of one recipe, and no evidence."""
    first, second, third = plains
    twins = [around(r, r.network, f"twin-{r.digest}", "twin") for r in (second, third, first)]
    attack_config = replace(ATTACK_CONFIG, attacks=ENSEMBLE, linf=(0.1,))
    *of_twins, _, _, _ = judged(twins, plains, attacked, attack_config)
    assert {judged_.verdict for judged_ in of_twins} == {of_twins[0].verdict}
    assert of_twins[0].verdict is not None
    assert of_twins[0].verdict.networks == (3, 3)
    assert of_twins[0].verdict.word == "no evidence"
    assert of_twins[0].verdict.real.difference.value == pytest.approx(0)


def test_a_network_is_no_second_seed_of_itself(plains: list[Run], tmp_path: Path) -> None:
    """A folder that is opened twice, or named on both sides, is one run."""
    again = [load_run(run.folder) for run in (plains[0], plains[0]) if run.folder is not None]
    attack_config = replace(ATTACK_CONFIG, attacks=ENSEMBLE, linf=(0.1,))
    twin = around(plains[1], plains[1].network, "twin")
    found = robustness(
        [twin, twin, *again], "digits", attack_config, tmp_path, undefended=[plains[0], *again],
        controls=1, device="cpu",
    )  # fmt: skip
    assert [one.robustness.digest for one in found.judged] == [twin.digest, plains[0].digest]
    first, second = found.judged
    assert first.verdict is not None
    assert first.verdict.networks == (1, 1)
    assert second.verdict is None


def test_undefended_runs_of_two_trainings_are_refused(plains: list[Run], tmp_path: Path) -> None:
    other = train("mlp", "digits", Normal(), replace(QUICK, epochs=1), out=tmp_path / "other")
    twin = around(plains[1], plains[1].network, "twin")
    with pytest.raises(ConfigError, match="differ in more than their seeds"):
        judged([twin], [plains[0], other], tmp_path / "out")


def test_the_norm_of_a_verdict_is_that_of_the_ensemble(
    plains: list[Run], tmp_path: Path, attacked: Path
) -> None:
    """PGD with the temperature put back is added by itself, and decides on no norm."""
    training = replace(QUICK, epochs=2)
    hot = train("mlp", "digits", Normal(temperature=50), training, out=tmp_path / "hot")
    attack_config = replace(ATTACK_CONFIG, attacks=("pgd-l2", "pgd-l2-restarts"), l2=(0.5,))
    first, *_ = judged([hot], plains[:2], attacked, attack_config)
    assert first.verdict is not None
    assert (first.verdict.real.norm, first.verdict.real.budgets) == ("l2", (0.5,))


def test_no_undefended_network_is_refused(plain: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="controls is 0; it must be at least 1"):
        robustness([plain], "digits", ATTACK_CONFIG, tmp_path, controls=0)


def test_who_was_trained_at_a_temperature_is_attacked_with_it_put_back(plain: Run) -> None:
    target = Target(plain, torch.rand(4, 1, 8, 8), device="cpu")
    attack_config = replace(ATTACK_CONFIG, attacks=("pgd",))
    assert chosen(attack_config, target) == ("pgd",)
    target.trained_at = 100.0
    assert chosen(attack_config, target) == ("pgd", "pgd-rescaled")
    assert target.temperature == 100


@pytest.mark.parametrize("attacks", [("fgsm", "pgd"), ("pgd",)])
def test_without_attacks_that_see_through_masks_nobody_is_called_robust(
    attacks: tuple[str, ...], plain: Run, plains: list[Run], attacked: Path
) -> None:
    hidden = around(plain, Loud(plain.network), "loud")
    first, *_ = judged([hidden], plains, attacked, replace(ATTACK_CONFIG, attacks=attacks))
    assert first.verdict is not None
    assert first.verdict.word == "no evidence"
    assert "no ensemble of attacks ran" in first.verdict.said


def test_what_is_tried_on_one_is_tried_on_all(plain: Run, tmp_path: Path, attacked: Path) -> None:
    """A rescaled attack that the undefended network never met would be left out of the verdict."""
    training = replace(QUICK, epochs=1)
    hot = train("mlp", "digits", Normal(temperature=50), training, out=tmp_path / "hot")
    found = judged([hot], [plain], attacked, replace(ATTACK_CONFIG, attacks=("fgsm", "pgd")))
    for it in found:
        assert [a.name for a in it.robustness.attacks] == ["fgsm", "pgd", "pgd-rescaled"]


def test_where_nothing_ran_there_is_no_worst_and_still_a_page(
    plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Tensor:
        raise RuntimeError("no memory")

    monkeypatch.setitem(ATTACKS, "pgd", replace(ATTACKS["pgd"], propose=broken))
    attack_config = replace(ATTACK_CONFIG, attacks=("pgd",))
    [only] = robustness_and_page([plain], "digits", attack_config, tmp_path, controls=1).judged
    assert only.robustness.worst["linf"] == {}
    assert only.robustness.attacks[0].error == "RuntimeError: no memory"
    assert "failed: RuntimeError: no memory" in (tmp_path / "report.html").read_text()


def test_another_seed_is_no_evidence(plains: list[Run], tmp_path: Path, attacked: Path) -> None:
    twin = train("mlp", "digits", Normal(), replace(QUICK, seed=7), out=tmp_path / "twin")
    attack_config = replace(ATTACK_CONFIG, attacks=ENSEMBLE, linf=(0.1,), l2=(0.5,))
    first, *_ = judged([twin], plains, attacked, attack_config)
    assert first.verdict is not None
    assert first.verdict.word == "no evidence"


def test_probabilities_are_seen_through(plain: Run, attacked: Path) -> None:
    said: list[str] = []

    class Heard:
        def say(self, line: str) -> None:
            said.append(line)

        def __getattr__(self, name: str) -> Any:
            from denature.core.progress import SILENT

            return getattr(SILENT, name)

    shown = around(plain, Shown(plain.network), "shown")
    found = robustness([shown], "digits", ATTACK_CONFIG, attacked, undefended=[plain], controls=1,
                       device="cpu", session=Session(progress=Heard()))  # fmt: skip
    ours, theirs = (it.robustness for it in found.judged)
    assert (ours.shows_probabilities, theirs.shows_probabilities) == (True, False)
    assert any("their logarithms are attacked" in line for line in said)
    others = {attack.name: attack for attack in theirs.attacks}
    # The only undefended network has none to transfer from.
    assert {attack.name for attack in ours.attacks} - others.keys() == {"transfer"}
    for attack in ours.attacks:
        for key, estimate in attack.robust.items() if attack.name in others else ():
            wanted = others[attack.name].robust[key].value
            assert estimate.value == pytest.approx(wanted, abs=0.07), attack.name
    assert raised(found.judged[0]) == set()


def test_answers_at_random_are_told(plain: Run, attacked: Path) -> None:
    noisy = around(plain, Noisy(plain.network), "noisy")
    first, _ = judged([noisy], [plain], attacked)
    assert "answers are random" in raised(first)


def test_each_check_has_its_three_sentences() -> None:
    for name, sign in SIGNS.items():
        for sentence in (sign.raised_if, sign.why, sign.advice):
            assert sentence.endswith("."), name


# What is kept, and what goes wrong


def test_samples_are_of_each_class_its_share() -> None:
    data = load("digits")
    taken = choose(data.test, 100, 0)
    counts = np.bincount(taken.labels[taken.rows].numpy(), minlength=10)
    assert len(taken) == 100
    assert counts.min() == counts.max() == 10
    assert not set(taken.rows.tolist()) - set(data.test.rows.tolist())
    smaller = choose(data.test, 40, 0)
    assert set(smaller.rows.tolist()) < set(taken.rows.tolist())
    assert choose(data.test, 10**6, 0) is data.test


def test_what_was_attacked_is_not_attacked_again(
    plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load("digits")
    images = data.test.images[data.test.rows].float() / 255
    target = Target(plain, images, device="cpu")
    calls = 0

    def wish() -> bool:
        nonlocal calls
        calls += 1
        return calls > 4

    attack_config = replace(ATTACK_CONFIG, batch=20)
    with pytest.raises(Stopped, match="Run the same command again"):
        evaluate(
            target,
            target,
            data,
            attack_config,
            tmp_path,
            session=Session(stopper=Stopper(wish=wish)),
        )
    half = len(list(tmp_path.glob("*.npz")))
    assert 0 < half < 3 * len(EFFORTS["quick"].attacks)
    first = evaluate(target, target, data, attack_config, tmp_path)

    def never(*_: object) -> Tensor:
        raise AssertionError("asked again")

    for name, attack in ATTACKS.items():
        monkeypatch.setitem(ATTACKS, name, replace(attack, propose=never))
    again = evaluate(target, target, data, attack_config, tmp_path)
    for name, tried in first.tried.items():
        for norm, measured in tried.distances.items():
            np.testing.assert_array_equal(measured, again.tried[name].distances[norm])
        assert again.tried[name].error == ""


def test_an_attack_that_fails_counts_for_nothing(
    plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load("digits")
    target = Target(plain, data.test.images[data.test.rows].float() / 255, device="cpu")
    square, calls = ATTACKS["square"], 0

    def sometimes(*given: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("out of luck")
        return square.propose(*given)

    monkeypatch.setitem(ATTACKS, "square", replace(square, propose=sometimes))
    attack_config = replace(ATTACK_CONFIG, batch=20)
    evidence = evaluate(target, target, data, attack_config, tmp_path)
    found = summary(evidence, attack_config, {})
    [told] = [it for it in found.attacks if it.name == "square"]
    assert told.not_run == 20
    assert told.error == "RuntimeError: out of luck"
    # A share over the survivors of a crash would flatter the attack, or the network.
    assert told.crashed
    assert told.robust == {}
    assert {share.n for share in found.worst["linf"].values()} == {40}
    assert "square" not in evidence.complete
    # What it found on other batches still counts against the network.
    fooled = evidence.tried["square"].fooled("linf", 0.3)
    assert not (evidence.robust(list(evidence.tried), "linf", 0.3) & fooled).any()
    assert look(evidence)


def test_what_an_attack_proposes_is_not_believed(
    plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images beyond the budget or out of range, and images that fool nobody, count for nothing."""
    data = load("digits")
    target = Target(plain, data.test.images[data.test.rows].float() / 255, device="cpu")

    def far(scene: object, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
        return 5 - 9 * images

    liar = Attack(about="lies", norm="linf", propose=far, cost=lambda _: AttackCost(1))
    trouble = replace(EFFORTS["quick"], attacks=("liar",))
    monkeypatch.setitem(ATTACKS, "liar", liar)
    monkeypatch.setitem(EFFORTS, "quick", trouble)
    evidence = evaluate(target, target, data, ATTACK_CONFIG, tmp_path)
    tried = evidence.tried["liar"]
    assert tried.found.min() >= 0
    assert tried.found.max() <= 1
    robust = summary(evidence, ATTACK_CONFIG, {}).attacks[0].robust
    assert all(it.value > 0.9 for it in robust.values())


@pytest.mark.slow
def test_the_command_line_judges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["harden", "mlp", "--data", "digits", "--temperature", "100", "--epochs", "4",
             "--batch-size", "64", "-q", "--out", str(tmp_path / "dd")]  # fmt: skip
    assert main(words) == 0
    capsys.readouterr()
    student = str(tmp_path / "dd" / "student")
    words = ["robustness", student, "--data", "digits", "--effort", "quick", "--samples", "30",
             "--linf", "0.1,0.2", "--out", str(tmp_path / "out"), "-q"]  # fmt: skip
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    first, second, *_ = told["judged"]
    assert first["robustness"]["trained_at"] == 100
    assert first["robustness"]["attack_temperature"] == 100
    assert list(first["robustness"]["worst"]["linf"]) == ["0.1", "0.2"]
    assert len(first["robustness"]["samples"]) == 30
    # Quick attacks hold no ensemble, so a gain stays without evidence.
    assert first["verdict"]["word"] in ("no evidence", "mostly an illusion", "an illusion")
    assert first["robustness"]["worst"]["l0"] == {}
    # No undefended network was named, so three were trained to compare with.
    assert len(told["judged"]) == 4
    assert second["robustness"]["run"].startswith(str(tmp_path / "out" / "undefended"))
    assert second["verdict"] is None
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("Checks for gradient masking") == 4
    assert page.count("<svg") == 2
    assert page_is_drawn_again(tmp_path / "out")
    assert main(words) == 0
    assert first["verdict"]["said"].split(".")[0] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"linf": (8.0,)}, "at most 1: values lie in"),
        ({"l2": (0.0,)}, "above 0"),
        ({"samples": 3}, "at least 10"),
        ({"effort": "heroic"}, "There is no effort 'heroic'"),
    ],
)
def test_budgets_that_make_no_sense_are_told(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        AttackConfig(**options)


def test_who_knows_places_cannot_be_attacked(tmp_path: Path, plain: Run) -> None:
    finder = train("sepcnn@width=4", "drawn-faces", Normal(), Training(epochs=1, device="cpu"))
    with pytest.raises(ConfigError, match="predicts landmarks"):
        Target(finder, torch.rand(2, 3, 64, 64))
    with pytest.raises(ConfigError, match="has landmarks; attacks here change classes"):
        robustness([finder], "drawn-faces", ATTACK_CONFIG, tmp_path)
    with pytest.raises(ConfigError, match="has landmarks; flatness is measured for classes"):
        flatness([finder], "drawn-faces", tmp_path)
    with pytest.raises(ConfigError, match="No target given"):
        robustness([], "digits", ATTACK_CONFIG, tmp_path)
