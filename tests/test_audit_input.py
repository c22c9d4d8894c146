"""Audits of bad input: odd models and data, and plans that do not fit."""

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from denature.cli.app import main
from denature.data.config import DataConfig
from denature.extract.victims.find import find
from denature.report.results import read_outcome
from denature.train import Normal, Run, Training, train
from tests.audit_commands import audit_words, refused, told
from tests.class_means import ASKED, HERE

pytestmark = pytest.mark.usefixtures("without_figures", "few_steps")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([f"{HERE}:words"], "answered <U3 of the shape"),
        ([f"{HERE}:eleven"], "gave 11 values an image, and 10 are wanted"),
        (
            [f"{HERE}:all_nan", "--kind", "probabilities"],
            "NaN in all of its first 4 answers, which show from 7 to 9 of 10 scores.*the weights",
        ),
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


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("one_hidden", "gives NaN for class 3 in all of its first 4 answers"),
        (
            "turned_round",
            "of 40 test images, and chance on 10%: what a clone takes of it will hardly",
        ),
    ],
)
def test_a_model_that_is_likely_a_mistake_is_audited_with_a_word(
    function: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = audit_words([f"{HERE}:{function}", "--defense", "none", "--kind", "probabilities"])
    assert main(["audit", *words, "--out", str(tmp_path)]) == 0
    assert said in capsys.readouterr().err


def test_nan_in_some_answers_of_a_function_is_said_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = audit_words([f"{HERE}:some_nan", "--defense", "none", "--kind", "probabilities"])
    assert main(["audit", *words, "--out", str(tmp_path)]) == 0
    assert (
        capsys.readouterr().err.count("some_nan gives NaN in some answers, which show from 9") == 1
    )
    result = read_outcome(tmp_path).result
    [finding] = [f for f in result.findings if f.name == "The model answers with NaN"]
    assert 0 < result.model.nan_answers < result.queries
    assert finding.why.startswith(
        f"NaN stands beside scores in {result.model.nan_answers} of {result.queries} answers"
    )


def test_scores_that_do_not_sum_to_one_are_a_finding(tmp_path: Path) -> None:
    words = audit_words([f"{HERE}:halves", "--defense", "none", "--kind", "probabilities"])
    assert main(["audit", *words, "--out", str(tmp_path), "-q"]) == 0
    result = read_outcome(tmp_path).result
    [finding] = [f for f in result.findings if f.name == "Scores do not sum to 1"]
    assert result.model.not_summing == result.queries > 0
    assert finding.why.startswith(
        f"This holds for {result.queries:,} of {result.queries:,} answers."
    )


def test_a_model_at_chance_is_told_what_to_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(capsys, f"{HERE}:turned_round", "--defense", "none", out=tmp_path)
    [*_, advice] = read_outcome(tmp_path).verdict
    assert advice.startswith("The model is not shown to be better than chance. Check the labels")


def test_a_chain_that_can_never_work_is_left_out_and_the_others_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chains = "label-only,top-k@k=2+gaussian-noise,sparse-logits@ratio=0.5+temperature"
    chosen = ("--kind", "probabilities", "--defense", chains, "--thief", "labels")
    found = told(capsys, f"{HERE}:probabilities", *chosen, out=tmp_path)
    assert {defense["defense"] for defense in found["defenses"]} == {"none", "label-only"}
    assert len(found["left_out"]) == 2
    assert all("needs all 10 scores, and one before it hides" in why for why in found["left_out"])


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
    plan = audit_words([f"{HERE}:probabilities", "--defense", "none", "--thief", "same-features"])
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
        assert "of them for test images" in capsys.readouterr().out
        left = {path.name for path in (tmp_path / name).iterdir() if path.name[0] != "."}
        assert left == {"ledger.sqlite", "ledger.sqlite.anchor"}
    assert len(ASKED) == 4


def test_no_more_images_are_asked_than_the_plan_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = [
        *audit_words(
            [f"{HERE}:probabilities", "--defense", "gaussian-noise,mad", "--labelled", "10"]
        ),
        *("--other-pool", "digits", "--out", str(tmp_path), "-q"),
    ]
    thieves = plan.index("--thief") + 1
    plan[thieves] = "naive,augmented,repeated,active-k-center,other-domain"
    assert main(["audit", *plan, "--estimate"]) == 0
    sentence = capsys.readouterr().out
    stated = int(sentence.split("cells and ")[1].split(" ")[0].replace(",", ""))
    ASKED.clear()
    assert main(["audit", *plan]) == 0
    assert 0 < len(ASKED) <= stated
    assert len(set(ASKED)) == len(ASKED)
