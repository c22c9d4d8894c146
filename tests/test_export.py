"""Networks as files for other servers: torch.export programs and ONNX."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from denature.cli.app import main
from denature.core.errors import RunError
from denature.nets import NETS, create
from denature.train import Run, import_run
from tests.victims import digits, predicted


@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_an_exported_network_answers_as_the_run_does(
    victim: Run, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"victim.{form}"
    assert main(["export", str(victim.folder), "--format", form, "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["file"], told["bytes"]) == (str(out), out.stat().st_size)
    assert told["apart"] < 1e-4
    assert list(tmp_path.iterdir()) == [out]
    images = (digits(3) / 255).astype(np.float32)
    if form == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        [found] = onnxruntime.InferenceSession(str(out)).run(["logits"], {"images": images})
    else:
        found = torch.export.load(out).module()(torch.from_numpy(images)).detach().numpy()
    np.testing.assert_allclose(found, predicted(victim, digits(3)), atol=1e-5)


def test_what_answers_otherwise_is_not_left(
    victim: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from denature.serve import export as exporting

    wrong = replace(victim, network=torch.nn.Sequential(victim.network, torch.nn.Softmax(1)))
    monkeypatch.setattr(exporting, "_program",
                        lambda network, example: torch.export.export(victim.network, (example,),
                        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)))  # fmt: skip
    with pytest.raises(RunError, match="answers differently, by"):
        exporting.export(wrong, tmp_path / "wrong.pt2", "pt2")
    assert not list(tmp_path.iterdir())


class Strict(torch.nn.Module):
    """Cannot be exported, and does not say why."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_compiling():
            raise AssertionError
        return x


def test_a_network_that_fails_without_words_is_named(victim: Run, tmp_path: Path) -> None:
    from denature.serve import export as exporting

    strict = replace(victim, network=torch.nn.Sequential(victim.network, Strict()))
    with pytest.raises(RunError, match="cannot be exported as pt2: AssertionError"):
        exporting.export(strict, tmp_path / "strict.pt2", "pt2")


DEEPER = {"resnetc32", "resnetc44", "resnetc56", "resnetc110", "resnet34"}
"""Of the same blocks as a shallower one."""

RELATED = {"papernot": "cnn", "sepcnn": "cnn", "resnet50": "resnet18", "resnext29": "resnet18"}
"""Networks whose ONNX has the operators of another one's: the faster format shows the rest."""

EXPORTS = [
    (name, form)
    for name in sorted(set(NETS) - DEEPER)
    for form in ("pt2", "onnx")
    if form == "pt2" or name not in RELATED
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "form"), EXPORTS)
def test_networks_of_every_kind_can_be_exported(name: str, form: str, tmp_path: Path) -> None:
    from denature.serve.export import export

    torch.manual_seed(0)
    network = create(name, classes=3, image_size=8)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    run = import_run(name, tmp_path / "weights.pt", classes=3, image_size=8)
    assert export(run, tmp_path / "network", form) < 1e-4  # type: ignore[arg-type]
