"""The whole of it: the service, the theft, the clones, the experiment with precision, one page."""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from denature.core.errors import ConfigError
from denature.core.files import write_text
from denature.core.progress import SILENT, Progress
from denature.core.stopping import Stopper
from denature.data import DataConfig, Dataset, load
from denature.data.dataset import Split
from denature.data.landmarks import PLACES
from denature.extract.config import RequestConfig
from denature.extract.pricing import one_price, prices_of
from denature.extract.speed import Timing, time_run, time_victim
from denature.extract.victims.base import Victim
from denature.extract.victims.find import REKOGNITION
from denature.recipes.nose.clones import (
    CloneFactory,
    Kind,
    Trial,
    starts,
    trial_of,
    write_trials,
)
from denature.recipes.nose.findings import Made, NoseResult, Speeds, write
from denature.recipes.nose.service import check_packages, serving
from denature.recipes.nose.service_answers import ServiceAnswers, load_recorded, query_service
from denature.recipes.nose.settings import TARGETS, Setting
from denature.train import CheckpointConfig, Normal, Order, Run, make

FRAMES = r"(.*)_"
"""Frames of the faces that we know are named by person and number."""

QUERIES_FOR_SPEED = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Faces:
    """Where pictures of faces come from: a data set with landmarks, or answers of before."""

    data: str | None = None
    """Pictures with landmarks that people placed."""
    group: str | None = None
    """See `denature.data.config.Reading`; by default frames that are named PERSON_NUMBER."""
    images: Path | None = None
    """Folder of pictures about which a service was asked before."""
    labels: Path | None = None
    """What it answered, as JSON."""


def reproduce(
    setting: Setting,
    faces: Faces,
    out: Path,
    *,
    backbones: Mapping[str, Run | str] | None = None,
    price_per_1000: float | None = None,
    keeping: CheckpointConfig | None = None,
    stopper: Stopper | None = None,
    progress: Progress = SILENT,
) -> NoseResult:
    """Copy a nose detector; what is finished in `out` is not made, asked or paid for again.

    Args:
        setting: at which size.
        faces: where pictures come from.
        out: folder for everything.
        backbones: by their names, what further clones start from; see `denature.train.Order`.
        price_per_1000: US dollars for a thousand queries; by default our table's of Rekognition.
        keeping: how often state is written.
        stopper: asked whether to stop.
        progress: told how far it is.

    Raises:
        DenatureError: see `denature.core.errors`.
        Stopped: the stopper wanted it; ask again to go on.
    """
    keeping, stopper, out = keeping or CheckpointConfig(), stopper or Stopper(), out / setting.scale
    prices = prices_of(REKOGNITION) if price_per_1000 is None else one_price(price_per_1000)
    service: Run | None = None
    if faces.images is not None or faces.labels is not None:
        told = _written(faces, setting, progress)
    else:
        check_packages()
        data, pool = _persons(faces, setting, progress)
        service = _service(data, setting, out, keeping, stopper, progress)
        told = query_service(
            lambda: _entered(service, out, setting),
            who=f"DetectFaces of {service.record.net.name} {service.digest}",
            pool=pool,
            data=data,
            fidelity=setting.fidelity,
            ledger=out / "ledger.sqlite",
            price=None if prices is None else prices.cost(1),
            stopper=stopper,
            progress=progress,
        )
    workshop = CloneFactory(told, setting, out / "clones")

    def clones(
        kinds: Sequence[Kind], trials: Sequence[int], keep: CheckpointConfig
    ) -> dict[Kind, list[Run]]:
        """All trials of kinds of one target."""
        orders = {kind: [workshop.order(kind, trial) for trial in trials] for kind in kinds}
        flat = [order for its in orders.values() for order in its]
        data = workshop.data[kinds[0].target]
        runs = dict(zip(flat, make(flat, data, keeping=keep, stopper=stopper, progress=progress),
                        strict=True))  # fmt: skip
        return {kind: [runs[order] for order in its] for kind, its in orders.items()}

    everyone = range(setting.trials)
    scratch, *others = starts(setting, backbones or {})
    # The clone of which pictures are shown keeps its snapshots: they become an animation.
    plain = Kind(start=scratch, target="nose")
    [[shown]] = clones([plain], [0], replace(keeping, keep_every=1)).values()
    made: dict[Kind, list[Run]] = {}
    for target in TARGETS:
        kinds = [Kind(start=scratch, target=target)]
        kinds += [Kind(start=start, target=target) for start in others if target == "nose"]
        made |= clones(kinds, everyone, keeping)
    trials: list[Trial] = []
    rounded: dict[int, Run] = {}
    for trial in everyone:
        kinds = [Kind(start=scratch, target="nose", decimals=p) for p in setting.precisions]
        for kind, [run] in clones(kinds, [trial], keeping).items():
            assert kind.decimals is not None
            rounded.setdefault(kind.decimals, run)
            people = workshop.people(run, "nose")
            trials.append(trial_of(len(trials), kind.decimals, trial, run, people))
            write_trials(out / "precision.csv", trials)
    speeds = _speeds(shown, service, out, setting, progress)
    return write(
        out,
        Made(
            setting=setting,
            told=told,
            workshop=workshop,
            service=service,
            clones=made,
            trials=trials,
            shown=shown,
            rounded=rounded,
            speeds=speeds,
            prices=prices,
        ),
    )


def _written(faces: Faces, setting: Setting, progress: Progress) -> ServiceAnswers:
    if faces.images is None or faces.labels is None:
        raise ConfigError("Answers of before are --images and --labels; name both.")
    if faces.data is not None:
        raise ConfigError(
            "--data brings faces to train and serve a victim with, --images and --labels answers "
            "of before; leave one of them out."
        )
    return load_recorded(
        faces.images,
        faces.labels,
        size=setting.image_size,
        group=faces.group,
        progress=progress,
    )


def _persons(faces: Faces, setting: Setting, progress: Progress) -> tuple[Dataset, Split]:
    """Three parts without a person in common: the victim's, the thief's, and the test pictures."""
    source = faces.data or setting.data
    if source is None:
        raise ConfigError(
            f"Scale {setting.scale} needs pictures of faces: --data with landmarks, as a folder of "
            "Parquet shards, or --images and --labels with what a service answered. Scale smoke "
            "draws its own."
        )
    config = DataConfig(
        source=source,
        image_size=setting.image_size,
        points=PLACES,
        group=faces.group or FRAMES,
    )
    data = load(config, progress=progress)
    if data.channels != 3:
        raise ConfigError(f"{source} is grey; the service takes pictures in colour.")
    victims, thiefs = data.train.divide(0.5, "thief")
    return replace(data, train=victims), thiefs


def _service(
    data: Dataset,
    setting: Setting,
    out: Path,
    keeping: CheckpointConfig,
    stopper: Stopper,
    progress: Progress,
) -> Run:
    order = Order(
        net=setting.victim,
        objective=Normal(),
        training=setting.teacher_training,
        under=out / "service",
    )
    [run] = make([order], data, keeping=keeping, stopper=stopper, progress=progress)
    return run


def _entered(service: Run, out: Path, setting: Setting) -> AbstractContextManager[Victim]:
    assert service.folder is not None
    return serving(service.folder, out / "service.jsonl", device=setting.teacher_training.device)


def _speeds(
    clone: Run, service: Run | None, out: Path, setting: Setting, progress: Progress
) -> Speeds:
    """Measured once and kept: another time would be another number."""
    path = out / "speed.json"
    if path.exists():
        kept = json.loads(path.read_text("utf-8"))
        if kept["of"] == clone.record.id:
            timed = ([Timing(**it) for it in kept[who]] for who in Speeds._fields)
            return Speeds(*timed)
    speeds = Speeds(time_run(clone, device=setting.student_training.device, progress=progress), [])
    if service is not None:
        with _entered(service, out, setting) as victim:
            its, _ = time_victim(
                victim, queries=QUERIES_FOR_SPEED, pace=RequestConfig(), progress=progress
            )
        speeds = speeds._replace(service=its)
    told = {who: [asdict(it) for it in its] for who, its in speeds._asdict().items()}
    write_text(path, json.dumps({"of": clone.record.id, **told}) + "\n")
    return speeds
