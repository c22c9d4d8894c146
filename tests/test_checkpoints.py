"""Weights of other code: wrappers around them, and files that are no checkpoints."""

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from denature.core.errors import ConfigError, RunError
from denature.core.record import find_records, read_record
from denature.core.weights import digest, fit_weights, read_weights, save_weights
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


def later(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """An average over a training, of which other numbers have come."""
    return {name: it + 1 if it.is_floating_point() else it for name, it in tensors.items()}


WEIGHTS = body_of(create("resnetc20", **SHAPE)).state_dict()
LATER = later(WEIGHTS)
LEARNED = {name: it for name, it in LATER.items() if "running" not in name and "num_b" not in name}
AVERAGED = {"n_averaged": torch.tensor(3)} | {f"module.{name}": it for name, it in LATER.items()}
SEVERAL: list[tuple[Any, str, str]] = [
    ({"model": WEIGHTS, "ema": AVERAGED}, "ema", "model"),
    ({"model": WEIGHTS, "ema": LEARNED}, "ema", "model"),
    ({"model": WEIGHTS, "ema": {"decay": 0.99, "module": LATER}}, "ema.module", "model"),
    ({"model": WEIGHTS, "ema": {"decay": 0.99, "shadow": LATER}}, "ema.shadow", "model"),
    ({"model": WEIGHTS, "swa": {"state_dict": LATER}}, "swa.state_dict", "model"),
    ({"model": {"state_dict": WEIGHTS, "best": LATER}}, "model.best", "model.state_dict"),
    ({"state_dict": {f"module.{k}": it for k, it in WEIGHTS.items()}, "net": LATER},
     "net", "state_dict"),
    ({"model": WEIGHTS, "ema": {k.replace(".", ""): it for k, it in LATER.items()}},
     "ema", "model"),
    ({"module": WEIGHTS, "ema": {"a": {"b": {"c": LATER}}}}, "ema.a.b.c", "module"),
]  # fmt: skip


@pytest.mark.parametrize(("checkpoint", "other", "first"), SEVERAL)
def test_sets_of_weights_are_told_apart_however_they_are_wrapped(
    tmp_path: Path, checkpoint: Any, other: str, first: str
) -> None:
    path = tmp_path / "w.pth"
    torch.save({"epoch": 3, **checkpoint}, path)
    wanted = f"several sets of weights, {first}, {other}, .* --entry {other} or --entry {first}"
    with pytest.raises(RunError, match=wanted):
        import_run("resnetc20", path, **SHAPE)
    for entry, among in ((first, WEIGHTS), (other, LATER)):
        found = read_weights(path, entry)
        assert any(torch.equal(it, among["conv1.weight"]) for it in found.values())


def test_an_average_without_names_is_told_too(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"model": WEIGHTS, "ema": {"shadow_params": [*LEARNED.values()]}}, path)
    with pytest.raises(
        RunError, match=r"model, ema\.shadow_params, .*Say which with --entry model"
    ):
        import_run("resnetc20", path, **SHAPE)
    import_run("resnetc20", path, **SHAPE, entry="model")
    with pytest.raises(RunError, match=r"no entry ema\.shadow_params with weights"):
        import_run("resnetc20", path, **SHAPE, entry="ema.shadow_params")


def test_what_is_no_other_set_of_weights_is_no_question(tmp_path: Path) -> None:
    network, path = create("resnetc20", **SHAPE).train(), tmp_path / "w.pth"
    network(torch.rand(4, 3, 16, 16)).sum().backward()
    adam = torch.optim.Adam(network.parameters())
    adam.step()
    moments = {"first": {name: it * 0 for name, it in WEIGHTS.items()}}
    other = create("mlp", **SHAPE).state_dict()
    beside = {"optimizer": adam.state_dict(), "adam": adam.state_dict(), "optim_G": moments}
    beside |= {"critic": other, "stats": {"loss": torch.zeros(1)}, "args": {"lr": 0.1}}
    torch.save({"state_dict": WEIGHTS, **beside}, path)
    assert import_run("resnetc20", path, **SHAPE).record.accuracy is None


def test_an_average_alone_is_read_without_its_count(tmp_path: Path) -> None:
    path, wanted = tmp_path / "w.pth", create("resnetc20", **SHAPE)
    body_of(wanted).load_state_dict(LATER)
    for checkpoint in (AVERAGED, {"model": AVERAGED}, {"model": WEIGHTS, "ema": AVERAGED}):
        torch.save(checkpoint, path)
        entry = "ema" if "ema" in checkpoint else None
        assert import_run("resnetc20", path, **SHAPE, entry=entry).digest == digest(wanted)
    torch.save({"epoch": 3, "student": WEIGHTS, "teacher": LATER}, path)
    with pytest.raises(RunError, match=r"more than weights.*--entry student or --entry teacher"):
        import_run("resnetc20", path, **SHAPE)
    assert import_run("resnetc20", path, **SHAPE, entry="teacher").digest == digest(wanted)


def test_a_pickle_that_makes_memory_is_refused(tmp_path: Path) -> None:
    """torch allows a bytearray of any size, which no weights need."""

    class Many:
        def __reduce__(self) -> Any:
            return bytearray, (10**9,)

    for form in (False, True):
        path = tmp_path / f"{form}.pt"
        torch.save({"a": Many()}, path, _use_new_zipfile_serialization=form)
        with pytest.raises(RunError, match="makes a bytearray"):
            read_weights(path)


def test_a_checkpoint_that_holds_itself_is_refused(tmp_path: Path) -> None:
    path, loop = tmp_path / "w.pth", dict[str, Any](lr=0.1)
    loop |= {"model": loop, "net": loop}
    torch.save(loop, path)
    with pytest.raises(RunError, match="more than weights"):
        read_weights(path)


@pytest.mark.filterwarnings("ignore:.*Sparse|.*nested tensors|.*quantiz")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda it: torch.quantize_per_tensor(it, 0.1, 0, torch.qint8), "is quantized"),
        (lambda it: it.to(torch.float8_e4m3fn), "is of float8_e4m3fn"),
        (lambda it: it.to(torch.float8_e5m2), "is of float8_e5m2"),
        (lambda it: it.to_sparse(), "is sparse"),
        (lambda it: it.to_sparse_csr(), "is sparse"),
        (lambda it: it.to("meta"), "is on the device meta, so without values"),
        (lambda it: it.to(torch.complex64), "is of complex64"),
        (lambda it: torch.nested.nested_tensor([it[0], it[1]]), "is nested"),
        (lambda it: it.to(torch.int16), "is torch.int16"),
        (lambda it: it.to(torch.uint32), "is torch.uint32"),
    ],
)
def test_weights_of_a_kind_that_cannot_be_taken_are_named(
    tmp_path: Path, change: Any, said: str
) -> None:
    path = tmp_path / "w.pth"
    for sets in (["model"], ["model", "ema"]):
        changed = {name: change(it) if it.ndim == 2 else it for name, it in WEIGHTS.items()}
        torch.save(dict.fromkeys(sets, changed), path)
        with pytest.raises(RunError, match=f"fc.weight {said}"):
            import_run("resnetc20", path, **SHAPE, entry="model")


def test_weights_of_fewer_bits_and_counts_of_another_kind_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        changed = {k: it.to(kind if it.is_floating_point() else torch.uint16)
                   for k, it in WEIGHTS.items()}  # fmt: skip
        torch.save(changed, path)
        assert import_run("resnetc20", path, **SHAPE).record.kind == "imported"


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
        (
            b'{"metadata": {"total_size": 9}, "weight_map": {"fc.weight": "model-1.safetensors"}}',
            "is the index of weights that lie in several files beside it. Join those into one",
        ),
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


LEFT = [
    ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "is a Git LFS poi"),
    ("<!DOCTYPE html>\n<html>sign in</html>", "is an HTML page"),
    ("<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code></Error>", "is an XML document"),
    ('{"schema": 1,', "is damaged"),
    ("run", "is damaged"),
]


@pytest.mark.parametrize(("content", "said"), LEFT)
def test_what_lies_in_a_records_place_is_called_what_it_is(
    tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "kept.jsonl").write_text(content)
    with pytest.raises(RunError, match=f"line 1 {said}"):
        find_records([tmp_path / "kept.jsonl"])
    for before in ("", "\ufeff", "\n\n"):
        (tmp_path / "record.json").write_text(before + content, encoding="utf-8")
        with pytest.raises(RunError, match=f"json {said}"):
            read_record(tmp_path)


def test_a_folder_in_a_checkpoints_place_is_called_one(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "last.ckpt"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(RunError, match=r"is a folder.*such as last\.ckpt, model\.safetensors\."):
        read_weights(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"is a folder\. Name the file with the weights in it"):
        read_weights(tmp_path / "empty")
    with pytest.raises(RunError, match="There is no weights file"):
        read_weights(tmp_path / "gone.pth")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"metadata": {"' + "x" * 600 + '": 1}, "weight_map": {}}')
    with pytest.raises(RunError, match="is the index of weights"):
        read_weights(index)


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
    with pytest.raises(ConfigError, match=r"std of .*w\.pth is 63"):
        import_run("mlp", path, **SHAPE)


def test_a_mean_without_a_spread_and_the_reverse_are_refused(tmp_path: Path) -> None:
    path, half = tmp_path / "w.pth", (0.5, 0.5, 0.5)
    torch.save(WEIGHTS, path)
    with pytest.raises(ConfigError, match="mean is given and std is not"):
        import_run("resnetc20", path, mean=half, **SHAPE)
    with pytest.raises(ConfigError, match="std is given and mean is not"):
        import_run("resnetc20", path, std=half, **SHAPE)
    import_run("resnetc20", path, mean=half, std=half, **SHAPE)


def test_a_network_of_ones_own_takes_no_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_without_mean.py").write_text(
        "from torch import nn\n"
        "def make(**shape): return nn.Sequential(nn.Flatten(), nn.Linear(768, 2))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    torch.save({"1.weight": torch.zeros(2, 768), "1.bias": torch.zeros(2)}, tmp_path / "w.pth")
    net = "mine_without_mean:make"
    with pytest.raises(ConfigError, match=f"{net} owns its normalisation; leave out mean and std"):
        import_run(net, tmp_path / "w.pth", mean=(0.5,) * 3, std=(0.5,) * 3, **SHAPE)
    import_run(net, tmp_path / "w.pth", **SHAPE)


def test_a_network_of_the_users_own_must_give_its_number_of_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "from torch import nn\nmake = lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 7))\n"
    (tmp_path / "nets_of_seven.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    torch.save({"1.weight": torch.zeros(7, 64), "1.bias": torch.zeros(7)}, tmp_path / "w.pt")

    def read(classes: int, size: int = 8) -> int:
        net, path = "nets_of_seven:make", tmp_path / "w.pt"
        run = import_run(net, path, classes=classes, channels=1, image_size=size)
        return run.record.net.classes

    assert read(7) == 7
    with pytest.raises(ConfigError, match=r"answers one image with \(1, 7\); .* --classes"):
        read(10)
    with pytest.raises(ConfigError, match="does not take an image of 1x9x9"):
        read(7, size=9)
