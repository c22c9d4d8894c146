"""Weights of other code: wrappers around them, and files that are no checkpoints."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from denature.core.errors import ConfigError, RunError
from denature.core.weights import digest, fit_weights, save_weights
from denature.nets import create
from denature.train import import_run

SHAPE: dict[str, Any] = {"classes": 2, "image_size": 16}


def body_of(network: nn.Module) -> nn.Module:
    body = network.body
    assert isinstance(body, nn.Module)
    return body


@pytest.mark.parametrize(
    "prefix",
    ["_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module.", "model.", "net.",
     "model._orig_mod.", "student.encoder.", "body."],
)  # fmt: skip
def test_what_wrappers_put_before_all_names_is_left_out(tmp_path: Path, prefix: str) -> None:
    network, path = create("resnetc20", **SHAPE).eval(), tmp_path / "last.ckpt"
    plain = body_of(network).state_dict()
    for tensors in (
        plain,
        {name: value for name, value in plain.items() if not name.endswith("num_batches_tracked")},
        network.state_dict(),
    ):
        wrapped = {prefix + name: value for name, value in tensors.items()}
        torch.save({"epoch": 3, "state_dict": wrapped}, path)
        assert import_run("resnetc20", path, **SHAPE).digest == digest(network)


def test_layers_that_were_compiled_alone_are_known(tmp_path: Path) -> None:
    network = create("mlp", **SHAPE).eval()
    names = {name.replace("fc2.", "fc2._orig_mod."): v for name, v in network.state_dict().items()}
    assert names.keys() != network.state_dict().keys()
    torch.save(names, tmp_path / "w.pt")
    assert import_run("mlp", tmp_path / "w.pt", **SHAPE).digest == digest(network)


def test_of_several_sets_of_weights_one_has_to_be_named(tmp_path: Path) -> None:
    network, average, path = create("mlp", **SHAPE), create("mlp", **SHAPE), tmp_path / "last.pth"
    assert digest(network) != digest(average)
    optimizer = torch.optim.Adam(network.parameters()).state_dict()
    stats = {"loss": torch.zeros(1)}
    sets = {"state_dict": network.state_dict(), "state_dict_ema": average.state_dict()}
    torch.save({"epoch": 3, **sets, "optimizer": optimizer, "stats": stats}, path)
    with pytest.raises(RunError, match=r"several sets.* state_dict, state_dict_ema.*--entry state"):
        import_run("mlp", path, **SHAPE)
    for entry, wanted in (("state_dict", network), ("state_dict_ema", average)):
        run = import_run("mlp", path, **SHAPE, entry=entry)
        assert run.digest == digest(wanted)
        assert run.record.given["entry"] == entry
    with pytest.raises(RunError, match=r"no entry ema.*epoch, state_dict, state_dict_ema, optimi"):
        import_run("mlp", path, **SHAPE, entry="ema")
    sets.pop("state_dict_ema")
    torch.save({"epoch": 3, **sets, "optimizer": optimizer, "stats": stats}, path)
    assert import_run("mlp", path, **SHAPE).digest == digest(network)


class Prefixed(nn.Module):
    """All of its own names begin alike."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_a_prefix_of_the_networks_own_stays() -> None:
    network, other = Prefixed(), Prefixed()
    tensors = {f"module.{name}": value for name, value in other.state_dict().items()}
    fit_weights(network, tensors, where="here")
    assert digest(network) == digest(other)
    with pytest.raises(RunError, match=r"missing: model\.1\.weight.*not known here: strange"):
        fit_weights(network, {"strange.weight": torch.zeros(3)}, where="here")


def zipped(name: str) -> bytes:
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as archive:
        archive.writestr(name, "x")
    return found.getvalue()


def checkpoint() -> bytes:
    found = io.BytesIO()
    torch.save({"w": torch.zeros(1000)}, found)
    return found.getvalue()


def array() -> bytes:
    found = io.BytesIO()
    np.savez(found, w=np.zeros(3))
    return found.getvalue()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "best_model.tar"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>quota</html>", "is an HTML page"),
        (b"\xef\xbb\xbf\n <HTML lang='en'>", "is an HTML page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is an XML document"),
        (b'{"error": "not found"}', "is JSON"),
        (b"Access denied", "is text that begins with 'Access denied'"),
        ("é".encode() * 600, "is text"),
        (zipped("readme.txt"), "zip archive of 1 files, such as 'readme.txt'"),
        (zipped("model/constants.pkl"), "is a TorchScript archive"),
        (array(), "is an .npz of NumPy"),
        (checkpoint()[:2000], "is cut off or damaged"),
        (b"\x1f\x8b" + bytes(30), "is packed with gzip"),
        (pickle.dumps({"a": "x" * 100})[:40], "is cut off or damaged"),
        (bytes(range(256)), "is no checkpoint of a known format"),
    ],
)
def test_what_lies_in_a_checkpoints_place_is_called_what_it_is(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RunError, match=said) as caught:
        import_run("mlp", tmp_path / name, classes=2)
    assert "execute code" not in str(caught.value)


def test_a_file_is_known_by_what_it_holds_and_not_by_its_name(tmp_path: Path) -> None:
    network = create("mlp", **SHAPE).eval()
    save_weights(tmp_path, network)
    (tmp_path / "weights.safetensors").rename(tmp_path / "w.pth")
    torch.save(network.state_dict(), tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        assert import_run("mlp", tmp_path / name, **SHAPE).digest == digest(network)


def test_a_normalisation_of_images_up_to_255_is_refused(tmp_path: Path) -> None:
    network, path = create("mlp", **SHAPE), tmp_path / "w.pth"
    torch.save(body_of(network).state_dict(), path)
    with pytest.raises(ConfigError, match=r"0\.\.255.*by 255: 0\.4914,0\.4824,0\.4467"):
        import_run("mlp", path, mean=(125.3, 123.0, 113.9), **SHAPE)
    with pytest.raises(ConfigError, match=r"std is 63, 62\.1, 66\.7.*0\.2471,0\.2435,0\.2616"):
        import_run("mlp", path, mean=(0.5,) * 3, std=(63.0, 62.1, 66.7), **SHAPE)
    assert isinstance(network.std, torch.Tensor)
    network.std.fill_(63.0)
    torch.save(network.state_dict(), path)
    with pytest.raises(ConfigError, match=r"std in .*w\.pth is 63"):
        import_run("mlp", path, **SHAPE)
