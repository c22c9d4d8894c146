"""Ways in: from what users have, weights, files, functions, libraries, to a model of a command."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from denature.answers.scaling import PixelScale
from denature.cli.app import main
from denature.core.errors import ConfigError, RunError
from denature.core.record import read_record
from denature.extract.victims.base import run_now
from denature.extract.victims.called import FunctionVictim
from denature.extract.victims.find import find
from denature.nets import NETS, create, hub
from denature.serve.export import export
from denature.train import Normal, Run, Training, import_published, load_run, train
from denature.train.importing import Shape
from tests.hostile import Answer, Request, hostile, reply
from tests.served import serving

QUICK = Training(epochs=2, batch_size=64, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train("cnn", "digits", Normal(), QUICK, out=tmp_path_factory.mktemp("victim") / "run")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    return tmp_path


def scale_of(run: Run) -> list[str]:
    """The normalisation of a run, as options of a command."""
    network: Any = run.network
    return [
        word
        for name in ("mean", "std")
        for word in (f"--{name}", ",".join(map(str, getattr(network, name).flatten().tolist())))
    ]


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code = main([*words, "--json", "-q"])
    out, err = capsys.readouterr()
    assert code == 0, err
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words, "-q"]) == 1
    return capsys.readouterr().err.strip().splitlines()[-1]


SMALL = ("mlp", "cnn", "sepcnn", "papernot", "resnetc20", "shufflenetv2")
"""Networks that are outlined within a second."""


# From weights to a network


def checkpoint(run: Run, path: Path) -> list[str]:
    """A checkpoint as training scripts write it: nested, from DataParallel, without a scale."""
    network: Any = run.network
    weights = {f"module.{name}": value for name, value in network.body.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": weights}, path / "model.pt")
    return ["model.pt", "--net", "cnn", *scale_of(run)]


def whole(run: Run, path: Path) -> list[str]:
    weights = {name: value.contiguous() for name, value in run.network.state_dict().items()}
    save_file(weights, path / "whole.safetensors")
    return ["whole.safetensors", "--net", "cnn"]


FACTORY = """
from torch import nn

def make(classes, channels, image_size):
    from denature.nets import create
    return create("cnn", classes=classes, channels=channels, image_size=image_size)

def classify(images):
    import torch
    from denature.train import load_run
    with torch.no_grad():
        return load_run({run!r}).network(torch.from_numpy(images)).softmax(-1).numpy()
"""


def own_module(run: Run, path: Path) -> list[str]:
    (path / "own_nets.py").write_text(FACTORY.format(run=str(run.folder)))
    torch.save(run.network.state_dict(), path / "own.pt")
    return ["own.pt", "--net", "own_nets:make", "--classes", "10"]


def function(run: Run, path: Path) -> list[str]:
    (path / "own_functions.py").write_text(FACTORY.format(run=str(run.folder)))
    return ["own_functions:classify"]


def onnx(run: Run, path: Path) -> list[str]:
    export(run, path / "network.onnx", "onnx")
    return ["network.onnx"]


def program(run: Run, path: Path) -> list[str]:
    export(run, path / "network.pt2", "pt2")
    return ["network.pt2", "--trust", "network.pt2"]


WAYS: list[Callable[[Run, Path], list[str]]] = [
    checkpoint, whole, own_module, function, onnx, program,
]  # fmt: skip
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
    stolen = told(capsys, "steal", *words, "--pool", "digits", "--budget", "20", "--student", "mlp",
                  "--fidelity", "10", "--epochs", "1")  # fmt: skip
    assert stolen["clones"][0]["spent"] == 20
    attacked = told(capsys, "robustness", *words, "--data", "digits", "--samples", "10",
                    "--attacks", "fgsm", "--controls", "1")  # fmt: skip
    assert attacked["judged"]
    assert told(capsys, "speed", *words, "--image-size", "8")["clone"]
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
        (["own.pt", "--net", "own_nets:make"], "say it with --classes"),
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


# Models of the hub


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier as transformers saves it, with the classes of digits turned round."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    names = [str(9 - number) for number in range(10)]
    config = transformers.ResNetConfig(
        num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic",
        id2label=dict(enumerate(names)), label2id={name: k for k, name in enumerate(names)},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("hub") / "model"
    transformers.ResNetForImageClassification(config).save_pretrained(folder)
    (folder / hub.PREPROCESSOR).write_text(
        json.dumps({"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
                    "image_mean": [0.3], "image_std": [0.4], "size": {"height": 8, "width": 8}})
    )  # fmt: skip
    return folder


def test_a_model_of_the_hub_answers_as_in_transformers(saved: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    run = import_published(f"hf:{saved}", out=tmp_path / "run")
    pixels = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    theirs = transformers.ResNetForImageClassification.from_pretrained(saved).eval()
    with torch.no_grad():
        wanted = theirs((pixels - 0.3) / 0.4).logits
        for found in (run, load_run(tmp_path / "run")):
            assert torch.allclose(found.network(pixels), wanted, atol=1e-6)
            assert found.class_names == tuple("9876543210")
            assert found.record.net.shape == (10, 1, 8)


def test_a_saved_folder_is_a_model_and_its_classes_are_matched_by_name(
    saved: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, "eval", str(saved), "--data", "digits")
    network = import_published(f"hf:{saved}").network
    from denature.data import load

    test = load("digits").test
    with torch.no_grad():
        right = (
            9 - network(test.images[test.rows].float() / 255).argmax(1) == test.labels[test.rows]
        )
    assert found["accuracy"]["value"] == pytest.approx(float(right.float().mean()))
    # The record names the folder from here on; the id is that of the whole path, as before.
    name = found["run"]["net"]["name"]
    assert name.startswith(("hf:./", "hf:../"))
    assert str(saved) not in json.dumps(found)
    assert found["run"]["id"] == import_published(f"hf:{saved}").record.id
    # The same architecture, for a clone; and the network of a record, without a download.
    words = ["train", f"hf:{saved}", "--data", "digits", "--epochs", "1", "--out", "runs/own"]
    assert main([*words, "-q"]) == 0
    assert load_run("runs/own").record.net.name == f"hf:{saved}"


@pytest.mark.parametrize(
    ("steps", "scale"),
    [
        ({}, ((0.0,), (1.0,))),
        ({"image_mean": [0.5], "image_std": [0.5]}, ((0.5,), (0.5,))),
        ({"rescale_factor": 1 / 127.5, "do_normalize": False}, ((0.0,), (0.5,))),
        ({"do_rescale": False, "image_mean": [127.5], "image_std": [127.5]}, ((0.5,), (0.5,))),
    ],
)
def test_steps_of_a_preprocessor_become_one_normalisation(
    saved: Path, tmp_path: Path, steps: dict[str, Any], scale: tuple[Any, Any]
) -> None:
    for name in (hub.CONFIG, hub.WEIGHTS):
        (tmp_path / name).write_bytes((saved / name).read_bytes())
    (tmp_path / hub.PREPROCESSOR).write_text(json.dumps(steps))
    about = hub.describe(str(tmp_path), fetch=False)
    assert (about.mean, about.std) == scale


def test_what_a_folder_of_the_hub_lacks_or_overstates_is_told(saved: Path, tmp_path: Path) -> None:
    config = json.loads((saved / hub.CONFIG).read_text())
    weights = (saved / hub.WEIGHTS).read_bytes()

    def opened(changes: dict[str, Any], **options: Any) -> Run:
        (tmp_path / hub.CONFIG).write_text(json.dumps({**config, **changes}))
        return import_published(f"hf:{tmp_path}", **options)

    with pytest.raises(ConfigError, match="says how images are normalised; pass --mean and --std"):
        opened({})
    scale: dict[str, Any] = {"mean": (0.3,), "std": (0.4,)}
    with pytest.raises(ConfigError, match=r"has no model.safetensors"):
        opened({}, **scale)
    (tmp_path / hub.WEIGHTS).write_bytes(weights)
    assert opened({}, **scale, image_size=8).record.net.classes == 10
    for changes in ({"depths": [10**9, 1]}, {"hidden_sizes": [10**9, 16]}, {"depths": [1] * 5000}):
        with pytest.raises(ConfigError, match="larger than networks here may be"):
            opened(changes, **scale)
    with pytest.raises(RunError, match="do not fit the network"):
        opened({"hidden_sizes": [65536, 65536]}, **scale)  # 200 GB, outlined before it is made
    for kind in ("nothing-of-the-kind", "timm_wrapper", "bert", None):
        with pytest.raises(ConfigError, match="no classifier of images"):
            opened({"model_type": kind}, **scale)
    odd: dict[str, Any]
    for odd in ({"vision_config": {"hidden_act": "gelu"}}, {"hidden_act": "evil/act"},
                    {"quantization_config": {"quant_method": "bitsandbytes"}}):  # fmt: skip
        with pytest.raises(ConfigError, match=f"neither numbers nor words: {next(iter(odd))}"):
            opened(odd, **scale)
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle is never read")
    (tmp_path / hub.WEIGHTS).unlink()
    with pytest.raises(ConfigError, match=r"has no model.safetensors"):
        opened({}, **scale)


@pytest.mark.parametrize(
    "changes",
    [
        {"_attn_implementation_internal": "evil/kernels"},
        {"attn_implementation": "evil/kernels"},
        {"auto_map": {"AutoModelForImageClassification": "evil--modeling.Evil"}},
        {"trust_remote_code": True},
        {"backbone": "evil/backbone", "use_pretrained_backbone": True},
    ],
)
def test_a_configuration_fetches_and_executes_nothing(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """What releases of transformers took for leave to load code of a repository."""
    for name in (hub.PREPROCESSOR, hub.WEIGHTS):
        (tmp_path / name).write_bytes((saved / name).read_bytes())
    config = json.loads((saved / hub.CONFIG).read_text())
    (tmp_path / hub.CONFIG).write_text(json.dumps({**config, **changes}))
    (tmp_path / "modeling.py").write_text("raise SystemExit('executed')")
    asked = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *given, **_: asked.append(given))
    found = import_published(f"hf:{tmp_path}")
    assert found.digest == import_published(f"hf:{saved}").digest
    assert not asked


@pytest.mark.slow
def test_plain_settings_are_the_whole_configuration_of_every_kind() -> None:
    """None is left out silently: the weights might fit a network that computes otherwise."""
    transformers = pytest.importorskip("transformers")
    auto = pytest.importorskip("transformers.models.auto.modeling_auto")
    kept = []
    for kind in auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        whole = transformers.AutoConfig.for_model(kind).to_dict()
        plain = {key: value for key, value in whole.items() if key != "model_type"}
        try:
            settings = hub._settings(kind, plain)
        except ConfigError:
            continue
        again = transformers.AutoConfig.for_model(kind, **settings).to_dict()
        assert {**again, **{key: whole.get(key) for key in again if key[0] == "_"}} == whole
        kept.append(kind)
    assert {"vit", "deit", "swin", "convnext", "resnet", "beit", "mobilenet_v2", "cvt"} <= {*kept}


def test_a_record_that_names_the_hub_downloads_nothing(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_published(f"hf:{saved}", out=tmp_path / "run")
    path = tmp_path / "run" / "record.json"
    path.write_text(path.read_text().replace(f"hf:{saved}", "hf:someone/elses"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    fetched = []
    monkeypatch.setattr("socket.socket.connect", lambda *given: fetched.append(given))
    with pytest.raises(ConfigError, match=r"hf cannot|cannot be obtained"):
        load_run(tmp_path / "run")
    assert not fetched


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
        (html, "did not answer with JSON"),
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
