"""The nose experiment: service, theft, clones, and clones of rounded answers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

from denature.core.errors import ConfigError
from denature.core.files import write_text
from denature.core.progress import Progress
from denature.core.sealed import sealed, unsealed
from denature.core.untrusted import read_json
from denature.data import DataConfig, Dataset, load
from denature.data.dataset import Split
from denature.data.landmarks import PLACES
from denature.extract.asking.pricing import one_price, prices_of
from denature.extract.speed import Timing, time_run, time_victim
from denature.extract.theft import LEDGER
from denature.extract.victims.base import Victim
from denature.extract.victims.find import REKOGNITION
from denature.extract.victims.rekognition import Rekognition
from denature.recipes.experiment import AtScale, MeasuredResult, Request
from denature.recipes.given import backbone_of
from denature.recipes.nose.clones import (
    CloneFactory,
    CloneKind,
    Start,
    starts,
    trial_of,
    validated,
    write_trials,
)
from denature.recipes.nose.config import NoseOptions
from denature.recipes.nose.findings import Clones, Speeds, result_of
from denature.recipes.nose.service_answers import ServiceAnswers, load_recorded, query_service
from denature.recipes.nose.settings import SETTINGS, TARGETS, VALUES, NoseSetting
from denature.recipes.serving import check_packages, serving
from denature.remote.config import RequestConfig
from denature.report.nose import PrecisionPoint
from denature.train import Normal, Order, Run, make
from denature.train.session import Session

FRAMES = r"(.*)_"
"""Frames of the known face data sets are named by person and number."""

QUERIES_FOR_SPEED = 300


@dataclass(frozen=True, kw_only=True)
class Nose(AtScale):
    """Clones of a nose detector, which is trained and served here or whose answers are recorded.

    Raises:
        ConfigError: faces from several sources, or from none.
    """

    setting: NoseSetting
    options: NoseOptions
    out: Path
    _recordings: list[ServiceAnswers] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        options = self.options
        if (options.pictures is None) != (options.labels is None):
            raise ConfigError("Recorded answers are --pictures and --labels; name both.")
        if options.pictures is not None and options.data is not None:
            raise ConfigError(
                "--data names faces to train and serve a victim on, --pictures and --labels name "
                "recorded answers; leave one of them out."
            )

    @staticmethod
    def of(request: Request, out: Path, options: NoseOptions) -> "Nose":
        return Nose(setting=request.setting(SETTINGS), options=options, out=out)

    @property
    def is_recorded(self) -> bool:
        """Whether no service is queried: the answers of an earlier harvest are read."""
        return self.options.pictures is not None

    def data(self, progress: Progress) -> Dataset:
        self._backbones  # noqa: B018 - names are checked before pictures are decoded
        if self.is_recorded:
            return self._recorded(progress).dataset(TARGETS["nose"])
        check_packages("The face service")
        return self._persons(progress)[0]

    def orders(self) -> Sequence[Order]:
        """The network behind the service; clones can be ordered when it has answered."""
        if self.is_recorded:
            return ()
        setting = self.setting
        return [
            Order(
                net=setting.victim,
                objective=Normal(),
                training=setting.teacher_training,
                under=self.folder / "service",
            )
        ]

    def measure(self, runs: Mapping[Order, Run], data: Dataset, session: Session) -> MeasuredResult:
        """Query the service, and train and measure all clones."""
        price = self.options.price_per_1000
        prices = prices_of(REKOGNITION) if price is None else one_price(price)
        service = next(iter(runs.values()), None)
        if service is None:
            answers = self._recorded(session.progress)
        else:
            answers = query_service(
                lambda: self._served(service),
                name=f"DetectFaces of {service.record.net.name} {service.digest}",
                pool=self._persons(session.progress)[1],
                data=data,
                fidelity=self.setting.fidelity,
                ledger=self.folder / LEDGER,
                price=None if prices is None else prices.cost(1),
                session=session,
            )
        clones = self._clones(CloneFactory(answers, self.setting, self.folder / "clones"), session)
        speeds = self._speeds(clones.shown, service, session.progress)
        return result_of(self.setting, answers, clones, service, speeds, prices)

    def _persons(self, progress: Progress) -> tuple[Dataset, Split]:
        """Pictures split by person into data of the victim and its test, and the thief's pool."""
        source = self.options.data or self.setting.source
        if source is None:
            raise ConfigError(
                f"Scale {self.setting.scale} needs pictures of faces: --data with landmarks, as a "
                "folder of Parquet shards, or --pictures and --labels with recorded answers of a "
                "service. Scale smoke draws its own."
            )
        config = DataConfig(
            source=source,
            image_size=self.setting.image_size,
            points=PLACES,
            group=self.options.group or FRAMES,
        )
        data = load(config, progress=progress)
        if data.channels != 3:
            raise ConfigError(
                f"{source} holds grey pictures; the service takes pictures in colour. Name other "
                "faces."
            )
        victim_train, thief_pool = data.train.divide(0.5, "thief")
        return replace(data, train=victim_train), thief_pool

    def _recorded(self, progress: Progress) -> ServiceAnswers:
        """Recorded answers, read once: the estimate, the data and the clones need them."""
        if self._recordings:
            return self._recordings[0]
        options = self.options
        assert options.pictures is not None
        assert options.labels is not None
        self._recordings.append(
            load_recorded(
                options.pictures,
                options.labels,
                size=self.setting.image_size,
                group=options.group,
                progress=progress,
            )
        )
        return self._recordings[0]

    @contextmanager
    def _served(self, service: Run) -> Iterator[Victim]:
        """The service, which answers by Rekognition's protocol."""
        assert service.folder is not None
        device, log = self.setting.teacher_training.device, self.folder / "service.jsonl"
        with serving(service.folder, "face-service", log, device=device) as url:
            yield Rekognition(endpoint_url=url, values=VALUES)

    @cached_property
    def _backbones(self) -> dict[str, Run | str]:
        """Starts of further clones by name."""
        found = {name: backbone_of(name, self.options.trust) for name in self.options.backbone}
        return {name: start for name, start in found.items() if start is not None}

    def _clones(self, factory: CloneFactory, session: Session) -> Clones:
        """All clones: of each target and start, and of rounded answers."""

        def train(
            kinds: Sequence[CloneKind], trials: Sequence[int], session: Session = session
        ) -> dict[CloneKind, list[Run]]:
            """All trials of some kinds with one target."""
            orders = {kind: [factory.order(kind, trial) for trial in trials] for kind in kinds}
            flat = [order for of_kind in orders.values() for order in of_kind]
            data = factory.data[kinds[0].target]
            runs = dict(zip(flat, make(flat, data, session=session), strict=True))
            return {kind: [runs[order] for order in of_kind] for kind, of_kind in orders.items()}

        all_trials = range(self.setting.seeds)
        scratch, *others = starts(self.setting, self._backbones)
        rates = self._rates(factory, [scratch, *others], session)
        # The clone whose predictions are drawn keeps its snapshots: they become an animation.
        snapshots = replace(session.checkpointing, keep_every=1)
        [[shown]] = train(
            [CloneKind(start=scratch, target="nose", rate=rates[scratch])],
            [0],
            replace(session, checkpointing=snapshots),
        ).values()
        runs_by_kind: dict[CloneKind, list[Run]] = {}
        for target in TARGETS:
            of_nose = others if target == "nose" else []
            kinds = [
                CloneKind(start=start, target=target, rate=rates[start])
                for start in (scratch, *of_nose)
            ]
            runs_by_kind |= train(kinds, all_trials)
        trials: list[PrecisionPoint] = []
        rounded: dict[int, Run] = {}
        for trial in all_trials:
            kinds = [
                CloneKind(start=scratch, target="nose", decimals=p, rate=rates[scratch])
                for p in self.setting.precisions
            ]
            for kind, [run] in train(kinds, [trial]).items():
                assert kind.decimals is not None
                rounded.setdefault(kind.decimals, run)
                people = factory.people(run, "nose")
                trials.append(trial_of(kind.decimals, trial, run, people))
                write_trials(self.folder / "precision.csv", trials)
        return Clones(
            factory=factory, runs=runs_by_kind, trials=trials, shown=shown, rounded=rounded
        )

    def _rates(
        self, factory: CloneFactory, starts: Sequence[Start], session: Session
    ) -> dict[Start, float]:
        """The rate of each start, by the error of its clones on pictures held out from theirs."""
        kinds = [
            CloneKind(start=start, target="nose", rate=rate)
            for start in starts
            for rate in self.setting.rates
        ]
        orders = [factory.candidate(kind) for kind in kinds]
        runs = make(orders, factory.data["nose"], session=session)
        errors = {kind: validated(run) for kind, run in zip(kinds, runs, strict=True)}
        return {
            start: min((kind for kind in kinds if kind.start == start), key=errors.__getitem__).rate
            for start in starts
        }

    def _speeds(self, clone: Run, service: Run | None, progress: Progress) -> Speeds:
        """Measure the speeds once and store them, since each measurement gives other numbers."""
        path = self.folder / "speed.json"
        # A missing or damaged file is measured again.
        with suppress(OSError, ValueError, KeyError, TypeError):
            stored = unsealed(read_json(path))
            if stored["of"] == clone.record.id:
                timings = ([Timing(**entry) for entry in stored[name]] for name in Speeds._fields)
                return Speeds(*timings)
        device = self.setting.student_training.device
        speeds = Speeds(time_run(clone, device=device, progress=progress), [])
        if service is not None:
            with self._served(service) as victim:
                service_timings, _ = time_victim(
                    victim, queries=QUERIES_FOR_SPEED, pace=RequestConfig(), progress=progress
                )
            speeds = speeds._replace(service=service_timings)
        encoded = {
            name: [asdict(timing) for timing in timings]
            for name, timings in speeds._asdict().items()
        }
        write_text(path, json.dumps(sealed({"of": clone.record.id, **encoded})) + "\n")
        return speeds
