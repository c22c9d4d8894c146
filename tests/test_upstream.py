"""Experiment folders of the official repository: read, ordered, run, and left as it leaves them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from denature.cli.app import main
from denature.core.errors import ConfigError, RunError
from denature.core.record import read_record
from denature.nets import create
from denature.recipes.upstream.folders import NETS, Overrides, find, in_order, read
from denature.train import load_run

BASE: dict[str, Any] = {
    "model_name": "net", "num_channels": 4, "dropout_rate": 0.0, "learning_rate": 1e-3,
    "schedule": [2, 999], "gamma": 0.1, "batch_size": 10, "num_epochs": 3, "num_workers": 4,
    "augmentation": 1, "cuda": 1, "dataset": "cifar10",
}  # fmt: skip
NASTY = {"adversarial_model": "net", "temperature": 4, "weight": 0.04}
STUDENT = {"teacher_model": "net", "temperature": 4, "alpha": 0.9}

OFFICIAL_NAMES = {
    "net": ("conv1.weight", "bn3.running_var", "fc1.bias", "fcbn1.weight", "fc2.weight"),
    "preresnet20": ("conv1.weight", "layer1.0.bn1.weight", "layer2.0.downsample.0.weight",
                    "layer3.2.conv2.weight", "bn.bias", "fc.weight"),
    "preresnet44": ("layer1.0.downsample.0.weight", "layer1.6.conv3.weight", "layer3.6.bn3.bias"),
    "resnet18": ("conv1.weight", "bn1.weight", "layer2.0.shortcut.0.weight",
                 "layer2.0.shortcut.1.running_mean", "layer4.1.bn2.bias", "linear.weight"),
    "resnet50": ("layer1.0.conv3.weight", "layer1.0.shortcut.0.weight", "layer4.2.bn3.bias"),
    "resnext29": ("conv_1_3x3.weight", "bn_1.bias", "classifier.weight",
                  "stage_1.stage_1_bottleneck_0.shortcut.shortcut_conv.weight",
                  "stage_3.stage_3_bottleneck_2.conv_expand.weight"),
    "mobilenetv2": ("pre.0.bias", "stage1.residual.0.weight", "stage2.1.residual.7.weight",
                    "stage7.residual.3.bias", "conv1.1.weight", "conv2.weight"),
    "shufflenetv2": ("pre.1.weight", "stage2.0.shortcut.2.weight", "stage3.7.residual.5.bias",
                     "conv5.0.weight", "fc.bias"),
    "densenet121": ("conv1.weight", "features.bn.weight", "linear.bias",
                    "features.dense_block_layer_0.bottle_neck_layer_5.bottle_neck.2.weight",
                    "features.transition_layer_2.down_sample.1.weight",
                    "features.dense_block3.bottle_neck_layer_15.bottle_neck.5.weight"),
}  # fmt: skip
"""Some names in the state dicts of the official networks, from all of their parts."""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree as the official one, its data beside it; the student comes first by name."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    data = tmp_path / "data" / "cifar10"
    data.mkdir(parents=True)

    def records(count: int) -> bytes:
        labels = np.arange(count, dtype=np.uint8)[:, None] % 10
        pixels = draw.integers(0, 256, (count, 3072), np.uint8) // 2 + 12 * labels
        return np.concatenate([labels, pixels.astype(np.uint8)], axis=1).tobytes()

    for number in range(1, 6):
        (data / f"data_batch_{number}.bin").write_bytes(records(10))
    (data / "test_batch.bin").write_bytes(records(30))
    root = "experiments/CIFAR10"
    write(tmp_path, f"{root}/a_student/net", STUDENT,
          teacher_resume=f"{root}/kd_nasty/nasty_net/best_model.tar")  # fmt: skip
    write(tmp_path, f"{root}/kd_nasty/nasty_net", NASTY,
          adversarial_resume=f"{root}/z_baseline/net/best_model.tar")  # fmt: skip
    write(tmp_path, f"{root}/z_baseline/net", {})
    return tmp_path / root


def write(root: Path, name: str, changes: dict[str, Any], **more: Any) -> Path:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.json").write_text(json.dumps({**BASE, **changes, **more}, indent=4))
    return folder


def denature(*arguments: object) -> int:
    return main([*map(str, arguments), "--data-root", "data", "-q"])


@pytest.mark.slow
def test_a_tree_runs_in_the_order_that_its_checkpoints_need(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert denature("run", tree, "--device", "cpu", "--precision", "fp32") == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1].split()[0] for line in said] == ["normal", "nasty", "distilled"]
    folders = [tree / name for name in ("z_baseline/net", "kd_nasty/nasty_net", "a_student/net")]
    records = [read_record(folder / "run") for folder in folders]
    for folder, record in zip(folders, records, strict=True):
        assert record.chosen_on == "test"
        assert record.config["training"]["milestones"] == [2]
        assert record.config["training"]["optimizer"] == "adam"
        assert record.net.name == "cnn@width=4"
        best, last = (
            torch.load(folder / f"{name}_model.tar", weights_only=True) for name in ("best", "last")
        )
        assert best.keys() == last.keys() == {"epoch", "state_dict", "optim_dict"}
        assert (best["epoch"], last["epoch"]) == (record.chosen_epoch, 3)
        assert set(OFFICIAL_NAMES["net"]) <= best["state_dict"].keys()
        assert last["optim_dict"]["state"][0]["step"] == 15
        kept = load_run(folder / "run").network.get_submodule("body").state_dict()
        assert all(torch.equal(kept[name], value) for name, value in best["state_dict"].items())
        log = (folder / "training.log").read_text()
        assert "model_name:net\n" in log
        assert log.count("- Eval metrics : acc: ") == 3
        accuracy = 100 * max(entry.test_accuracy or 0 for entry in record.history)
        assert f"- So far best epoch: {record.chosen_epoch}, best acc: {accuracy:05.3f}\n" in log
        assert "Epoch 3/3\nLearning Rate 0.0001" in log
    assert records[1].inputs["adversary"].digest == records[0].net.digest
    assert records[2].inputs["teacher"].digest == records[1].net.digest
    assert records[1].config["objective"]["omega"] == 0.04
    assert records[2].config["objective"]["alpha"] == 0.9
    # Asked again, all is read and nothing is made.
    before = (folders[2] / "best_model.tar").stat().st_mtime_ns
    assert denature("run", tree, "--device", "cpu", "--precision", "fp32") == 0
    assert (folders[2] / "best_model.tar").stat().st_mtime_ns == before


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_of_the_official_code_is_a_teacher(tree: Path, prefix: str) -> None:
    """Also one from a DataParallel run; nothing of it was made here."""
    foreign = create("cnn@width=4", classes=10).get_submodule("body")
    state = {prefix + name: value for name, value in foreign.state_dict().items()}
    folder = tree / "kd_nasty" / "nasty_net"
    torch.save({"epoch": 7, "state_dict": state, "optim_dict": {}}, folder / "best_model.tar")
    assert denature("train_kd", "--save_path", tree / "a_student" / "net") == 0
    record = read_record(tree / "a_student" / "net" / "run")
    assert record.inputs["teacher"].kind == "imported"
    assert not (tree / "z_baseline" / "net" / "run").exists()


def test_the_official_scripts_names_do(tree: Path) -> None:
    assert (
        denature("train_scratch", "--save_path", tree / "z_baseline" / "net", "--gpu_id", 0, 1) == 0
    )
    assert denature("train_nasty", "--save_path", tree / "kd_nasty" / "nasty_net") == 0
    assert (tree / "kd_nasty" / "nasty_net" / "best_model.tar").exists()


def test_what_the_command_line_sets_comes_first(tree: Path) -> None:
    folder = tree / "z_baseline" / "net"
    write(tree, "z_baseline/net", {"num_epochs": 20, "schedule": [10, 15]})
    assert denature("run", folder, "--epochs", 4, "--fraction", 0.5, "--seed", 3) == 0
    training = read_record(folder / "run").config["training"]
    assert (training["epochs"], training["milestones"]) == (4, [2, 3])
    assert (training["fraction"], training["seed"]) == (0.5, 3)


@pytest.mark.slow
def test_settings_map_onto_ours(tree: Path) -> None:
    folder = write(tree, "other", {"model_name": "preresnet32", "schedule": [999]},
                   subset_percent=0.3, augmentation=0)  # fmt: skip
    assert denature("run", folder, "--epochs", 1) == 0
    record = read_record(folder / "run")
    training = record.config["training"]
    assert record.net.name == "resnetc32"
    assert (training["optimizer"], training["weight_decay"]) == ("sgd", 5e-4)
    assert (training["schedule"], training["augment"]) == ("constant", "none")
    assert training["fraction"] == 0.3
    Path("data/tiny-imagenet").symlink_to("cifar10")  # whatever layout and size it has
    folder = write(tree, "turned", {}, dataset="tiny_imagenet")
    assert denature("run", folder, "--epochs", 1) == 0
    assert read_record(folder / "run").config["training"]["augment"] == "rotate-flip"
    folder = write(tree, "dropped", {"dropout_rate": 0.5})
    assert denature("run", folder, "--epochs", 1) == 0
    assert read_record(folder / "run").net.name == "cnn@width=4+dropout=0.5"
    folder = write(tree, "resumed", {"resume": str(tree / "other" / "last_model.tar")},
                   model_name="preresnet32")  # fmt: skip
    assert denature("run", folder, "--epochs", 1) == 0
    assert read_record(folder / "run").inputs["init"].kind == "imported"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rates": 1}, r"params.json: 'learning_rates'. Did you mean learning_rate"),
        ({"dataset": "cifar"}, r"params.json: 'cifar'. Did you mean cifar10"),
        ({"model_name": "resnet-18"}, r"params.json: 'resnet-18'. Did you mean resnet18"),
        ({"learning_rate": "fast"}, r"Expected `float`, got `str` - at `\$.learning_rate`"),
        ({"temperature": 4}, r"describes no training: with temperature it lacks"),
        ({"teacher_model": "net"}, r"it lacks alpha, teacher_resume, temperature"),
        ({**NASTY, "adversarial_resume": "x", "alpha": 1}, r"it has alpha too many"),
        ({"num_epochs": 0}, r"wrong/params.json: num_epochs is 0"),
        ({"subset_percent": 50}, r"wrong/params.json: fraction is 50"),
        ({"learning_rate": float("nan")}, r"wrong/params.json: lr is nan"),
        ({**NASTY, "adversarial_resume": "x", "weight": -1}, r"wrong/params.json: omega is -1"),
    ],
)
def test_settings_that_make_no_training_are_refused(
    tree: Path, changes: dict[str, Any], said: str
) -> None:
    folder = write(tree, "wrong", changes)
    with pytest.raises(ConfigError, match=said):
        read(folder, Overrides())


def test_what_means_nothing_here_is_noted(tree: Path) -> None:
    notes = "; ".join(read(tree / "z_baseline" / "net", Overrides()).notes)
    assert "cuda is 1, which has no effect here: see --device" in notes
    assert "num_workers is 4, which has no effect here" in notes
    assert "the earliest is kept, in the official code the latest" in notes


def test_the_checkpoint_that_a_path_names_is_the_one_that_is_taken(tree: Path) -> None:
    """Also where another lies in the place of the one that our run left."""
    assert denature("run", tree) == 0
    nasty = tree / "kd_nasty" / "nasty_net"
    kept = torch.load(nasty / "best_model.tar", weights_only=True)
    kept["state_dict"]["fc2.bias"] += 1
    torch.save(kept, nasty / "best_model.tar")
    for number, places in enumerate(([], [tree / "kd_nasty"])):
        student = write(tree, f"after/{number}", STUDENT,
                        teacher_resume=str(nasty / "best_model.tar"))  # fmt: skip
        assert denature("run", *places, student) == 0
        teacher = read_record(student / "run").inputs["teacher"]
        assert teacher.kind == "imported"
        assert teacher.digest != read_record(nasty / "run").net.digest
    # And where it was removed, our run has it still.
    (nasty / "best_model.tar").unlink()
    student = write(tree, "after/removed", STUDENT, teacher_resume=str(nasty / "best_model.tar"))
    assert denature("run", nasty, student) == 0
    assert read_record(student / "run").inputs["teacher"].kind == "nasty"
    again = torch.load(nasty / "best_model.tar", weights_only=True)["state_dict"]
    kept["state_dict"]["fc2.bias"] -= 1
    torch.testing.assert_close(again, kept["state_dict"])


def test_no_student_learns_from_a_run_that_was_stopped(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tree / "z_baseline" / "net"
    assert denature("run", folder, "--time-limit", "0.05s") == 75
    (folder / "best_model.tar").touch()  # of an epoch before
    assert denature("run", tree / "kd_nasty") == 1
    assert "was stopped before its end. Run" in capsys.readouterr().err


def test_a_folder_can_go_on_from_what_it_left(tree: Path) -> None:
    folder = tree / "z_baseline" / "net"
    assert denature("run", folder) == 0
    resumed = ("train_scratch", "--save_path", folder, "--resume", folder / "last_model.tar")
    assert denature(*resumed, "--overwrite") == 0
    assert read_record(folder / "run").inputs["init"].kind == "imported"


def test_paths_may_be_absolute_and_go_through_links(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(tree)
    linked = tmp_path / "linked" / "z_baseline" / "net" / "best_model.tar"
    write(tree, "kd_nasty/nasty_net", NASTY, adversarial_resume=str(linked))
    ordered = in_order([read(folder, Overrides()) for folder in find([tree])])
    assert [folder.path.name for folder in ordered] == ["net", "nasty_net", "net"]


def test_another_teacher_is_for_students(tree: Path) -> None:
    chosen = Overrides(teacher_resume="elsewhere/best_model.tar")
    kinds = {folder.objective.kind: folder for folder in (read(f, chosen) for f in find([tree]))}
    assert set(kinds["distilled"].needs) == {"teacher"}
    assert kinds["distilled"].needs["teacher"].parts[-2:] == ("elsewhere", "best_model.tar")
    assert not kinds["normal"].needs


def test_missing_checkpoints_and_circles_are_named(tree: Path) -> None:
    alone = [read(tree / "kd_nasty" / "nasty_net", Overrides())]
    with pytest.raises(ConfigError, match=r"the adversary .*z_baseline/net/best_model.tar, which"):
        in_order(alone)
    root = "experiments/CIFAR10"
    write(tree, "z_baseline/net", STUDENT, teacher_resume=f"{root}/a_student/net/best_model.tar")
    with pytest.raises(ConfigError, match="needs itself, through"):
        in_order([read(folder, Overrides()) for folder in find([tree])])
    with pytest.raises(ConfigError, match=r"holds no params.json"):
        find([tree / "nothing"])


def test_a_checkpoint_of_another_network_is_refused(tree: Path) -> None:
    folder = tree / "z_baseline" / "net"
    state = create("resnetc20", classes=10).get_submodule("body").state_dict()
    torch.save({"epoch": 1, "state_dict": state}, folder / "best_model.tar")
    ordered = in_order([read(tree / "kd_nasty" / "nasty_net", Overrides())])
    from denature.recipes.upstream.running import run_all

    with pytest.raises(RunError, match="do not fit the network"):
        list(run_all(ordered, Overrides(data_root=Path("data"))))


def test_a_folder_that_was_put_aside_goes_on(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tree / "z_baseline" / "net"
    whole = write(tree, "whole", {})
    assert denature("run", whole, "--device", "cpu", "--precision", "fp32") == 0
    arguments = ("run", folder, "--device", "cpu", "--precision", "fp32")
    assert denature(*arguments, "--time-limit", "0.05s") == 75
    assert denature(*arguments) == 0
    found, wanted = (read_record(place / "run").net.digest for place in (folder, whole))
    assert found == wanted
    logs = [(place / "training.log").read_text() for place in (folder, whole)]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("name", OFFICIAL_NAMES)
def test_names_of_weights_are_the_official_ones(name: str) -> None:
    with torch.device("meta"):
        body = create(NETS[name], classes=10).get_submodule("body")
    assert set(OFFICIAL_NAMES[name]) <= body.state_dict().keys()
