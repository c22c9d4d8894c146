"""Models of the hub, from folders as transformers saves them, without a network."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from denature.cli.app import main
from denature.core.errors import ConfigError, RunError
from denature.data import load
from denature.nets import hub
from denature.train import Run, import_published, load_run
from tests.commands import told


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


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("ViT", {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                 "intermediate_size": 16, "patch_size": 8}),
        ("Swin", {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "patch_size": 2,
                  "window_size": 4}),
        ("ConvNext", {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1]}),
    ],
)  # fmt: skip
def test_weights_have_the_names_of_the_release_that_saved_them(
    tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    """Those of ViT and Swin are saved under names of earlier releases."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(num_labels=10, image_size=32, **settings)
    theirs = getattr(transformers, f"{kind}ForImageClassification")(config).eval()
    theirs.save_pretrained(tmp_path)
    steps = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 32, "width": 32}}
    (tmp_path / hub.PREPROCESSOR).write_text(json.dumps(steps))
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        wanted = theirs((pixels - 0.5) / 0.5).logits
        found = import_published(f"hf:{tmp_path}").network(pixels)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_a_saved_folder_is_a_model_and_its_classes_are_matched_by_name(
    saved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    found = told(capsys, "eval", str(saved), "--data", "digits")
    network = import_published(f"hf:{saved}").network
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


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        ({"mean": (0.5,)}, "mean is given and std is not"),
        ({"mean": (0.5,), "std": (0.0,)}, "std above 0"),
        ({"mean": (0.5,), "std": (-1.0,)}, "std above 0"),
        ({"mean": (0.5, 0.5), "std": (1.0, 1.0)}, "mean has 2 values for"),
        ({"mean": (float("nan"),), "std": (1.0,)}, "finite"),
    ],
)
def test_a_normalisation_is_checked_whatever_the_library(
    saved: Path, scale: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        import_published(f"hf:{saved}", **scale)


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
        with pytest.raises(ConfigError, match="wanted are at most 1000 numbers of at most"):
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
