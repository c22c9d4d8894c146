"""The bill of an audit and of an evaluation: hard limits, estimates, and refusals."""

import sys
from pathlib import Path

import pytest

from denature.cli.app import main
from denature.extract import config
from denature.train import Normal, train
from tests.billed import ASKED, HERE, QUICK

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture(autouse=True)
def nothing_asked() -> None:
    ASKED.clear()


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "LEAST_STEPS", 5)


AUDIT = ("--data", "digits", "--student", "mlp", "--defense", "label-only", "--thief", "naive",
         "--budget", "20,40", "--seeds", "1", "--epochs", "1", "--test-images", "40",
         "--device", "cpu", "--workers", "1", "-q")  # fmt: skip


@pytest.mark.usefixtures("few_steps")
def test_the_plan_of_an_audit_has_the_same_bill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["audit", f"{HERE}:labels", *AUDIT, "--price-per-1000", "10", "--kind", "label",
             "--out", str(tmp_path)]  # fmt: skip
    assert main([*words, "--estimate", "--max-cost", "2"]) == 0
    said = capsys.readouterr().out
    stated = int(said.splitlines()[3].split(" queries; at most 200 if attempts are lost")[0])
    assert "At most US $ 2.00, at US $ 0.01 a query, within --max-cost 2." in said
    assert ASKED == []  # it states that it answers with labels
    assert main([*words, "--max-cost", "2"]) == 0
    assert sum(ASKED) == stated
    assert main([*words, "--estimate"]) == 0
    assert f"No query is left to send; {stated} were spent before." in capsys.readouterr().out


@pytest.mark.usefixtures("few_steps")
def test_an_estimate_of_an_audit_says_what_it_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in AUDIT if word != "-q"]
    out = ("--out", str(tmp_path))
    assert main(["audit", f"{HERE}:answers", *words, *out, "--estimate"]) == 0
    heard = capsys.readouterr()
    assert "is asked 4 test images" in heard.err
    assert "4 were spent before" in heard.out
    assert ASKED == [4]


@pytest.mark.usefixtures("few_steps")
def test_dollars_end_an_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", f"{HERE}:labels", *AUDIT, "--price-per-1000", "10", "--kind", "label",
             "--out", str(tmp_path)]  # fmt: skip
    assert main([*words, "--max-cost", "0.7"]) == 1
    error = capsys.readouterr().err
    assert "The limit of US $ 0.70 (--max-cost) is reached" in error
    assert "larger --max-queries or --max-cost" in error
    assert sum(ASKED) == 70
    assert main([*words, "--max-cost", "0.9"]) == 0
    assert sum(ASKED) <= 90


IMPOSSIBLE_AUDITS: list[tuple[list[str], str]] = [
    (["--budget", "1439"], "digits has 1,438 images"),
    (["--student", "no-such"], "There is no network 'no-such'"),
    (["--student", "timm:resnet18"], "needs the package 'timm'"),
    (["--thief", "small-alpha,skeptical"], "No thief applies. small-alpha: "),
    (["--labelled", "1439"], "owns 1,439 labelled images"),
    (["--max-queries", "59"], "59 queries are allowed, and an audit needs 60 at least"),
    (["--max-cost", "1"], "the price of a query is not known"),
    (["--max-cost", "0.5", "--price-per-1000", "10"], "50 queries are allowed"),
]


@pytest.mark.parametrize(("words", "said"), IMPOSSIBLE_AUDITS)
def test_an_audit_that_is_impossible_asks_nothing(
    words: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    given = list(AUDIT)
    for name, value in zip(words[::2], words[1::2], strict=True):
        if name in given:
            given[given.index(name) + 1] = value
        else:
            given += [name, value]
    assert main(["audit", f"{HERE}:labels", *given, "--kind", "label", "--out", str(tmp_path)]) == 1
    assert said in capsys.readouterr().err
    assert ASKED == []


def test_dollars_limit_an_evaluation_and_need_a_price(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", f"{HERE}:answers", "--data", "digits", "--kind", "probabilities",
             "--max-cost", "0.5", "--out", str(tmp_path), "-q"]  # fmt: skip
    assert main(words) == 1
    assert "State it with --price-per-1000" in capsys.readouterr().err
    assert ASKED == []
    assert main([*words, "--price-per-1000", "10"]) == 0
    assert "on 50 images" in capsys.readouterr().out
    assert sum(ASKED) == 50


def test_a_run_of_ones_own_costs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train("mlp", "digits", Normal(), QUICK, out=tmp_path / "run")
    for words in (["audit", *AUDIT, "--price-per-1000", "1"], ["eval", "--data", "digits"]):
        assert main([words[0], str(run.folder), *words[1:], "--max-cost", "1"]) == 1
        assert "a network in this process" in capsys.readouterr().err
