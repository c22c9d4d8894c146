"""Ways in: from what users have, weights, files, functions, libraries, to a model of a command."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from denature.answers.scaling import PixelScale
from denature.api import evaluate
from denature.cli.app import main
from denature.core.errors import ConfigError, RunError
from denature.core.record import read_record
from denature.data import load
from denature.extract.victims.base import run_now
from denature.extract.victims.called import FunctionVictim
from denature.extract.victims.find import find
from denature.nets import NETS, create
from denature.train import Run
from denature.train.checks import check_shape
from denature.train.importing import Shape, import_run
from tests.commands import refused, told
from tests.hostile import Answer, Request, hostile, reply
from tests.served import serving
from tests.ways import WAYS, checkpoint, function, own_module, scale_of

SMALL = ("mlp", "cnn", "sepcnn", "papernot", "resnetc20", "shufflenetv2")
"""Networks that are outlined within a second."""


# From weights to a network


QUICK_WAYS = (checkpoint, function)


@pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=[pytest.mark.slow] * (way not in QUICK_WAYS)) for way in WAYS],
    ids=lambda way: str(way.__name__),
)
def test_each_way_in_has_the_accuracy_of_the_run(
    trained: Run, place: Path, capsys: pytest.CaptureFixture[str], way: Callable[..., list[str]]
) -> None:
    words = way(trained, place)
    found = told(capsys, "eval", *words, "--data", "digits")
    assert found["accuracy"]["value"] == trained.accuracy.value
    assert found["accuracy"]["n"] == 359
    # The second time nothing is asked and nothing imported anew.
    before = sorted((path, path.stat().st_mtime_ns) for path in place.glob("runs/*/*"))
    assert told(capsys, "eval", *words, "--data", "digits")["accuracy"] == found["accuracy"]
    after = sorted((path, path.stat().st_mtime_ns) for path in place.glob("runs/*/*"))
    assert [path for path, _ in after] == [path for path, _ in before]


def test_python_takes_what_describes_a_model_on_the_command_line(trained: Run, place: Path) -> None:
    model, *_ = checkpoint(trained, place)
    network: Any = trained.network
    mean, std = (getattr(network, name).flatten().tolist() for name in ("mean", "std"))
    found = evaluate(model, "digits", net="cnn", mean=mean, std=std, device="cpu")
    assert found.value == trained.accuracy.value
    with pytest.raises(ConfigError, match=r"--kind does not apply to model\.pt"):
        evaluate(model, "digits", net="cnn", kind="logits")
    (place / "network.pt2").write_bytes(b"no program")
    for file in ("network.pt2", place / "network.pt2"):
        with pytest.raises(ConfigError, match="can execute code"):
            evaluate(file, "digits")
        with pytest.raises(RunError):
            evaluate(file, "digits", trust=["network.pt2"])


@pytest.mark.slow
def test_weights_are_audited_stolen_and_attacked(
    trained: Run, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = checkpoint(trained, place)
    few = ["--defense", "label-only", "--thief", "naive", "--budget", "20", "--seeds", "1",
           "--epochs", "1", "--student", "mlp", "--workers", "1"]  # fmt: skip
    audited = told(capsys, "audit", *words, "--data", "digits", *few)
    assert audited["victim"]["name"] == "model.pt"
    assert audited["victim"]["accuracy"]["n"] > 100
    stolen = told(capsys, "steal", *words, "--pool", "digits", "--budget", "30", "--student", "mlp",
                  "--test-images", "10", "--epochs", "1")  # fmt: skip
    assert stolen["clones"][0]["spent"] == 20
    attacked = told(capsys, "robustness", *words, "--data", "digits", "--samples", "10",
                    "--attacks", "fgsm", "--controls", "1")  # fmt: skip
    assert attacked["judged"][0]["robustness"]["run"] == "model.pt"
    timed = told(capsys, "speed", str(trained.folder), "--against", *words, "--image-size", "8",
                 "--queries", "30")  # fmt: skip
    assert timed["clone"]
    assert timed["service"]
    [run] = place.glob("runs/imported-*")
    record = read_record(run)
    assert (record.kind, record.net.name, record.net.shape) == ("imported", "cnn", (10, 1, 8))


@pytest.mark.slow
def test_weights_are_served_and_exported(
    trained: Run, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, *options = checkpoint(trained, place)
    with serving(place, f"m={model}", *options, "--image-size", "8") as served:
        found = told(capsys, "eval", f"http://{served.address}/v2/models/m", "--data", "digits")
    assert found["accuracy"]["value"] == trained.accuracy.value
    assert main(["export", model, *options, "--image-size", "8", "--format", "pt2", "-q"]) == 0
    assert list(place.glob("runs/imported-*/network.pt2"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.pt"], "holds weights without their network. Name it with --net"),
        (["model.pt", "--net", "resnet99"], "resnet99"),
        (["model.pt", "--net", "mlp"], "do not fit the network"),
        (["model.pt", "--net", "cnn", "--mean", "0.5"], "mean is given and std is not"),
        (["model.pt", "--net", "cnn", "--mean", "33", "--std", "70"], "Divide it by 255"),
        (["model.pt", "--net", "cnn", "--kind", "logits"], "--kind does not apply to model.pt"),
        (["own.pt", "--net", "own_nets:make", "--classes", "7"], "answers one image with (1, 10)"),
        (["own_functions:classify", "--net", "cnn"], "The network of clones is --student"),
        (["own_functions:classify", "--mean", "0.5"], "std is (); it must be as many numbers"),
        (["own_functions:other"], "cannot be imported"),
        (["missing.pt", "--net", "cnn"], "There is no weights file missing.pt"),
        (["hf:../../evil"], "There is no folder ../../evil"),
        (["hf:a b/c"], "wanted is hf:owner/name"),
    ],
)
def test_what_is_missing_or_too_much_is_told(
    trained: Run,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    checkpoint(trained, place)
    own_module(trained, place)
    function(trained, place)
    assert said in refused(capsys, "eval", *words, "--data", "digits")
    assert not list(place.glob("runs/*/record.json"))


@pytest.mark.parametrize("factory", ["wide", "made"])
def test_the_number_of_classes_of_an_own_network_follows(place: Path, factory: str) -> None:
    """From its weights where its factory takes the number, else from what it answers."""
    (place / "own_sizes.py").write_text(
        "from torch import nn\n"
        "def made(classes, channels, image_size):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, classes))\n"
        "def wide(channels, image_size):\n"
        "    return made(7, channels, image_size)\n"
        "def broken(classes):\n"
        "    raise ValueError(classes)\n"
    )
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 4**2, 7))
    torch.save(network.state_dict(), "own.pt")
    run = import_run(f"own_sizes:{factory}", "own.pt", image_size=4)
    assert run.record.net.shape == (7, 3, 4)
    with pytest.raises(ConfigError, match=r"does not follow from own\.pt; say it with --classes"):
        import_run("own_sizes:broken", "own.pt", image_size=4)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in SMALL)) for name in NETS]
)
def test_numbers_of_classes_and_channels_follow_from_weights(name: str) -> None:
    for classes, channels in ((10, 3), (7, 1)):
        network: Any = create(name, classes=classes, channels=channels, image_size=32)
        for weights in (
            network.state_dict(),
            network.body.state_dict(),
            {f"module.{key}": value for key, value in network.body.state_dict().items()},
        ):
            assert Shape.of(name, weights, 32) == Shape(classes, channels)
    assert Shape.of(name, {"other": torch.zeros(3, 3)}, 32).classes is None


# Numbers in place of pixels


def test_pixels_become_the_numbers_that_a_model_takes() -> None:
    images = np.array([0, 51, 255], np.uint8).reshape(1, 3, 1, 1)
    assert PixelScale()(images).ravel().tolist() == pytest.approx([0, 0.2, 1])
    assert PixelScale(scale=255)(images).ravel().tolist() == pytest.approx([0, 51, 255])
    scaled = PixelScale(mean=(0.5, 0.2, 0.0), std=(0.5, 0.1, 0.25))(images)
    assert scaled.ravel().tolist() == pytest.approx([-1, 0, 4], abs=1e-6)
    assert PixelScale(mean=(0.5,), std=(0.5,))(images).ravel().tolist() == pytest.approx(
        [-1, -0.6, 1]
    )
    for wrong in ({"mean": (0.5,)}, {"scale": 0.0}, {"mean": (124.0,), "std": (58.0,)},
                  {"scale": 2.0, "mean": (0.5,), "std": (0.5,)}):  # fmt: skip
        with pytest.raises(ConfigError):
            PixelScale(**wrong)
    with pytest.raises(ConfigError, match="mean has 2 numbers, and images have 3 channels"):
        PixelScale(mean=(0.5, 0.5), std=(1.0, 1.0))(images)


def test_a_normalised_file_is_asked_with_what_it_takes(
    trained: Run, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The body of a network alone, as other programs export it."""
    network: Any = trained.network
    body = copy.deepcopy(network.body).to(memory_format=torch.contiguous_format)
    size = torch.export.Dim("n", min=2, max=4096)
    exported = torch.export.export(body, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=({0: size},))
    torch.export.save(exported, place / "body.pt2")
    words = ["body.pt2", "--trust", "body.pt2", "--data", "digits"]
    right = told(capsys, "eval", *words, *scale_of(trained))
    assert right["accuracy"]["value"] == pytest.approx(trained.accuracy.value, abs=0.003)
    wrong = told(capsys, "eval", *words)
    assert wrong["accuracy"]["value"] != right["accuracy"]["value"]  # another target of the ledger
    names = [run_now(find("body.pt2", trust=["body.pt2"], pixels=pixels).about()).options
             for pixels in (None, PixelScale(scale=255))]  # fmt: skip
    assert names == [{}, {"scale": "255"}]


def test_a_service_of_whole_numbers_takes_no_scale(trained: Run, place: Path) -> None:
    with serving(place, f"m={trained.folder}") as served:
        victim = find(f"http://{served.address}", pixels=PixelScale(scale=255))
        with pytest.raises(ConfigError, match="whole numbers from 0 to 255; leave out --scale"):
            run_now(described(victim))


async def described(victim: Any) -> Any:
    async with victim:
        return await victim.about()


def test_a_function_is_called_with_the_numbers_that_it_takes() -> None:
    asked: list[np.ndarray] = []

    def ask(images: np.ndarray) -> np.ndarray:
        asked.append(images)
        return np.zeros((len(images), 3), np.float32)

    victim = FunctionVictim(ask, name="f", pixels=PixelScale(scale=255))
    run_now(victim.ask(np.full((1, 1, 2, 2), 255, np.uint8), id="1"))
    assert asked[0].max() == 255
    assert run_now(victim.about()).options == {"scale": "255"}


def test_a_run_is_stolen_without_options_of_weights(
    trained: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--pool", "digits", "--budget", "9", "--student", "mlp", "--net", "cnn"]
    assert "The network of clones is --student" in refused(
        capsys, "steal", str(trained.folder), *words
    )


# URLs of other services


def fastapi(request: Request) -> Answer:
    if request.path == "/openapi.json":
        return reply({"paths": {"/predict": {"post": {}}, "/about": {"get": {}}}})
    return reply(b'{"detail":"Not Found"}', status="404 Not Found")


def html(request: Request) -> Answer:
    return reply(b"<!doctype html><title>Welcome</title>", kind="text/html")


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (fastapi, 'answered 404: {"detail":"Not Found"}. Its /openapi.json has POST /predict.'),
        (html, "/v2 did not answer with JSON, but with text/html, the page 'Welcome'. Three ways"),
    ],
)
def test_a_wrong_url_says_what_is_there_and_the_ways_on(
    capsys: pytest.CaptureFixture[str], place: Path, answer: Callable[..., Answer], found: str
) -> None:
    with hostile(answer) as service:
        said = refused(capsys, "steal", service.url, "--pool", "digits", "--budget", "9",
                       "--student", "mlp")  # fmt: skip
    assert found in said
    for way in ("/v2/models/NAME", "denature rest try", "package.module:function"):
        assert way in said
    assert not list(place.glob("runs/*/ledger.sqlite"))


def test_a_command_finds_functions_of_the_current_folder(trained: Run, tmp_path: Path) -> None:
    words = function(trained, tmp_path)
    done = subprocess.run(
        ["denature", "eval", *words, "--data", "digits", "--test-images", "40", "-q"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        executable=str(Path(sys.executable).with_name("denature")),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "on 40 images" in done.stdout


def test_a_run_of_another_size_names_the_option_that_was_typed(trained: Run) -> None:
    with pytest.raises(ConfigError, match=r"of 16 pixels a side\. .*, or pass --image-size 8\.$"):
        check_shape("run", trained, load("digits", image_size=16))
    check_shape("run", trained, load("digits"))
