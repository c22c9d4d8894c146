"""Packages that are not installed: every command says in one line which extra brings them."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from PIL import Image

from denature.cli.commands import COMMANDS
from denature.core.errors import MissingExtra
from denature.extract.asking.ledger import Ledger
from denature.extract.theft import LEDGER
from denature.train import Normal, Training, train

ROOT = Path(__file__).parents[1]


INSTALLED = packages_distributions()  # a fifth of a second each time


def modules_of(requirement: str) -> set[str]:
    """The names by which a requirement of pyproject.toml is imported."""
    match = re.match(r"[\w.-]+", requirement)
    assert match is not None
    wanted = re.sub(r"[-_.]+", "-", match[0]).lower()
    installed = {
        module
        for module, owners in INSTALLED.items()
        if wanted in {re.sub(r"[-_.]+", "-", it).lower() for it in owners}
    }
    return {it for it in installed if not it.startswith("_")} or {wanted.replace("-", "_")}


DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
EXTRAS: dict[str, set[str]] = {
    extra: set().union(*map(modules_of, requirements))
    for extra, requirements in DECLARED.items()
    if extra != "dev"
}

STEAL = ["--pool", "digits", "--budget", "20", "--student", "mlp", "--out", "theft"]

EXAMPLES: dict[str, list[str]] = {
    "audit": ["audit", "run", "--data", "digits", "--estimate", "--defense", "none",
              "--workers", "1", "--out", "audit"],
    "demo": ["demo", "--seeds", "0"],
    "train": ["train", "mlp", "--data", "digits", "--epochs", "1", "--out", "trained"],
    "nasty": ["nasty", "mlp", "--data", "digits", "--adversary", "run", "--epochs", "1",
              "--out", "nasty"],
    "distill": ["distill", "mlp", "--data", "digits", "--teacher", "run", "--epochs", "1",
                "--out", "distilled"],
    "skeptical": ["skeptical", "cnn", "--data", "digits", "--teacher", "run", "--epochs", "1",
                  "--out", "skeptical"],
    "harden": ["harden", "mlp", "--data", "digits", "--temperature", "2", "--epochs", "1",
               "--out", "hardened"],
    "robustness": ["robustness", "run", "--data", "digits", "--effort", "quick", "--samples", "10",
                   "--attacks", "deepfool,square", "--out", "robust"],
    "flatness": ["flatness", "run", "--data", "digits", "--samples", "10", "--directions", "2",
                 "--out", "flat"],
    "dafl": ["dafl", "mlp", "--data", "digits", "--teacher", "run", "--epochs", "1",
             "--out", "dafl"],
    "invert": ["invert", "run", "--images", "2", "--steps", "1"],
    "run": ["run", "run"],
    "reproduce": ["reproduce"],
    "serve": ["serve", "nowhere"],
    "rest": ["rest", "try", "nowhere.toml", "nowhere.png"],
    "keys": ["keys", "keys.sqlite", "--add", "a"],
    "steal": ["steal", "run", *STEAL, "--test-images", "10", "--epochs", "1"],
    "ledger": ["ledger", "ledger.sqlite"],
    "speed": ["speed", "nowhere"],
    "mark": ["mark", "face.png", "--detector", "run", "--out", "marked"],
    "export": ["export", "run", "--format", "pt2", "--out", "network.pt2"],
    "eval": ["eval", "run", "--data", "digits"],
    "predict": ["predict", "run", "face.png", "--resize"],
    "runs": ["runs", "run"],
    "answers": ["answers"],
    "import": ["import", "mlp", "--weights", "run/weights.safetensors", "--classes", "10",
               "--channels", "1", "--image-size", "8", "--out", "imported", "--overwrite"],
    "push": ["push", "run", "hf:owner/name", "--dry-run"],
    "pull": ["pull", "hf:owner"],
    "report": ["report", "run"],
    "data": ["data", "digits"],
    "nets": ["nets"],
}  # fmt: skip
"""A quick call of each command, past its imports."""

NEEDY: dict[str, list[list[str]]] = {
    "hub": [["data", "hf:owner/name"], ["push", "run", "hf:owner/name"],
            ["pull", "hf:owner/name"]],
    "tensorboard": [],  # to look at events with; nothing here imports it
    "pandas": [],  # frames in Python; see test_python
    "parallel": [],  # asked for by a launcher's environment; see test_team
    "ray": [["train", "mlp", "--data", "digits", "--ray", "auto", "--seed", "0,1",
             "--out", "swept"]],
    "track": [["train", "mlp", "--data", "digits", "--epochs", "1", "--track", "mlflow",
               "--out", "tracked"]],
    "serve": [["serve", "run", "--port", "0"], ["reproduce", "nose", "--scale", "smoke"]],
    "redis": [["keys", "redis://127.0.0.1:9", "--add", "a"]],
    "rekognition": [["steal", "rekognition", *STEAL], ["reproduce", "nose", "--scale", "smoke"],
                    ["mark", "face.png", "--detector", "rekognition", "--out", "marked"]],
    "onnx": [["export", "run", "--out", "network.onnx"]],
    "timm": [["train", "timm:resnet18", "--data", "digits", "--out", "timm"]],
    "transformers": [["eval", "hf:owner/name", "--data", "digits"]],
    "torchvision": [["train", "torchvision:resnet18", "--data", "digits", "--out", "vision"]],
}  # fmt: skip
"""Calls that cannot do without an extra."""

Driver: TypeAlias = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Answers calls without some modules, in one process and a folder with a run."""
    place = tmp_path_factory.mktemp("bare")
    quick = Training(epochs=1, device="cpu", precision="fp32")
    train("mlp", "digits", Normal(), quick, out=place / "run")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(place / "face.png")
    with Ledger(place / LEDGER):
        pass
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "extras_driver.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
             "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    put, lines = process.stdin, process.stdout

    def ask(absent: set[str], commands: list[list[str]], *, imports: bool = False) -> Any:
        asked = {"absent": sorted(absent), "commands": commands, "imports": imports}
        put.write(json.dumps(asked) + "\n")
        put.flush()
        return json.loads(lines.readline())

    yield ask
    put.close()
    process.wait(timeout=60)
    lines.close()


EVERYTHING = set().union(*EXTRAS.values())


def test_no_command_and_no_extra_is_left_out() -> None:
    assert EXAMPLES.keys() == COMMANDS.keys()
    assert NEEDY.keys() == EXTRAS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_does_its_work_or_says_why_not_without_any_extra(
    driver: Driver, command: str
) -> None:
    found = driver(EVERYTHING, [[command, "--help"], EXAMPLES[command]])
    helped, done = found["answers"]
    assert helped["code"] == 0, helped["err"]
    assert f"denature {command}" in helped["out"]
    last = done["err"].strip().splitlines()[-1:]
    assert done["code"] in (0, 1), done["err"]
    assert "Traceback" not in done["err"]
    if done["code"]:
        assert last[0].startswith("denature: ")
    if command in (
        "audit",
        "train",
        "eval",
        "ledger",
        "keys",
        "export",
        "report",
        "predict",
        "import",
        "robustness",
        "steal",
    ):
        assert done["code"] == 0, last


@pytest.mark.slow
@pytest.mark.parametrize("extra", EXTRAS)
def test_what_needs_an_extra_names_it_in_one_line(driver: Driver, extra: str) -> None:
    found = driver(EXTRAS[extra], NEEDY[extra], imports=True)
    for words, done in zip(NEEDY[extra], found["answers"], strict=True):
        assert done["code"] == 1, (words, done["err"])
        last = done["err"].strip().splitlines()[-1]
        assert re.search(rf"denature\[(\w+,)*{extra}(,\w+)*\]", last), last
        assert last.startswith("denature: ")
        assert f"-c {ROOT / 'constraints.txt'}" in last
    # Where a module of ours cannot be imported, it says so in the same words.
    assert set(found["faults"].values()) <= {"MissingExtra", "ModuleNotFoundError"}
    bare = {name for name, kind in found["faults"].items() if kind == "ModuleNotFoundError"}
    assert all(name.startswith("denature.serve.") for name in bare), bare


def test_the_line_that_is_recommended_is_for_this_interpreter() -> None:
    said = str(MissingExtra("boto3", "rekognition", "Asking Rekognition"))
    assert f"{sys.executable} -m pip install 'denature[rekognition]'" in said
    assert "\n" not in said
