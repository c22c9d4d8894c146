"""Verdicts on networks that are robust, or that mask their gradients, by build."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from denature.attacks import Ball
from denature.cli.app import main
from denature.core.errors import ConfigError
from denature.robust.config import AttackConfig
from denature.robust.masking import SIGNS
from denature.robust.verdict import Evaluation
from denature.train import Adversarial, Normal, Run, Training, load_run, train
from denature.train.session import Session
from tests.evaluations import (
    around,
    page_is_drawn_again,
    robustness,
)
from tests.heard import Heard

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
    assert first.verdict.apparent is not None
    assert first.verdict.masked is not None
    assert first.verdict.apparent.ours > first.verdict.apparent.theirs + 0.3
    assert first.verdict.masked.low > 0.15
    assert first.verdict.networks == (1, 3)
    for other in others:
        assert other.verdict is None
        assert raised(other) == set()


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


@pytest.mark.parametrize("attacks", [("fgsm", "pgd"), ("pgd",)])
def test_without_attacks_that_see_through_masks_no_network_is_called_robust(
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


def test_another_seed_is_no_evidence(plains: list[Run], tmp_path: Path, attacked: Path) -> None:
    twin = train("mlp", "digits", Normal(), replace(QUICK, seed=7), out=tmp_path / "twin")
    attack_config = replace(ATTACK_CONFIG, attacks=ENSEMBLE, linf=(0.1,), l2=(0.5,))
    first, *_ = judged([twin], plains, attacked, attack_config)
    assert first.verdict is not None
    assert first.verdict.word == "no evidence"


def test_an_evaluation_leaves_the_callers_randomness_alone(plain: Run, tmp_path: Path) -> None:
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    judged([plain], [plain], tmp_path, replace(ATTACK_CONFIG, attacks=("pgd",), linf=(0.1,)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_probabilities_are_seen_through(plain: Run, attacked: Path) -> None:
    heard = Heard()

    shown = around(plain, Shown(plain.network), "shown")
    found = robustness([shown], "digits", ATTACK_CONFIG, attacked, undefended=[plain], controls=1,
                       device="cpu", session=Session(progress=heard))  # fmt: skip
    ours, theirs = (it.robustness for it in found.judged)
    assert (ours.shows_probabilities, theirs.shows_probabilities) == (True, False)
    assert any("their logarithms are attacked" in line for line in heard.lines)
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
