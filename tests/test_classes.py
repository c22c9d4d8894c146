"""Class names: compared wherever a run meets data, another run or a server."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from denature.answers.config import InferenceConfig
from denature.core.classes import align
from denature.core.errors import ConfigError
from denature.core.record import read_record
from denature.core.weights import save_weights
from denature.data import Dataset, load
from denature.data.dataset import Split
from denature.extract.asking.reading import combined
from denature.extract.config import ExtractionConfig
from denature.extract.stealing import steal
from denature.extract.victims.find import find
from denature.extract.victims.local import local
from denature.nets import NETS, create
from denature.nets.heads import reordered
from denature.robust.config import AttackConfig
from denature.train import (
    CheckpointConfig,
    Distilled,
    Nasty,
    Normal,
    Run,
    Training,
    import_run,
    train,
)
from denature.train.answering import fill
from denature.train.classes import alike
from denature.train.identity import plan_id, plan_of
from denature.train.runs import evaluate_run
from denature.train.session import Session
from tests.evaluations import flatness, robustness
from tests.heard import Heard
from tests.networks import every_network
from tests.served import serve, stop

QUICK = Training(epochs=6, batch_size=16, augment="none", device="cpu", precision="fp32")
NUMBERS = tuple(map(str, range(12)))
AS_FOLDERS = tuple(sorted(NUMBERS))
ANIMALS = ("ant", "bat", "cat", "dog", "eel", "fox", "gnu", "hen", "ibex", "jay", "kite", "lion")


def arrays(per: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of 24 pixels with a bright bar where their class is, of 12."""
    labels = np.arange(12 * per) % 12
    pixels = np.random.default_rng(seed).integers(0, 60, (len(labels), 24, 24, 3), dtype=np.uint8)
    for picture, label in zip(pixels, labels, strict=True):
        picture[:, 2 * label : 2 * label + 2] += 150
    return pixels, labels


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures as folders with several names, and as an array with numbers."""
    root = tmp_path_factory.mktemp("bars")
    saved: dict[str, np.ndarray] = {}
    for split, per, seed in (("train", 8, 1), ("test", 4, 2)):
        saved[f"x_{split}"], saved[f"y_{split}"] = pixels, labels = arrays(per, seed)
        for number, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
            for kind, names in (("numbered", NUMBERS), ("animals", ANIMALS)):
                folder = root / kind / split / names[label]
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(folder / f"{number:03d}.png")
    np.savez(root / "bars.npz", **saved)  # type: ignore[arg-type]
    return root


@pytest.fixture(scope="module")
def run(bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained on folders, whose names are sorted as text."""
    out = tmp_path_factory.mktemp("runs") / "numbered"
    made = train("mlp", str(bars / "numbered"), Normal(), QUICK, out=out)
    assert made.classes == AS_FOLDERS
    assert made.accuracy.value == 1
    return made


def renamed(data: Dataset, names: Sequence[str], order: Sequence[str] | None = None) -> Dataset:
    """The data under other class names, and numbered in another order of those."""
    order = order or names
    place = torch.tensor([list(order).index(name) for name in names])

    def of(split: Split) -> Split:
        return replace(split, labels=place[split.labels])

    return replace(
        data, train=of(data.train), test=of(data.test), classes=tuple(order), digest="".join(order)
    )


# Names


@pytest.mark.parametrize(
    ("there", "wanted", "order"),
    [
        (("a", "b", "c"), ("a", "b", "c"), None),
        (("a", "b", "c"), ("c", "a", "b"), (2, 0, 1)),
        (("aquarium_fish", "Bee"), ("bee", "aquarium fish"), (1, 0)),
        (("00", "01", "02"), ("2", "1", "0"), (2, 1, 0)),
        (AS_FOLDERS, NUMBERS, (0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3)),
        (("A", "a"), ("a", "A"), (1, 0)),
        (("caf\xe9", "tea"), ("tea", "cafe\u0301"), (1, 0)),
        (("nose.x", "nose.y", "eye.x", "eye.y"), ("eye.x", "eye.y", "nose.x", "nose.y"),
         (2, 3, 0, 1)),
    ],
)  # fmt: skip
def test_the_same_names_in_another_order_give_the_order(
    there: tuple[str, ...], wanted: tuple[str, ...], order: tuple[int, ...] | None
) -> None:
    found = align(there, wanted, model="The run", data="data")
    assert found.order == order
    assert (found.note is None) == (order is None)


def test_other_names_are_refused_and_those_that_differ_are_named_first() -> None:
    with pytest.raises(ConfigError, match=r"The run .*: zebra, ant, bat and 1 more there, "
                       r"yak, ant, bat and 1 more here"):  # fmt: skip
        align(
            ("ant", "bat", "cat", "zebra"), ("ant", "bat", "cat", "yak"), model="The run", data="d"
        )
    with pytest.raises(ConfigError, match="several are called 'crane'"):
        align(("crane", "crane", "ox"), ("crane", "ox", "crane"), model="The run", data="d")
    with pytest.raises(ConfigError, match="other classes"):  # both are names: nothing is guessed
        align(("0", "1"), ("1", "2"), model="The run", data="d")


@pytest.mark.parametrize(
    ("there", "wanted", "told"),
    [
        (("0", "1"), ("cat", "dog"), "the class names 0, 1, d has cat, dog"),
        (("cat", "dog"), ("0", "1"), "the class names cat, dog, d has 0, 1"),
        (None, ("cat", "dog"), "no class names, d has cat, dog"),
        (None, ("0", "1", "10", "2"), "no class names"),
        (None, ("0", "1"), None),
    ],
)
def test_names_that_cannot_be_compared_are_taken_as_they_are_numbered_and_that_is_said(
    there: tuple[str, ...] | None, wanted: tuple[str, ...], told: str | None
) -> None:
    found = align(there, wanted, model="The run", data="d")
    assert found.order is None
    assert (found.note is None) if told is None else told in str(found.note)


# Networks


@every_network
def test_every_network_of_the_catalogue_answers_in_another_order(name: str) -> None:
    size = max(NETS[name].minimum, 32)
    network = create(name, classes=5, channels=3, image_size=size).eval()
    pixels, order = torch.rand(2, 3, size, size), [3, 0, 4, 1, 2]
    moved = reordered(network, order, pixels=pixels)
    assert moved is not None
    with torch.no_grad():
        found, wanted = moved(pixels), network(pixels)[:, order]
    assert float((found - wanted).abs().max() / (wanted.max() - wanted.min())) < 1e-4


class Backwards(torch.nn.Module):
    """Its last layer is not the last that is written down."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body = torch.nn.Linear(12, 12), torch.nn.Linear(24 * 24 * 3, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.body(x.flatten(1)).relu())
        return found


def test_a_network_whose_last_layer_is_not_known_is_refused_and_not_guessed(bars: Path) -> None:
    data = load(str(bars / "numbered"))
    made = train(Backwards(), data, Normal(), replace(QUICK, epochs=1))
    with pytest.raises(ConfigError, match=r"which layer .* is not clear"):
        evaluate_run(made, str(bars / "bars.npz"))


# Where a run meets data


def test_a_run_is_measured_on_the_same_classes_in_another_order(run: Run, bars: Path) -> None:
    heard = Heard()
    assert evaluate_run(run, str(bars / "bars.npz"), progress=heard).value == 1
    assert len(heard.lines) == 1
    assert "another order" in heard.lines[0]


def test_a_run_on_other_classes_is_refused(run: Run, bars: Path) -> None:
    made = train("mlp", str(bars / "animals"), Normal(), replace(QUICK, epochs=1))
    other = renamed(load(str(bars / "animals")), [*ANIMALS[:-1], "lynx"])
    with pytest.raises(ConfigError, match=r"lion, ant.* there, lynx, ant"):
        evaluate_run(made, other)
    with pytest.raises(ConfigError, match="other classes"):
        train("mlp", other, Distilled(), QUICK, source=made)
    with pytest.raises(ConfigError, match="other classes"):
        fill(made, other, augment="none")


def test_numbers_and_names_are_not_compared_and_that_is_said_once(run: Run, bars: Path) -> None:
    heard, data = Heard(), load(str(bars / "bars.npz"))
    plain = train("mlp", data, Normal(), QUICK)
    animals = renamed(data, ANIMALS)
    train(
        "mlp",
        animals,
        Distilled(),
        QUICK,
        source=plain,
        init=plain,
        session=Session(progress=heard),
    )
    assert [line for line in heard.lines if "cannot be compared" in line] == heard.lines[:1]
    assert evaluate_run(plain, animals).value == 1


def test_an_imported_run_has_no_names_to_compare(run: Run, bars: Path, tmp_path: Path) -> None:
    data = renamed(load(str(bars / "bars.npz")), ANIMALS)
    save_weights(tmp_path, train("mlp", data, Normal(), QUICK).network)
    made = import_run("mlp", tmp_path / "weights.safetensors", classes=12, image_size=24)
    heard = Heard()
    assert evaluate_run(made, data, progress=heard).value == 1
    assert "no class names" in heard.lines[0]


def test_a_student_learns_from_a_teacher_of_another_order_and_its_record_says_so(
    run: Run, bars: Path, tmp_path: Path
) -> None:
    data, soft = str(bars / "bars.npz"), Distilled(alpha=1.0)
    made = train("mlp", data, soft, QUICK, source=run, out=tmp_path / "student")
    assert made.accuracy.value == 1
    record = read_record(tmp_path / "student")
    teacher = record.inputs["teacher"]
    assert teacher.digest == run.digest
    assert teacher.reordered not in (None, run.digest)
    assert plan_id(plan_of(record)) == record.id
    again = train("mlp", data, soft, QUICK, source=run, out=tmp_path / "student")
    assert again.record == record


def test_runs_of_two_orders_are_two_runs_and_share_no_stored_answer(
    run: Run, bars: Path, tmp_path: Path
) -> None:
    # The same pixels and labels twice; only the names say that the classes are others.
    data = load(str(bars / "bars.npz"))
    swapped = replace(data, classes=tuple(reversed(NUMBERS)))
    checkpointing = CheckpointConfig(store=str(tmp_path))
    ids, digests = set(), set()
    for its in (data, swapped):
        fill(run, its, augment="none", device="cpu", precision="fp32", store=str(tmp_path))
        stored = train(
            "mlp", its, Distilled(), QUICK, source=run, session=Session(checkpointing=checkpointing)
        )
        fresh = train(
            "mlp",
            its,
            Distilled(),
            QUICK,
            source=run,
            session=Session(checkpointing=CheckpointConfig(store="off")),
        )
        assert stored.digest == fresh.digest
        ids.add(stored.record.id)
        digests.add(stored.digest)
    assert len(ids) == len(digests) == 2
    assert len(list(tmp_path.glob("*/store.json"))) == 2


def test_a_start_and_an_adversary_of_another_order_are_brought_into_it(
    run: Run, bars: Path
) -> None:
    still = replace(QUICK, epochs=1, optimizer="sgd", lr=1e-9, schedule="constant")
    data = str(bars / "bars.npz")
    started = train("mlp", data, Normal(), still, init=run)
    assert started.accuracy.value == 1
    gentle = Nasty(temperature=4, omega=0.0)
    assert train("mlp", data, gentle, still, source=run, init=run).accuracy.value == 1


def test_flatness_and_robustness_see_the_true_classes(run: Run, bars: Path, tmp_path: Path) -> None:
    data = str(bars / "bars.npz")
    found = flatness([run], data, tmp_path / "flat", samples=24, directions=2, device="cpu")
    assert found.networks[0].accuracy[0].value == 1
    asked = AttackConfig(effort="quick", samples=24, attacks=("fgsm",), linf=(0.001,))
    plain = train("mlp", data, Normal(), QUICK)
    judged = robustness(
        [run, plain], data, asked, tmp_path / "robust", controls=1, device="cpu"
    ).judged
    assert [it.robustness.clean.value for it in judged] == [1, 1]


def test_a_judge_is_asked_in_the_order_of_the_network(run: Run, bars: Path) -> None:
    plain = train("mlp", str(bars / "bars.npz"), Normal(), QUICK)
    judge = alike("judge", plain, run)
    images, labels = arrays(2, 3)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    said = judge.network(pixels).argmax(1).tolist()
    assert [AS_FOLDERS[it] for it in said] == [NUMBERS[it] for it in labels]


# The thief's side


@pytest.mark.parametrize("kind", ["probabilities", "logits", "label", "landmarks"])
@pytest.mark.parametrize("repeats", [1, 3])
def test_answers_in_another_order_come_to_the_same(kind: Any, repeats: int) -> None:
    chance = np.random.default_rng(0)
    order = chance.permutation(5)  # for each class wanted its place among the victim's
    wanted = chance.dirichlet(np.ones(5), (20, repeats)).astype(np.float32)
    victims = wanted[..., np.argsort(order)]
    if kind == "probabilities":  # of some answers only the largest value is shown
        hidden = victims[:5] < victims[:5].max(axis=-1, keepdims=True)
        victims[:5][hidden] = np.nan
        wanted = victims[..., order]
    if kind == "label":
        wanted, victims = (it.argmax(-1)[..., None] for it in (wanted, victims))
    plain = combined(kind, list(map(list, wanted)), classes=5)
    moved = combined(kind, list(map(list, victims)), classes=5, order=tuple(order))
    assert plain[0] == moved[0]
    np.testing.assert_allclose(moved[1], plain[1], rtol=1e-6)
    np.testing.assert_array_equal(moved[2], plain[2])


def stolen(victim: Any, bars: Path, out: Path, *, data: str = "bars.npz", **more: Any) -> Any:
    return steal(
        victim, net="mlp", pool=str(bars / data), budgets=[144], out=out,
        stealing=ExtractionConfig(test_images=48), training=QUICK, **more,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["probabilities", "logits", "label"])
def test_a_clone_and_its_fidelity_are_of_the_classes_that_are_meant(
    run: Run, bars: Path, tmp_path: Path, kind: Any
) -> None:
    heard = Heard()
    victim = local(run, kind=kind, device="cpu")
    theft = stolen(victim, bars, tmp_path, session=Session(progress=heard))
    assert theft.victim_accuracy.value == 1
    assert theft.clones[0].accuracy.value == theft.clones[0].fidelity.value == 1
    assert sum("another order" in line for line in heard.lines) == 1


def test_a_server_says_its_class_names_and_a_thief_compares_them(
    run: Run, bars: Path, tmp_path: Path
) -> None:
    served = serve(tmp_path, f"full={run.folder}", f"bare={run.folder}@show=label")
    try:
        for model in ("full", "bare"):
            url = f"http://{served.address}/v2/models/{model}"
            theft = stolen(find(url), bars, tmp_path / model)
            assert theft.victim_accuracy.value == 1
            assert theft.clones[0].fidelity.value == 1
        with pytest.raises(ConfigError, match=r"other classes than .*animals: 0, 1, 10 and 9 more"):
            stolen(find(url), bars, tmp_path / "animals", data="animals")
    finally:
        stop(served)


def test_answers_that_are_stored_stay_right_for_a_storage_of_the_largest_only(
    run: Run, bars: Path, tmp_path: Path
) -> None:
    made = train(
        "mlp", str(bars / "bars.npz"), Distilled(alpha=1.0), QUICK, source=run,
        inference=InferenceConfig(storage="top-3"),
        session=Session(checkpointing=CheckpointConfig(store=str(tmp_path))),
    )  # fmt: skip
    assert made.accuracy.value == 1
