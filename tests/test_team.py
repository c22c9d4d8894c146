"""Two processes that train one network, over gloo on this machine."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from denature.core.compute import Compute, resolve
from denature.core.errors import ConfigError, RunError
from denature.core.weights import read_weights
from denature.data import Dataset, load
from denature.data.feed import Feed, steps_per_epoch
from denature.train import Normal, Order, Run, Training, evaluate_run, load_run, train
from denature.train.learner import Learner, learning_rate, make_optimizer
from denature.train.team import SINGLE_PROCESS, ProcessGroup, join
from tests.processes import Command

pytest.importorskip("accelerate", reason="accelerate is missing: pip install 'denature[parallel]'")

QUICK = Training(epochs=2, batch_size=64, precision="fp32", device="cpu")

LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--nproc-per-node", "2"],
    "accelerate": [
        *("accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--num_processes"),
        *("2", "--mixed_precision", "no", "--dynamo_backend", "no"),
    ],
}
"""accelerate's own way to several CPU processes needs MPI; its launcher for several devices is
torchrun underneath and takes processes for what they are."""


HERE = ("--device", "cpu", "--precision", "fp32", "-q")


def launched(launcher: str, *words: str) -> "subprocess.Popen[str]":
    start = [sys.executable, "-m", *LAUNCHERS[launcher]]
    if launcher == "accelerate":
        start += ["--main_process_port", "0"]
    else:
        start += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    return subprocess.Popen(
        [*start, "-m", "denature", *words, *HERE],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def team(*words: str) -> list[Command]:
    """Two processes with the variables that launchers set, without the seconds that those take."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {
        **os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    pipe = subprocess.PIPE
    return [
        Command(
            *words, *HERE, stdout=pipe, stderr=pipe,
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip


def ended(*processes: "subprocess.Popen[str]", code: int = 0) -> str:
    said = ""
    for process in processes:
        out, errors = process.communicate(timeout=150)
        assert process.returncode == code, errors
        said += out + errors
    return said


def command(kind: str, net: str, out: Path, *more: str) -> list[str]:
    return [kind, net, "--data", "digits", "--epochs", "2", "--batch-size", "64", "--out", str(out),
            *more]  # fmt: skip


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "record.json").read_text())
    return found


def apart(folder: Path, weights: dict[str, torch.Tensor]) -> float:
    found = read_weights(folder / "weights.safetensors")
    return max(float((found[k].double() - weights[k].double()).abs().max()) for k in weights)


@pytest.fixture(scope="module")
def alone() -> Run:
    return train("mlp", "digits", Normal(), QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_two_processes_train_what_one_trains(
    launcher: str, engine: str, alone: Run, tmp_path: Path
) -> None:
    """Without batch norm, at the same global batch: weights within 1e-6, the same record."""
    if (launcher, engine) == ("accelerate", "fsdp"):
        pytest.skip("one launcher is enough for the second engine")
    said = ended(launched(launcher, *command("train", "mlp", tmp_path, "--parallel", engine)))
    assert said.count("accuracy") == 1
    assert apart(tmp_path, alone.network.state_dict()) < 1e-6
    found, expected = record(tmp_path), alone.record
    assert found["config"]["processes"] == 2
    assert found["id"] != expected.id
    for epoch, other in zip(found["history"], expected.history, strict=True):
        assert epoch["loss"] == pytest.approx(other.loss, abs=1e-6)
        assert epoch["train_accuracy"] == other.train_accuracy
    assert found["accuracy"]["value"] == pytest.approx(alone.accuracy.value, abs=0.003)
    assert not list(tmp_path.rglob("*.tmp"))


def per_shard(data: Dataset, training: Training) -> nn.Module:
    """One process that normalises each half of a batch by itself, as two processes do.

    The running statistics are those of the first half: what DistributedDataParallel sends round.
    """
    from denature.train.resolving import network_of, samples_of

    order = Order(net="cnn", objective=Normal(), training=training)
    network, _ = network_of(order, data, samples_of(order, data), None)
    compute = resolve(network, device="cpu", precision="fp32")
    compute.place(network)
    settled = training.resolved(
        optimizer="adam", augment="none", schedule="one-cycle", device="cpu", precision="fp32"
    )
    optimizer = make_optimizer(network, config=settled)
    feed = Feed(data.train, compute=compute)
    steps = steps_per_epoch(len(data.train), training.batch_size, parts=2)
    network.train()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for epoch in range(training.epochs):
        parts = [
            feed.epoch(epoch + 1, view_seed=0, batch_size=training.batch_size, part=(rank, 2))
            for rank in range(2)
        ]
        for step, batches in enumerate(zip(*parts, strict=True)):
            total = torch.zeros(())
            for rank, batch in enumerate(batches):
                kept = [(m.running_mean, m.running_var) for m in norms]
                if rank:
                    for m in norms:
                        assert m.running_mean is not None
                        assert m.running_var is not None
                        m.running_mean, m.running_var = (
                            m.running_mean.clone(),
                            m.running_var.clone(),
                        )
                losses = nn.functional.cross_entropy(
                    network(batch.pixels), batch.labels, reduction="sum"
                )
                total = total + losses
                for m, (mean, var) in zip(norms, kept, strict=True):
                    m.running_mean, m.running_var = mean, var
            rate = learning_rate(settled, step=epoch * steps + step, total=steps * training.epochs)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            (total / sum(len(batch.labels) for batch in batches)).backward()
            optimizer.step()
    return network


@pytest.mark.slow
def test_batch_norm_in_two_processes_is_that_of_each_ones_part(tmp_path: Path) -> None:
    ended(*team(*command("train", "cnn", tmp_path)))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        reference = per_shard(load("digits"), QUICK).state_dict()
    finally:
        torch.set_num_threads(threads)
    found = read_weights(tmp_path / "weights.safetensors")
    for name, value in reference.items():
        if "num_batches" not in name:
            torch.testing.assert_close(found[name], value, atol=2e-4, rtol=2e-3)
    run = load_run(tmp_path)
    measured = evaluate_run(run, "digits", device="cpu").value
    assert run.accuracy.value == pytest.approx(measured, abs=1.5 / run.accuracy.n)
    whole = train("cnn", "digits", Normal(), QUICK).network.state_dict()
    assert apart(tmp_path, whole) > 100 * 2e-4  # the whole batch's norm is something else


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_a_team_that_was_stopped_ends_like_one_that_was_not(engine: str, tmp_path: Path) -> None:
    """A student of a stored teacher; stopped by a deadline and killed, then asked again."""
    teacher = tmp_path / "teacher"
    train("mlp", "digits", Normal(), QUICK, out=teacher)
    more = ("--teacher", str(teacher), "--parallel", engine, "--augment", "crop")
    store = ("--store", str(tmp_path / "answers"))
    ended(*team(*command("distill", "mlp", tmp_path / "whole", *more, *store)))
    cut = command("distill", "mlp", tmp_path / "cut", *more, "--store", "off")
    said = ended(*team(*cut, "--time-limit", "0.001s"), code=75)
    assert "Stopped by the time limit at step 8 of" in said
    killed = team(*cut, "--save-every", "0.01s")
    state = tmp_path / "cut" / "state" / "state.safetensors"
    before, limit = state.read_bytes(), time.monotonic() + 60
    while state.exists() and state.read_bytes() == before and time.monotonic() < limit:
        time.sleep(0.001)
    for process in killed:
        process.kill()
    for process in killed:
        process.communicate()
    ended(*team(*cut))
    assert record(tmp_path / "cut")["net"]["digest"] == record(tmp_path / "whole")["net"]["digest"]


@pytest.mark.slow
def test_a_finished_team_run_is_read_and_another_is_refused_by_all(tmp_path: Path) -> None:
    words = command("train", "mlp", tmp_path)
    first = ended(*team(*words))
    changed = record(tmp_path)
    assert ended(*team(*words)).count("accuracy") == first.count("accuracy") == 1
    assert record(tmp_path) == changed
    said = ended(*team(*words, "--lr", "0.5"), code=1)
    assert "training.lr was 0.001, is 0.5" in said


def test_without_a_launcher_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join("auto") is SINGLE_PROCESS
    assert SINGLE_PROCESS.broadcast("x") == "x"
    assert SINGLE_PROCESS.total([1.5, 2.0]) == [1.5, 2.0]
    assert SINGLE_PROCESS.on_rank0(lambda: 7) == 7


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [(OSError(28, "No space left"), RunError, "OSError: .*No space left"),
     (ConfigError("Two."), ConfigError, r"^Two\.$")],
)  # fmt: skip
def test_an_error_of_rank_0_reaches_the_others(
    error: Exception, kind: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    def broadcast(box: list[Any], src: int) -> None:
        if box[0][0] == "none":
            box[0] = sent[0]
        else:
            sent.append(box[0])

    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broadcast)

    def work() -> None:
        raise error

    for rank in (0, 1):
        with pytest.raises(kind, match=said):
            ProcessGroup(rank, 2).on_rank0(work)


def test_more_processes_than_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"4 processes .* 2 CUDA devices.*--nproc-per-node"):
        join("cuda")


def test_batch_norm_is_synchronised_on_cuda_only() -> None:
    compute = Compute(torch.device("cpu"), "fp32", channels_last=False)
    settled = Training(sync_norm=True, epochs=1).resolved(
        schedule="one-cycle", optimizer="adam", augment="none", device="cpu", precision="fp32"
    )
    with pytest.raises(ConfigError, match="on CUDA only"):
        Learner(nn.Linear(2, 2), Normal(), settled, compute, steps=1, team=ProcessGroup(0, 2))


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("samples", [100, 129, 130, 133])
def test_the_parts_of_batches_make_up_the_batches(samples: int, size: int) -> None:
    """What processes take together is what one would take, in the same batches."""
    from denature.data.dataset import Split

    pixels = torch.zeros((samples, 1, 8, 8), dtype=torch.uint8)
    split = Split(pixels, torch.zeros(samples, dtype=torch.int64), torch.arange(samples))
    feed = Feed(split, compute=Compute(torch.device("cpu"), "fp32", channels_last=False))

    def batches(part: tuple[int, int]) -> list[list[int]]:
        found = feed.epoch(1, view_seed=3, batch_size=64, part=part)
        return [batch.samples.tolist() for batch in found]

    parts = [batches((rank, size)) for rank in range(size)]
    together = [[s for part in of_all for s in part] for of_all in zip(*parts, strict=True)]
    whole = batches((0, 1))
    assert together == whole[: len(together)]
    assert len(together) == steps_per_epoch(samples, 64, parts=size)
    assert all(len(batch) >= 2 for rank in parts for batch in rank)
