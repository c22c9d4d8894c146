"""The same networks attacked and cloned: nasty, distilled, adversarially trained."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from denature.core.errors import ConfigError
from denature.core.stats import proportion
from denature.recipes.worlds import reproduce, setting
from denature.report.worlds import WAYS, Copied, World, table, verdict
from denature.robust.config import Asked
from denature.robust.evaluate import Robustness
from denature.robust.verdict import Gain, Judged, Verdict, Word
from denature.train import load_run


def test_nasty_and_hardened_networks_are_attacked_and_cloned(tmp_path: Path) -> None:
    smoke = setting("smoke").on("cpu", "fp32")
    tiny = replace(
        smoke,
        victim="mlp",
        clone="mlp",
        schooling=replace(smoke.schooling, epochs=2, milestones=(1,)),
        learning=replace(smoke.learning, epochs=1),
        steps=2,
        seeds=1,
        asked=Asked(effort="quick", samples=20, linf=(0.05, 0.1, 0.2)),
    )
    found = reproduce(tiny, "digits", tmp_path)
    assert [it.name for it in found.worlds] == ["normal", "nasty", "distilled", "adversarial"]
    for world in found.worlds:
        assert set(world.copies) == set(WAYS)
        for copies in world.copies.values():
            assert all(0 <= it.fidelity <= 1 and 0 < it.accuracy <= 1 for it in copies)
        [judged] = world.judged
        assert (judged.verdict is None) == (world.name == "normal")
        assert (judged.verdict is None) or judged.verdict.word in get_args(Word)
    folder = tmp_path / "smoke" / "seed-0"
    nasty, hardened = (load_run(folder / it).record for it in ("nasty", "distilled/student"))
    assert nasty.inputs["adversary"].digest == load_run(folder / "normal").record.net.digest
    clone = load_run(folder / "clones" / "distilled-probabilities").record
    assert clone.inputs["teacher"].digest == hardened.net.digest
    assert clone.config["objective"]["temperature"] == 1
    assert clone.config["objective"]["alpha"] == 1
    assert len(found.verdict) == 3
    assert (tmp_path / "smoke" / "report.html").exists()
    assert reproduce(tiny, "digits", tmp_path).lines == found.lines


def world(name: str, robust: list[float], clones: list[float]) -> World:
    """One with these shares at its seeds."""
    judged = []
    for share in robust:
        held = proportion(round(100 * share), 100)
        shown = Robustness(
            run=name, net="cnn", kind="normal", digest=name, shows="gradients", trained_at=1,
            cooled_by=1, shows_probabilities=False, gap=1, flat=0, samples=(1,), clean=held,
            attacks=(), worst={"linf": {"0.1": held}}, effort="quick", seed=0,
        )  # fmt: skip
        gain = Gain(norm="linf", epsilon=0.1, ours=share, theirs=share, sure=False)
        told = Verdict(word="no evidence", said="", apparent=gain, real=gain)
        judged.append(Judged(robustness=shown, checks=(), verdict=told))
    copies = tuple(Copied(accuracy=it, fidelity=it) for it in clones)
    return World(
        name=name, accuracy=(0.9,) * len(robust), judged=tuple(judged),
        copies=dict.fromkeys(WAYS, copies),
    )  # fmt: skip


def test_differences_are_paired_by_seed_and_said_with_their_interval() -> None:
    normal = world("normal", [0.5, 0.6, 0.7], [0.8, 0.8, 0.8])
    better = world("better", [0.6, 0.7, 0.8], [0.5, 0.9, 0.6])
    [said] = verdict([normal, better], 0.1)
    # Ten points at each seed, however far seeds are apart; the clones' differences spread.
    assert "more robust, +10.0 [+10.0, +10.0] points" in said
    assert "no difference beyond the interval over seeds" in said
    [one] = verdict([world("normal", [0.5], [0.8]), world("nasty", [0.4], [0.3])], 0.1)
    assert "-10.0 points, one seed" in one
    lines = table([normal, better], [0.7, 0.7, 0.7], 0.1)
    assert lines[2][3] == "no evidence (3 of 3)"
    assert lines[1][4] == "80.0 [80.0, 80.0] (80.0)"


def test_a_size_that_there_is_not_is_told() -> None:
    with pytest.raises(ConfigError, match="There is no scale 'huge'"):
        setting("huge")
    with pytest.raises(ConfigError, match="seeds is 0"):
        reproduce(replace(setting("smoke"), seeds=0), "digits", Path("nowhere"))
