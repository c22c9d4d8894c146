"""Transfer: runs that start from all but the last layer of another, frozen or not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from denature.cli.app import main
from denature.core.errors import ConfigError
from denature.data import Dataset, load
from denature.data.dataset import Split
from denature.nets import create
from denature.nets.heads import graft, head_of
from denature.nets.published import PublishedWeights
from denature.train import Normal, Order, Run, Training, load_run, make, train
from denature.train.session import Session

QUICK = Training(epochs=1, batch_size=64, device="cpu", precision="fp32")


def colours(classes: int, size: int, count: int = 160) -> Dataset:
    """Squares of one colour channel, as many classes as are asked for."""
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, count)
    images = rng.integers(0, 60, (count, 3, size, size), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[label % 3] += np.uint8(40 + 60 * (label // 3))
    split = Split(torch.from_numpy(images), torch.from_numpy(labels), torch.arange(count))
    train_, test = split.divide(0.25, "test")
    digits = load("digits")
    names = tuple(map(str, range(classes)))
    return replace(digits, train=train_, test=test, classes=names, digest=f"{classes}x{size}")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("backbone") / "run"
    return train("sepcnn@width=4", colours(6, 16), Normal(), QUICK, out=out)


@pytest.mark.parametrize("name", ["mlp", "cnn", "sepcnn", "resnetc20", "mobilenetv2", "resnext29"])
def test_all_but_the_last_layer_is_taken_over(name: str) -> None:
    ours = create(name, classes=7, image_size=32)
    other = create(name, classes=4, image_size=32)
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    taken = graft(ours, other.state_dict(), outputs=7, where="it")
    head = head_of(ours, 7)
    assert head is not None
    left = set(before) - taken
    assert left
    assert all(key.startswith(head.name) for key in left)
    for key, value in ours.state_dict().items():
        wanted = before[key] if key in left else other.state_dict()[key]
        assert torch.equal(value, wanted), key


@pytest.mark.parametrize("size", [16, 32])
def test_a_frozen_backbone_stays_as_it_is_and_the_rest_learns(backbone: Run, size: int) -> None:
    data = colours(3, size)
    frozen = train("sepcnn@width=4", data, Normal(), replace(QUICK, frozen=True, epochs=3),
                   backbone=backbone)  # fmt: skip
    tuned = train("sepcnn@width=4", data, Normal(), replace(QUICK, epochs=3), backbone=backbone)
    theirs = backbone.network.state_dict()
    for key, value in frozen.network.state_dict().items():
        # Batch norm keeps what it knows too; behind another size the first linear layer is new.
        fresh = key.startswith("body.fc2") or (size == 32 and key.startswith("body.fc1"))
        same = value.shape == theirs[key].shape and torch.equal(value, theirs[key])
        assert same != fresh, key
    assert not torch.equal(
        tuned.network.state_dict()["body.body.0.1.weight"], theirs["body.body.0.1.weight"]
    )
    assert frozen.record.inputs["backbone"].digest == backbone.digest
    assert frozen.record.id != tuned.record.id


def test_a_frozen_run_goes_on_bit_for_bit(backbone: Run, tmp_path: Path) -> None:
    from denature.core.errors import Stopped
    from denature.core.stopping import Stopper

    data, training = colours(3, 16), replace(QUICK, frozen=True, epochs=4)
    whole = train("sepcnn@width=4", data, Normal(), training, backbone=backbone)
    calls = 0

    def wish() -> bool:
        nonlocal calls
        calls += 1
        return calls > 5

    def again(stopper: Stopper) -> Run:
        return train("sepcnn@width=4", data, Normal(), training, backbone=backbone,
                     out=tmp_path / "run", session=Session(stopper=stopper))  # fmt: skip

    with pytest.raises(Stopped):
        again(Stopper(wish=wish))
    assert again(Stopper()).digest == whole.digest


def test_an_order_may_be_the_backbone(tmp_path: Path) -> None:
    data = load("digits")
    first = Order(net="mlp", objective=Normal(), training=QUICK, under=tmp_path)
    second = Order(net="mlp", objective=Normal(), training=replace(QUICK, seed=1, frozen=True),
                   backbone=first, under=tmp_path)  # fmt: skip
    run = make([second], data)[0]
    assert run.record.inputs["backbone"].folder is not None
    assert "backbone" in load_run(run.folder or "").record.inputs


def test_what_cannot_be_taken_over_is_told(backbone: Run) -> None:
    data = colours(3, 16)
    with pytest.raises(ConfigError, match=r"is a sepcnn@width=4, and cnn is to be trained"):
        train("cnn", data, Normal(), QUICK, backbone=backbone)
    with pytest.raises(ConfigError, match="there is no backbone to freeze"):
        train("cnn", data, Normal(), replace(QUICK, frozen=True))
    with pytest.raises(ConfigError, match="takes images of 3 channels, and digits has 1"):
        train("sepcnn@width=4", load("digits"), Normal(), QUICK, backbone=backbone)
    with pytest.raises(ConfigError, match="from init or from a backbone"):
        train("sepcnn@width=4", colours(6, 16), Normal(), QUICK, init=backbone, backbone=backbone)
    with pytest.raises(ConfigError, match="no run's folder and no network of a library"):
        train("cnn", data, Normal(), QUICK, backbone="cnn")


def test_the_command_line_takes_a_backbone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "mlp", "--data", "digits", "--epochs", "1", "-q"]
    assert main([*words, "--out", str(tmp_path / "first")]) == 0
    more = ["--backbone", str(tmp_path / "first"), "--frozen", "--seed", "1"]
    assert main([*words, *more, "--out", str(tmp_path / "second")]) == 0
    assert load_run(tmp_path / "second").record.inputs["backbone"].kind == "normal"
    capsys.readouterr()
    # Its record makes it again, backbone and all.
    assert main(["train", "--config", str(tmp_path / "second"), "--out", str(tmp_path / "third"),
                 "-q"]) == 0  # fmt: skip
    second, third = (load_run(tmp_path / name) for name in ("second", "third"))
    assert second.record.id == third.record.id


def test_a_librarys_published_weights_start_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the library's own loader, from a file where it keeps what it fetched."""
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    resnet = models.get_model("resnet18", weights=None)
    url = models.get_model_weights("resnet18").DEFAULT.url
    place = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    place.parent.mkdir(parents=True)
    torch.save(resnet.state_dict(), place)
    data = colours(3, 32)
    training = replace(QUICK, frozen=True)
    run = train("torchvision:resnet18", data, Normal(), training, backbone="torchvision:resnet18")
    ours = run.network.state_dict()
    assert torch.equal(ours["body.conv1.weight"], resnet.state_dict()["conv1.weight"])
    assert torch.allclose(ours["mean"].flatten(), torch.tensor([0.485, 0.456, 0.406]))
    made = run.record.inputs["backbone"]
    assert (made.kind, made.net) == ("published", "torchvision:resnet18")


def test_weights_that_would_execute_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = models.get_model_weights("resnet18").DEFAULT.url
    place = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    place.parent.mkdir(parents=True)
    torch.save({"conv1.weight": Path}, place)
    with pytest.raises(ConfigError, match="torchvision cannot give weights of 'resnet18'"):
        PublishedWeights.of("torchvision:resnet18", channels=3, image_size=32)


def test_a_network_whose_last_layer_is_not_known_cannot_take_over() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 5))
    with pytest.raises(ConfigError, match="The output layer of the network is not known"):
        graft(network, network.state_dict(), outputs=3, where="it")
    with pytest.raises(ConfigError, match="of another kind: 4 tensors are in one of the two only"):
        graft(network, {}, outputs=5, where="it")


def test_timms_published_weights_are_read_where_the_hub_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    from huggingface_hub import constants
    from safetensors.torch import save_file

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    network = timm.create_model("resnet18", pretrained=False)
    repository = network.pretrained_cfg["hf_hub_id"].replace("/", "--")
    kept = tmp_path / f"models--{repository}"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("abc")
    (kept / "snapshots" / "abc").mkdir(parents=True)
    save_file(network.state_dict(), kept / "snapshots" / "abc" / "model.safetensors")
    found = PublishedWeights.of("timm:resnet18", channels=3, image_size=32)
    assert torch.equal(found.tensors["body.conv1.weight"], network.state_dict()["conv1.weight"])
    assert found.digest == PublishedWeights.of("timm:resnet18", channels=3, image_size=32).digest
