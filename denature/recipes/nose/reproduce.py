"""Reproduce the nose experiment: service, theft, clones, rounded answers and one page."""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from denature.core.errors import ConfigError
from denature.core.files import write_text
from denature.core.progress import Progress
from denature.data import DataConfig, Dataset, load
from denature.data.dataset import Split
from denature.data.landmarks import PLACES
from denature.extract.asking.pricing import one_price, prices_of
from denature.extract.config import RequestConfig
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
from denature.train import Normal, Order, Run, make
from denature.train.session import Session

FRAMES = r"(.*)_"
"""Frames of the known face data sets are named by person and number."""

QUERIES_FOR_SPEED = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Faces:
    """Source of the face pictures: a data set with landmarks, or recorded answers of a service."""

    data: str | None = None
    """Data set of pictures with landmarks that people placed."""
    group: str | None = None
    """See `denature.data.config.Reading`; by default frames are named PERSON_NUMBER."""
    images: Path | None = None
    """Folder of the pictures that were sent to a service earlier."""
    labels: Path | None = None
    """Answers of that service, as JSON."""


def reproduce(
    setting: Setting,
    faces: Faces,
    out: Path,
    *,
    backbones: Mapping[str, Run | str] | None = None,
    price_per_1000: float | None = None,
    session: Session | None = None,
) -> NoseResult:
    """Clone a nose detector; runs and queries that are finished in `out` are not repeated.

    Args:
        setting: the experiment at one scale.
        faces: source of the pictures.
        out: folder for all runs and results.
        backbones: initial weights of further clones, by name; see `denature.train.Order`.
        price_per_1000: US dollars per thousand queries; by default the stored price of Rekognition.
        session: saved states, stops, workers and progress.

    Raises:
        DenatureError: see `denature.core.errors`.
        Stopped: a stop was requested; the same call resumes the work.
    """
    session = session or Session()
    out = out / setting.scale
    prices = prices_of(REKOGNITION) if price_per_1000 is None else one_price(price_per_1000)
    service: Run | None = None
    if faces.images is not None or faces.labels is not None:
        answers = _recorded(faces, setting, session.progress)
    else:
        check_packages()
        data, pool = _persons(faces, setting, session.progress)
        service = _service(data, setting, out, session)
        answers = query_service(
            lambda: _served(service, out, setting),
            who=f"DetectFaces of {service.record.net.name} {service.digest}",
            pool=pool,
            data=data,
            fidelity=setting.fidelity,
            ledger=out / "ledger.sqlite",
            price=None if prices is None else prices.cost(1),
            session=session,
        )
    factory = CloneFactory(answers, setting, out / "clones")

    def clones(
        kinds: Sequence[Kind], trials: Sequence[int], session: Session = session
    ) -> dict[Kind, list[Run]]:
        """Train all trials of some kinds with one target."""
        orders = {kind: [factory.order(kind, trial) for trial in trials] for kind in kinds}
        flat = [order for of_kind in orders.values() for order in of_kind]
        data = factory.data[kinds[0].target]
        runs = dict(zip(flat, make(flat, data, session=session), strict=True))
        return {kind: [runs[order] for order in of_kind] for kind, of_kind in orders.items()}

    all_trials = range(setting.trials)
    scratch, *from_backbones = starts(setting, backbones or {})
    # The clone whose predictions are drawn keeps its snapshots: they become an animation.
    unrounded = Kind(start=scratch, target="nose")
    snapshots = replace(session.checkpointing, keep_every=1)
    [[shown]] = clones([unrounded], [0], replace(session, checkpointing=snapshots)).values()
    runs_by_kind: dict[Kind, list[Run]] = {}
    for target in TARGETS:
        kinds = [Kind(start=scratch, target=target)]
        kinds += [Kind(start=start, target=target) for start in from_backbones if target == "nose"]
        runs_by_kind |= clones(kinds, all_trials)
    trials: list[Trial] = []
    rounded: dict[int, Run] = {}
    for trial in all_trials:
        kinds = [Kind(start=scratch, target="nose", decimals=p) for p in setting.precisions]
        for kind, [run] in clones(kinds, [trial]).items():
            assert kind.decimals is not None
            rounded.setdefault(kind.decimals, run)
            people = factory.people(run, "nose")
            trials.append(trial_of(len(trials), kind.decimals, trial, run, people))
            write_trials(out / "precision.csv", trials)
    speeds = _speeds(shown, service, out, setting, session.progress)
    return write(
        out,
        Made(
            setting=setting,
            answers=answers,
            factory=factory,
            service=service,
            clones=runs_by_kind,
            trials=trials,
            shown=shown,
            rounded=rounded,
            speeds=speeds,
            prices=prices,
        ),
    )


def _recorded(faces: Faces, setting: Setting, progress: Progress) -> ServiceAnswers:
    if faces.images is None or faces.labels is None:
        raise ConfigError("Recorded answers are --images and --labels; name both.")
    if faces.data is not None:
        raise ConfigError(
            "--data names faces to train and serve a victim on, --images and --labels name "
            "recorded answers; leave one of them out."
        )
    return load_recorded(
        faces.images,
        faces.labels,
        size=setting.image_size,
        group=faces.group,
        progress=progress,
    )


def _persons(faces: Faces, setting: Setting, progress: Progress) -> tuple[Dataset, Split]:
    """Split pictures by person into training data of the victim, pool of the thief and test set."""
    source = faces.data or setting.data
    if source is None:
        raise ConfigError(
            f"Scale {setting.scale} needs pictures of faces: --data with landmarks, as a folder of "
            "Parquet shards, or --images and --labels with recorded answers of a service. Scale "
            "smoke draws its own."
        )
    config = DataConfig(
        source=source,
        image_size=setting.image_size,
        points=PLACES,
        group=faces.group or FRAMES,
    )
    data = load(config, progress=progress)
    if data.channels != 3:
        raise ConfigError(
            f"{source} holds grey pictures; the service takes pictures in colour. Name other faces."
        )
    victim_train, thief_pool = data.train.divide(0.5, "thief")
    return replace(data, train=victim_train), thief_pool


def _service(
    data: Dataset,
    setting: Setting,
    out: Path,
    session: Session,
) -> Run:
    order = Order(
        net=setting.victim,
        objective=Normal(),
        training=setting.teacher_training,
        under=out / "service",
    )
    [run] = make([order], data, session=session)
    return run


def _served(service: Run, out: Path, setting: Setting) -> AbstractContextManager[Victim]:
    assert service.folder is not None
    return serving(service.folder, out / "service.jsonl", device=setting.teacher_training.device)


def _speeds(
    clone: Run, service: Run | None, out: Path, setting: Setting, progress: Progress
) -> Speeds:
    """Measure the speeds once and store them, since each measurement gives other numbers."""
    path = out / "speed.json"
    if path.exists():
        stored = json.loads(path.read_text("utf-8"))
        if stored["of"] == clone.record.id:
            timings = ([Timing(**entry) for entry in stored[name]] for name in Speeds._fields)
            return Speeds(*timings)
    speeds = Speeds(time_run(clone, device=setting.student_training.device, progress=progress), [])
    if service is not None:
        with _served(service, out, setting) as victim:
            service_timings, _ = time_victim(
                victim, queries=QUERIES_FOR_SPEED, pace=RequestConfig(), progress=progress
            )
        speeds = speeds._replace(service=service_timings)
    encoded = {
        name: [asdict(timing) for timing in timings] for name, timings in speeds._asdict().items()
    }
    write_text(path, json.dumps({"of": clone.record.id, **encoded}) + "\n")
    return speeds
