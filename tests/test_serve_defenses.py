"""Defenses of served models: answers over the wire, the defender's networks, memories on disk."""

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from denature.answers.answerer import Answers
from denature.answers.config import InferenceConfig
from denature.answers.inference import Inference
from denature.answers.network import NetworkAnswerer
from denature.cli.app import main
from denature.core.compute import Compute
from denature.core.errors import ConfigError, RunError
from denature.defenses.base import Chain, Defended
from denature.defenses.catalogue import DEFENSES, chain_of
from denature.remote.protocol import read_reply, read_signature, request
from denature.serve import memory
from denature.serve.app import create_app
from denature.serve.config import DefenseConfig, Exposure, ServedModel, Serving
from denature.serve.memory import MemoryFile
from denature.serve.networks import DefenderNetworks
from denature.serve.opening import open_models
from denature.train import Normal, Run, Training, train
from denature.train.untrained import untrained
from tests.served import Served, serve, stop
from tests.toy_defenses import TOYS, Counting, Surrogate

TOY = "tests.toy_defenses"

FP32 = Compute(torch.device("cpu"), "fp32", channels_last=False)

IMAGES = np.random.default_rng(3).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    training = Training(epochs=1, batch_size=64, device="cpu", precision="fp32")
    return train("mlp", "digits", Normal(), training, out=tmp_path_factory.mktemp("runs") / "mlp")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Run:
    training = Training(epochs=1, batch_size=64, seed=1, device="cpu", precision="fp32")
    return train("mlp", "digits", Normal(), training, out=tmp_path_factory.mktemp("runs") / "b")


def asked(served: Served, model: str, images: np.ndarray, *, binary: bool = True) -> np.ndarray:
    """A thief's client: the signature as the server states it, and answers read by it."""
    _, _, told = served.send("GET", f"/v2/models/{model}")
    signature = read_signature(json.loads(told), None)
    body, headers = request(images, signature, id="1", binary=binary)
    status, given, answer = served.send("POST", f"/v2/models/{model}/infer", body, headers)
    assert status == 200, answer
    lengths = {name.lower(): value for name, value in given.items()}
    length = lengths.get("inference-header-content-length")
    return read_reply(answer, length, signature, count=len(images))


def in_process(run: Run, taken: Any, chain: str) -> Answers:
    """What a chain shows of a run's answers in this process."""
    inference = Inference(run.network, FP32, InferenceConfig(), shape=(1, 8, 8))
    answerer = NetworkAnswerer(inference, kind=taken, digest=run.digest, dtype=torch.float64)
    return Defended(answerer, chain_of(chain))(torch.from_numpy(IMAGES).float() / 255)


def in_memory(run: Run, *words: str, **config: Any) -> Serving:
    """Settings of a server of one run."""
    return Serving(
        models=tuple(
            ServedModel.of(f"m{number}={run.folder}{word}", Exposure())
            for number, word in enumerate(words)
        ),
        defense=DefenseConfig(**config),
        log="off",
        device="cpu",
    )


# Over the wire

CHAINS = {
    "plain": ("probabilities", "none"),
    "labels": ("probabilities", "rounding@decimals=0+label-only"),
    "few": ("probabilities", "top-k@k=3"),
    "flat": ("logits", "temperature@temperature=4+rounding@decimals=1"),
    "all": ("probabilities", "rounding@decimals=1"),
}


ROLES = ("untrained", "surrogate", "misinformation")


@pytest.fixture(scope="module")
def served_with_lines(
    run: Run, other: Run, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Served, list[str]]]:
    """A server of all chains and toys, and what it says of the models after the first."""
    words = [
        f"all={run.folder}",
        f"flat={run.folder}@show=logits+defense={CHAINS['flat'][1]}",
        f"short={run.folder}@decimals=2+defense=top-k+k=2",
        f"counting={run.folder}@defense=counting",
        *(f"{name}={run.folder}@defense={CHAINS[name][1]}" for name in ("plain", "labels", "few")),
        *(f"{role}={run.folder}@defense=looking-{role}" for role in ROLES),
    ]
    served = serve(
        tmp_path_factory.mktemp("served"), *words, "--defense", CHAINS["all"][1],
        "--surrogate", str(other.folder), "--misinformation", str(run.folder), module=TOY,
    )  # fmt: skip
    assert served.process.stdout is not None
    yield served, [served.process.stdout.readline() for _ in words[1:]]
    stop(served)


@pytest.fixture
def server(served_with_lines: tuple[Served, list[str]]) -> Served:
    return served_with_lines[0]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_over_the_wire_is_the_chain_in_this_process(
    server: Served, run: Run, name: str, binary: bool
) -> None:
    found = asked(server, name, IMAGES, binary=binary)
    wanted = in_process(run, *CHAINS[name]).values.numpy()
    assert (found.dtype, found.shape) == (wanted.astype(found.dtype).dtype, wanted.shape)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    if name == "few":
        assert np.isfinite(found).sum() == 3 * len(IMAGES)


def test_hidden_scores_are_left_out_of_the_signature_and_of_the_json(server: Served) -> None:
    _, _, told = server.send("GET", "/v2/models/few")
    [output] = json.loads(told)["outputs"]
    assert output == {"name": "probabilities", "datatype": "BYTES", "shape": [-1, 3]}
    tensor = {"name": "images", "shape": list(IMAGES.shape), "datatype": "UINT8",
              "data": IMAGES.reshape(-1).tolist()}  # fmt: skip
    wanted = {"name": "probabilities", "parameters": {"classification": 9}}
    for body in ({"inputs": [tensor]}, {"inputs": [tensor], "outputs": [wanted]}):
        _, _, answer = server.send("POST", "/v2/models/few/infer", json.dumps(body).encode())
        [output] = json.loads(answer)["outputs"]
        assert output["shape"] == [len(IMAGES), 3]
        assert all(isinstance(text, str) for text in output["data"])


def test_a_server_says_which_chain_each_model_shows(
    served_with_lines: tuple[Served, list[str]],
) -> None:
    said = {line.split()[0].rpartition("/")[2]: line.strip() for line in served_with_lines[1]}
    assert said["plain"].endswith("/v2/models/plain shows probabilities")
    assert said["labels"].endswith(" shows label behind rounding@decimals=0+label-only")
    assert " shows the 2 largest probabilities, 2 decimals behind top-k@k=2" in said["short"]


def test_answers_are_given_in_one_order(server: Served) -> None:
    """Each answer shows how many were given before: no place is there twice, and none is left."""
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: places(server, "counting", 1 + n % 3), range(60)))
    for part in found:
        assert part == list(range(part[0], part[0] + len(part)))
    assert sorted(place for part in found for place in part) == list(range(sum(map(len, found))))


# The networks of the defender


def test_a_defense_looks_at_the_network_of_its_role(server: Served, run: Run, other: Run) -> None:
    pixels = torch.from_numpy(IMAGES).float() / 255
    for role, network in zip(ROLES, (untrained(run), other.network, run.network), strict=True):
        with torch.no_grad():
            wanted = network(pixels).numpy()
        np.testing.assert_allclose(asked(server, role, IMAGES), wanted, atol=1e-5)


def test_a_defense_shows_the_same_with_the_networks_as_served(tmp_path: Path) -> None:
    """A server folds batch norms, except where derivatives by the parameters are wanted."""
    training = Training(epochs=1, batch_size=64, device="cpu", precision="fp32")
    run = train("cnn", "digits", Normal(), training, out=tmp_path / "cnn")
    config = {"surrogate": str(run.folder), "misinformation": str(run.folder)}
    looking = [name for name, defense in DEFENSES.items() if defense.role is not None]
    serving = in_memory(run, *(f"@defense={name}" for name in looking), **config)
    networks, pixels = DefenderNetworks(serving.defense, trust=()), torch.from_numpy(IMAGES) / 255
    with ExitStack() as held:
        for model, served in zip(open_models(serving, held).values(), serving.models, strict=True):
            chain = served.resolved().chain
            true = NetworkAnswerer(
                Inference(run.network, FP32, InferenceConfig(), shape=(1, 8, 8)),
                kind=served.resolved().taken or "probabilities", digest="", dtype=torch.float64,
            )  # fmt: skip
            wanted = chain.start(networks.of(chain, run))(true(pixels), pixels).values
            np.testing.assert_allclose(model.answer([IMAGES]), wanted, atol=1e-5)


def test_an_untrained_network_is_the_same_each_time_and_no_copy(run: Run) -> None:
    before = torch.get_rng_state()
    weights = [untrained(run).state_dict() for _ in range(2)]
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)
    assert torch.equal(before, torch.get_rng_state())
    own = run.network.state_dict()
    same = {name for name, tensor in own.items() if torch.equal(tensor, weights[0][name])}
    assert {"mean", "std"} <= same
    assert not any(name.endswith("weight") for name in same)


def test_a_network_of_other_classes_or_images_is_refused(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, size, classes in (("wide", 12, 10), ("few", 8, 3)):
        labels = np.arange(60) % classes
        images = rng.integers(0, 256, (60, size, size), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", x_train=images, y_train=labels, x_test=images,
                 y_test=labels)  # fmt: skip
        training = Training(epochs=1, device="cpu", precision="fp32")
        wrong = train("mlp", str(tmp_path / f"{name}.npz"), Normal(), training,
                      out=tmp_path / name)  # fmt: skip
        networks = DefenderNetworks(DefenseConfig(surrogate=str(wrong.folder)), trust=())
        chain = Chain((Surrogate(),))
        with pytest.raises(ConfigError, match="both must be of the same data"):
            networks.of(chain, run)


# Memories


def places(served: Served, model: str, count: int) -> list[int]:
    """The places that the toy defense shows, of a request of so many images."""
    images = np.repeat(IMAGES[:1], count, axis=0)
    return [int(row.min()) for row in asked(served, model, images)]


def test_a_memory_outlives_the_end_of_a_server_and_noise_begins_anew(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    model, words = f"m={run.folder}", ["--defense-state", str(state), "--defense"]
    noise: list[float] = []
    for before in (0, 7):
        served = serve(tmp_path, model, *words, "noisy+counting", module=TOY)
        try:
            shown = asked(served, "m", np.repeat(IMAGES[:1], 7, axis=0))[:, 0]
        finally:
            stop(served)
        assert np.floor(shown).tolist() == list(range(before, before + 7))
        noise += (shown % 1).tolist()
    # Of uniform values in 10,000 bins two may be equal; a sequence that repeats has at most 7.
    assert len(noise) == 14
    assert len(set(np.round(noise, 4))) > 10
    assert [file.name for file in state.iterdir() if file.suffix != ".lock"] == ["m.safetensors"]
    kept = {name: tensor.tolist() for name, tensor in load_file(state / "m.safetensors").items()}
    assert kept == {"1.given": [14]}
    for name, toy in TOYS.items():
        monkeypatch.setitem(DEFENSES, name, toy)
    assert main(["serve", model, *words, "counting@by=2", "--device", "cpu", "--port", "0"]) == 1
    assert "is the memory of the defense noisy+counting@by=1" in capsys.readouterr().err


def test_a_server_that_is_killed_goes_on_from_its_last_write(run: Run, tmp_path: Path) -> None:
    state = tmp_path / "state"
    words = (f"m={run.folder}", "--defense", "counting", "--defense-state", str(state),
             "--defense-save-s", "0.05")  # fmt: skip
    served = serve(tmp_path, *words, module=TOY)
    assert places(served, "m", 3) == [0, 1, 2]
    file = state / "m.safetensors"
    while not file.exists() or load_file(file)["0.given"].tolist() != [3]:
        assert served.process.poll() is None
        time.sleep(0.02)
    served.process.send_signal(signal.SIGKILL)
    served.process.communicate(timeout=60)
    (state / ".m.safetensors.12ab.tmp").write_bytes(b"cut off by a kill")
    served = serve(tmp_path, *words, module=TOY)
    try:
        assert places(served, "m", 2) == [3, 4]
    finally:
        stop(served)


@pytest.mark.usefixtures("toys")
def test_two_servers_do_not_share_a_folder(run: Run, tmp_path: Path) -> None:
    serving = in_memory(run, "@defense=counting", defense_state=str(tmp_path))
    first = create_app(serving)
    with pytest.raises(ConfigError, match="Another server keeps the memory of its defenses in"):
        create_app(serving)
    del first


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("cut", "is damaged"),
        ("text", "is damaged"),
        ("names", "is no memory of counting"),
        ("shape", "is no memory of counting"),
        ("size", "bytes; the memory of a defense has at most"),
        ("network", "is the memory of another model"),
        ("about", "is damaged"),
    ],
)
@pytest.mark.usefixtures("toys")
def test_a_damaged_memory_is_refused(
    run: Run, other: Run, tmp_path: Path, damage: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inference = Inference(run.network, FP32, InferenceConfig(), shape=(1, 8, 8))
    digest = (other if damage == "network" else run).digest
    answerer = NetworkAnswerer(inference, kind="probabilities", digest=digest)
    defended = Defended(answerer, Chain((Counting(),)))
    path = tmp_path / "m0.safetensors"
    tensors = defended.stream.state()
    if damage == "names":
        tensors = {"0.taken": tensors["0.given"]}
    elif damage == "shape":
        tensors = {"0.given": torch.zeros(3, 2, 7)}
    MemoryFile(path, defended).write(tensors)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "text":
        path.write_text("no tensors")
    elif damage == "size":
        monkeypatch.setattr(memory, "LARGEST", 10)
    elif damage == "about":
        save_file(tensors, path)
    with pytest.raises(RunError, match=said):
        create_app(in_memory(run, "@defense=counting", defense_state=str(tmp_path)))


# Noise


def noise_of(serving: Serving) -> dict[str, np.ndarray]:
    """What each model of a server in this process shows first."""
    with ExitStack() as held:
        models = open_models(serving, held)
        return {name: model.answer([IMAGES]) for name, model in models.items()}


@pytest.mark.usefixtures("toys")
def test_no_model_and_no_start_repeats_the_noise_of_another_without_a_seed(run: Run) -> None:
    words = ("@defense=noisy", "@defense=noisy+noisy")
    serving = in_memory(run, *words)
    shown = [noise[:, 0] for _ in range(2) for noise in noise_of(serving).values()]
    assert len(np.unique(shown)) == 4 * len(IMAGES)
    first, again, another = (
        noise_of(in_memory(run, *words, defense_seed=seed)) for seed in (3, 3, 4)
    )
    for name, noise in first.items():
        np.testing.assert_array_equal(again[name], noise)
    shown = [noise[:, 0] for found in (first, another) for noise in found.values()]
    assert len(np.unique(shown)) == 4 * len(IMAGES)


@pytest.mark.slow
def test_no_worker_repeats_the_noise_of_another(run: Run, tmp_path: Path) -> None:
    served = serve(tmp_path, f"m={run.folder}", "--defense", "noisy", "--workers", "2", module=TOY)
    try:
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda _: asked(served, "m", IMAGES[:1])[0, 0], range(40)))
    finally:
        stop(served)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("name", [name for name, kind in DEFENSES.items() if kind.role is None])
def test_as_many_scores_are_shown_as_a_defense_says(name: str) -> None:
    """Clients are told the number before any answer, so it cannot depend on the answer."""
    defense = DEFENSES[name]()
    values = torch.randn(20, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for kind in ("logits", "probabilities"):
        if kind in defense.takes and defense.kind(kind) != "label":
            answers = Answers(kind, values.softmax(-1) if kind == "probabilities" else values)
            shown = defense(answers).values
            assert (shown.isfinite().sum(-1) == defense.shows(7)).all(), kind
            assert (shown.isfinite() | shown.isnan()).all()
