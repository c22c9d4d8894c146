"""Defensive distillation at several temperatures, attacked with T left and put back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from denature.cli.app import main
from denature.core.errors import ConfigError
from denature.recipes.defensive import SETTINGS, DefensiveDistillation
from denature.recipes.experiment import Request
from denature.recipes.runner import run, time_left
from denature.robust.config import AttackConfig
from denature.train import load_run
from tests.evaluations import is_drawn_again


@pytest.mark.slow
def test_each_temperature_is_trained_attacked_and_judged(tmp_path: Path) -> None:
    smoke = SETTINGS["smoke"].on("cpu", "fp32")
    tiny = replace(
        smoke,
        net="mlp",
        training=replace(smoke.training, epochs=2),
        temperatures=(1.0, 100.0),
        steps=2,
        seeds=2,
        attack_config=AttackConfig(
            effort="quick", samples=20, linf=(0.05, 0.1, 0.2), attacks=("fgsm", "pgd")
        ),
    )
    experiment = DefensiveDistillation(setting=tiny, source="digits", out=tmp_path)
    found = run(experiment)
    names = [line[0] for line in found.lines[1:]]
    assert names == ["undefended", "T-1", "T-100", "adversarial"]
    assert found.result.budget == 0.1
    for name, finding in zip(names, found.result.findings, strict=True):
        assert finding.name == name
        assert len(finding.judged) == 2
        for it in finding.judged:
            assert (it.verdict is None) == (name == "undefended")
            assert {attack.name for attack in it.robustness.attacks} >= {"pgd", "pgd-rescaled"}
    [cold, other], [hot, _] = (finding.judged for finding in found.result.findings[1:3])
    assert cold.robustness.digest != other.robustness.digest
    assert (cold.robustness.trained_at, hot.robustness.trained_at) == (1, 100)
    assert (cold.robustness.attack_temperature, hot.robustness.attack_temperature)[1] == 100
    judged = [each for finding in found.result.findings for each in finding.judged]
    assert len({each.robustness.samples for each in judged}) == 1
    student = load_run(tmp_path / "smoke" / "seed-0" / "T-100" / "student").record
    assert student.config["objective"] == {"kind": "hardened", "temperature": 100}
    assert student.inputs["teacher"].digest == (
        load_run(tmp_path / "smoke" / "seed-0" / "T-100" / "teacher").record.net.digest
    )
    assert time_left([experiment]) == (0, 0)
    assert min(time_left([replace(experiment, out=tmp_path / "elsewhere")])) > 0
    assert is_drawn_again(found)
    again = run(experiment)
    assert again.lines == found.lines
    assert (tmp_path / "smoke" / "report.html").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_the_smoke_scale_says_what_came_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adversarially trained network holds more than any distilled one."""
    smoke = SETTINGS["smoke"]
    attacks = ("fgsm", "pgd", "pgd-margin-restarts")
    few = replace(
        smoke,
        net="mlp",
        temperatures=(100.0,),
        attack_config=replace(smoke.attack_config, attacks=attacks, linf=(0.1,)),
    )
    monkeypatch.setitem(SETTINGS, "smoke", few)
    words = ["reproduce", "defensive-distillation", "--scale", "smoke", "--seeds", "1"]
    assert main([*words, "--device", "cpu", "--out", str(tmp_path), "--json", "-q"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    *others, reference = [it["judged"][0] for it in told["findings"]]
    assert len(others) == 2
    assert reference["verdict"]["word"] == "more robust"
    key = str(told["budget"])
    held = [it["robustness"]["worst"]["linf"][key]["value"] for it in others]
    assert reference["robustness"]["worst"]["linf"][key]["value"] > max(held)


def test_it_says_how_long_training_and_attacks_would_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", "defensive-distillation", "--scale", "smoke", "--device", "cpu"]
    words += ["--out", str(tmp_path), "--estimate", "--json", "-q"]

    def left(*more: str) -> dict[str, float]:
        assert main([*words, *more]) == 0
        found: dict[str, float] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return found

    one, three = left("--seeds", "1"), left()
    for part in ("seconds", "attacks_s"):
        assert three[part] > 1.5 * one[part] > 0
    assert not (tmp_path / "smoke").exists()
    # Attacks of a smaller call are a part of those of a larger one.
    attacks = next(path for path in (tmp_path / "smoke", tmp_path)) / "robustness"
    attacks.mkdir(parents=True)
    (attacks / "result.json").write_text(json.dumps({"judged": [{}] * 3}))
    assert left()["attacks_s"] > 0
    (attacks / "result.json").write_text(json.dumps({"judged": [{}] * 99}))
    assert left()["attacks_s"] == 0


def test_a_scale_that_there_is_not_is_told() -> None:
    with pytest.raises(ConfigError, match="There is no scale 'huge'"):
        Request(name="defensive-distillation", scale="huge").setting(SETTINGS)
