"""The same networks attacked and cloned: nasty, distilled, adversarially trained."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from denature.core.errors import ConfigError
from denature.core.stats import Estimate, proportion
from denature.data import load
from denature.recipes.experiment import Request
from denature.recipes.robustness_and_extraction import SETTINGS, RobustnessAndExtraction
from denature.recipes.runner import run
from denature.report.robustness_and_extraction import (
    CLONED_BY,
    CloneScore,
    VictimResult,
    conclusions,
    verdict_on_victims,
    victim_table,
)
from denature.robust.config import AttackConfig
from denature.robust.summary import Robustness
from denature.robust.verdict import CONTROLS, Evaluation, Gain, Verdict
from denature.train import Run, load_run
from tests.evaluations import is_drawn_again

FOLDERS = {"distilled": "distilled/student"}
"""Of victims that do not lie under their names."""


def answers_of(run: Run) -> torch.Tensor:
    """The classes that a network answers to the test images of the digits."""
    test = load("digits").test
    with torch.no_grad():
        logits: torch.Tensor = run.network.cpu()(test.images[test.rows].float() / 255)
    return logits.argmax(1)


def share(right: torch.Tensor) -> float:
    return int(right.sum()) / len(right)


@pytest.mark.slow
def test_nasty_and_hardened_networks_are_attacked_and_cloned(tmp_path: Path) -> None:
    smoke = SETTINGS["smoke"].on("cpu", "fp32")
    tiny = replace(
        smoke,
        victim="mlp",
        clone="mlp",
        teacher_training=replace(smoke.teacher_training, epochs=2, milestones=(1,)),
        student_training=replace(smoke.student_training, epochs=1),
        steps=2,
        seeds=1,
        attack_config=AttackConfig(
            effort="quick", samples=20, linf=(0.05, 0.1, 0.2), attacks=("fgsm", "pgd")
        ),
    )
    experiment = RobustnessAndExtraction(setting=tiny, source="digits", out=tmp_path)
    found = run(experiment)
    folder = tmp_path / "smoke" / "seed-0"
    assert [it.name for it in found.result.victims] == [
        "normal",
        "nasty",
        "distilled",
        "adversarial",
    ]
    test = load("digits").test
    test_rows, labels = test.rows, test.labels[test.rows]
    for victim in found.result.victims:
        network = load_run(folder / FOLDERS.get(victim.name, victim.name))
        expected = answers_of(network)
        assert [it.value for it in victim.accuracy] == [share(expected == labels)]
        assert tuple(victim.clones) == CLONED_BY
        for by, [clone] in victim.clones.items():
            made = load_run(folder / "clones" / f"{victim.name}-{by.replace(' ', '-')}")
            said = answers_of(made)
            assert (clone.accuracy.value, clone.accuracy.n) == (share(said == labels), len(labels))
            assert (clone.fidelity.value, clone.fidelity.n) == (
                share(said == expected),
                len(labels),
            )
            assert made.record.inputs["teacher"].digest == network.digest
        [judged] = victim.judged
        assert judged.robustness.digest == network.digest
        rows = torch.tensor(judged.robustness.samples)
        right = (expected == labels)[torch.isin(test_rows, rows)]
        assert (judged.robustness.clean.value, len(right)) == (share(right), 20)
        assert (judged.verdict is None) == (victim.name == "normal")
        if judged.verdict is not None:
            assert judged.verdict.networks == (1, CONTROLS)
            # That takes an ensemble of attacks, of which a quick effort has none.
            assert judged.verdict.word != "more robust"
    nasty, hardened = (load_run(folder / it).record for it in ("nasty", "distilled/student"))
    assert nasty.inputs["adversary"].digest == load_run(folder / "normal").record.net.digest
    taught = load_run(folder / "clones" / "distilled-probabilities").record
    assert taught.inputs["teacher"].digest == hardened.net.digest
    assert taught.config["objective"]["temperature"] == 1
    assert taught.config["objective"]["alpha"] == 1
    *of_victims, too_short = found.verdict
    assert len(of_victims) == 3
    assert all("(one seed)" in sentence for sentence in of_victims)
    assert "not nasty: tau^2 KL" in too_short
    assert (tmp_path / "smoke" / "report.html").exists()
    assert is_drawn_again(found)
    assert run(experiment).lines == found.lines


def victim_of(name: str, robust: list[float], clones: list[float], gain: Estimate) -> VictimResult:
    """One with these shares of 1,000 images at its seeds."""

    def share(value: float) -> Estimate:
        return proportion(round(1000 * value), 1000)

    over = Gain(norm="linf", budgets=(0.1,), ours=0.5, theirs=0.5, difference=gain)
    told = Verdict(
        word="no evidence", said="", samples=100, networks=(3, 3), apparent=over, real=over,
        masked=gain,
    )  # fmt: skip
    judged = [
        Evaluation(
            robustness=Robustness(
                run=name, net="cnn", kind="normal", digest=name, shows="gradients", trained_at=1,
                attack_temperature=1, shows_probabilities=False, gap=1, flat=0, samples=(1,),
                clean=share(held), attacks=(), worst={"linf": {"0.1": share(held)}},
                effort="quick", seed=0,
            ),
            checks=(), verdict=told,
        )
        for held in robust
    ]  # fmt: skip
    copies = tuple(CloneScore(accuracy=share(it), hits=None, fidelity=share(it)) for it in clones)
    return VictimResult(
        name=name, accuracy=(share(0.9),) * len(robust), judged=tuple(judged),
        clones=dict.fromkeys(CLONED_BY, copies),
    )  # fmt: skip


def test_each_victim_is_held_against_the_normal_one() -> None:
    """Robustness by its verdict, clones by a margin; what is not settled is said to be so."""
    open_ = Estimate(0.02, -0.1, 0.14, 6, "seeds and images")
    normal = victim_of("normal", [0.5, 0.6, 0.7], [0.8, 0.8, 0.8], open_)
    spread = victim_of("spread", [0.6, 0.7, 0.8], [0.5, 0.9, 0.6], open_)
    [said] = verdict_on_victims([normal, spread])
    assert "no evidence, +2.0 [-10.0, +14.0] points of robust samples" in said
    assert "by labels not settled, -13.3 [" in said
    below = Estimate(-0.3, -0.4, -0.2, 6, "seeds and images")
    worse = victim_of("worse", [0.1, 0.2, 0.3], [0.3, 0.3, 0.3], below)
    [said] = verdict_on_victims([normal, worse])
    assert "less robust, -30.0 [-40.0, -20.0] points of robust samples" in said
    assert "by labels worse, -50.0 [" in said
    assert conclusions([normal, spread, worse]) == (
        "The network spread is not shown to be more robust than undefended networks; worse is less "
        "robust than undefended networks, and its clones by all answers, probabilities and "
        "labels are worse."
    )
    # One seed settles nothing of clones, however many images they were tested on.
    [said] = verdict_on_victims(
        [victim_of("normal", [0.5], [0.8], open_), victim_of("one", [0.5], [0.5], open_)]
    )
    assert "by labels not settled (one seed), -30.0 [" in said
    # A share over some of the seeds would stand beside shares over all of them.
    lost = replace(normal.judged[1].robustness, worst={"linf": {}})
    judged = (normal.judged[0], replace(normal.judged[1], robustness=lost), normal.judged[2])
    some = replace(normal, judged=judged)
    assert victim_table([some], [proportion(700, 1000)] * 3, 0.1)[1][2] == "did not run"
    lines = victim_table([normal, spread], [proportion(700, 1000)] * 3, 0.1)
    assert lines[2][3] == "no evidence"
    assert lines[1][4] == "80.0 [77.4, 82.4] (80.0 [77.4, 82.4])"


def test_a_size_that_there_is_not_is_told() -> None:
    with pytest.raises(ConfigError, match="There is no scale 'huge'"):
        Request(name="robustness-and-extraction", scale="huge").setting(SETTINGS)
    with pytest.raises(ConfigError, match="seeds is 0"):
        replace(SETTINGS["smoke"], seeds=0)
