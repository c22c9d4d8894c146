"""How the chain of a served model is named, what it shows, and chains that are refused."""

from pathlib import Path

import pytest

from denature.cli.app import main
from denature.serve.config import Exposure, ServedModel
from denature.train import Run

RUN = "runs/a"


@pytest.mark.parametrize(
    ("text", "defense", "shown"),
    [
        (RUN, "label-only", Exposure()),
        (f"{RUN}@show=logits", "label-only", Exposure(show="logits")),
        (f"{RUN}@defense=none", "none", Exposure()),
        (f"{RUN}@defense=top-k", "top-k", Exposure()),
        (f"{RUN}@defense=top-k+k=2", "top-k@k=2", Exposure()),
        (f"{RUN}@defense=top-k+k=2+show=logits", "top-k@k=2", Exposure(show="logits")),
        (f"{RUN}@decimals=3+defense=top-k+k=2", "top-k@k=2", Exposure(decimals=3)),
        (f"{RUN}@defense=rounding+label-only", "rounding+label-only", Exposure()),
        (
            f"{RUN}@show=label+defense=rounding@decimals=1+label-only",
            "rounding@decimals=1+label-only",
            Exposure(show="label"),
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a", "x"])
def test_a_model_names_its_chain(name: str, text: str, defense: str, shown: Exposure) -> None:
    """In one form for one defense and in another for several; `--defense` holds for the others."""
    text = text if name == "a" else f"{name}={text}"
    wanted = ServedModel(name=name, run=RUN, exposure=shown, defense=defense)
    assert ServedModel.of(text, Exposure(), "label-only") == wanted


def test_an_at_in_the_name_of_a_folder_ends_no_name(tmp_path: Path) -> None:
    folder = tmp_path / "cnn@width=4"
    folder.mkdir()
    for rest, defense in (("", "none"), ("@defense=top-k@k=2+rounding", "top-k@k=2+rounding")):
        model = ServedModel.of(f"{folder}{rest}", Exposure())
        assert (model.run, model.name, model.defense) == (str(folder), "cnn-width-4", defense)


@pytest.mark.parametrize(
    ("rest", "usual", "taken", "exposure"),
    [
        ("", "none", "probabilities", Exposure(show="probabilities")),
        ("", "label-only", "logits", Exposure(show="label")),
        ("@show=label", "label-only", "logits", Exposure(show="label")),
        ("@show=label", "rounding", "label", Exposure(show="label")),
        ("@show=logits", "rounding", "logits", Exposure(show="logits")),
        ("@show=label", "rounding@decimals=0+label-only", "probabilities", Exposure(show="label")),
        ("", "top-k@k=3", "probabilities", Exposure(show="probabilities", top=3)),
        ("@top=2", "top-k@k=3", "probabilities", Exposure(show="probabilities", top=2)),
        ("@top=4", "top-k@k=3", "probabilities", Exposure(show="probabilities", top=3)),
        ("", "top-k@k=3+sparse-logits@ratio=0.5", "probabilities",
         Exposure(show="probabilities", top=3)),
        ("", "top-k@k=7+sparse-logits@ratio=0.5", "probabilities",
         Exposure(show="probabilities", top=5)),
        ("", "top-k@k=12", "probabilities", Exposure(show="probabilities")),
        ("", "top-k@k=3+label-only", "probabilities", Exposure(show="label")),
        ("", "looking-untrained", "logits", Exposure(show="logits")),
        ("", "top-k@k=3+temperature", "probabilities", Exposure(show="probabilities", top=3)),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("toys")
def test_what_is_shown_follows_from_the_chain(
    victim: Run, rest: str, usual: str, taken: str, exposure: Exposure
) -> None:
    model = ServedModel.of(f"{victim.folder}{rest}", Exposure(), usual).resolved()
    assert (model.taken, model.exposure) == (taken, exposure)
    assert model.resolved() == model


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--defense", "label-onyl"], "no defense 'label-onyl'. Did you mean label-only?"),
        (["--defense", "rounding@decimal=1"], "no option 'decimal'; known: decimals"),
        (["--defense", "label-only", "--show", "logits"], "gives label, but show=logits"),
        (["--defense", "label-only", "--top", "3"], "labels, which have neither top values nor"),
        (["--defense", "label-only", "--decimals", "3"], "labels, which have neither top values"),
        (["--defense", "label-only+top-k"], "The defense top-k takes logits, probabilities, not l"),
        (["--defense", "top-k@k=2+temperature"], "put it before the defense that hides them"),
        (["--defense", "looking-surrogate"], "name its run with --surrogate RUN"),
        (["--defense", "looking-misinformation"], "name its run with --misinformation RUN"),
        (["--defense", "counting", "--workers", "2"], "remembers the answers that it gave"),
        (["--defense", "noisy", "--workers", "2", "--defense-seed", "1"], "the same random numb"),
        (["--defense-save-s", "0"], "defense_save_s is 0.0; it must be above 0"),
        (["--defense", "counting", "--defense-state", "/proc/nothing"], "cannot be written"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("toys")
def test_wrong_defenses_are_told_before_anything_is_served(
    victim: Run, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(victim.folder), "--device", "cpu", "--port", "0", *words]) == 1
    assert said in capsys.readouterr().err
