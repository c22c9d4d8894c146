"""The format of an experiment folder: `params.json`, whose keys select one of three trainings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from denature.core.errors import ConfigError, unknown
from denature.core.schema import decode
from denature.core.untrusted import read_json
from denature.recipes.paper.config import DataName
from denature.train import Distilled, Nasty, Normal, Training
from denature.train.config import Augment, Device, Precision
from denature.train.objectives import Objective

PARAMS, LOG = "params.json", "training.log"
BEST, LAST = "best_model.tar", "last_model.tar"
OWN = "run"
"""Folder of this package's run, inside of the experiment folder."""

NETS: Mapping[str, str] = {
    "net": "cnn",
    "mlp": "mlp",
    **{f"preresnet{depth}": f"resnetc{depth}" for depth in (20, 32, 44, 56, 110)},
    **{name: name for name in ("resnet18", "resnet34", "resnet50", "resnext29")},
    **{name: name for name in ("mobilenetv2", "shufflenetv2", "densenet121")},
}
"""Names of networks here, by official name."""

DATA: Mapping[str, DataName] = {
    "cifar10": "cifar10",
    "cifar100": "cifar100",
    "tiny_imagenet": "tiny-imagenet",
}

CIFAR = ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261))
TINY = ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262))
STATISTICS = {"cifar10": CIFAR, "cifar100": CIFAR, "tiny-imagenet": TINY}
"""Mean and standard deviation of normalisation in the official code; its weights expect them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """The keys of a `params.json`."""

    model_name: str
    learning_rate: float
    batch_size: int
    num_epochs: int
    dataset: str
    schedule: tuple[int, ...] = ()
    gamma: float = 0.1
    augmentation: int = 1
    num_channels: int = 32
    dropout_rate: float = 0.0
    subset_percent: float = 1.0
    resume: str | None = None
    adversarial_model: str | None = None
    adversarial_resume: str | None = None
    weight: float | None = None
    teacher_model: str | None = None
    teacher_resume: str | None = None
    alpha: float | None = None
    temperature: float | None = None
    num_workers: int | None = None
    """Has no effect here: batches are cut in memory, without worker processes."""
    cuda: int | None = None
    """Has no effect here: see `--device`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Overrides:
    """Values of the command line that replace those of the files."""

    epochs: int | None = None
    fraction: float | None = None
    seed: int = 0
    """Seed; 0 in the official code."""
    data_root: Path | None = None
    teacher_resume: str | None = None
    resume: str | None = None
    device: Device = "auto"
    precision: Precision = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentFolder:
    """An experiment folder: path, settings, and the checkpoints that it names."""

    path: Path
    params: Params
    net: str
    """Name of the network here."""
    objective: Objective
    training: Training
    needs: Mapping[str, Path]
    """Checkpoints by role: adversary, teacher or init."""
    asked_net: str | None
    """Official name of the network in the checkpoint of the teacher or adversary."""
    notes: tuple[str, ...]
    """Differences from the official code."""


def find(places: Sequence[Path]) -> list[Path]:
    """All experiment folders in or below the given places, each once.

    Raises:
        ConfigError: a place holds no experiment folder.
    """
    folders: list[Path] = []
    for place in places:
        below = sorted(path.parent for path in place.rglob(PARAMS)) if place.is_dir() else []
        if not below:
            raise ConfigError(f"{place} holds no {PARAMS}, and no folder below it does.")
        folders += below
    return list(dict.fromkeys(path.resolve() for path in folders))


def read(path: Path, overrides: Overrides) -> ExperimentFolder:
    """Read an experiment folder.

    Raises:
        ConfigError: a key or value is unknown, or the keys describe no training.
    """
    file = path / PARAMS
    try:
        raw = read_json(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {error}.") from None
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{file} holds {type(raw).__name__}; an object of keys and values is needed."
        )
    for key in raw:
        if key not in Params.__dataclass_fields__:
            raise unknown(f"key in {file}:", key, Params.__dataclass_fields__)
    params = decode(Params, raw, where=str(file))
    if overrides.teacher_resume is not None and params.teacher_model is not None:
        params = replace(params, teacher_resume=overrides.teacher_resume)
    if overrides.resume is not None:
        params = replace(params, resume=overrides.resume)
    if params.dataset not in DATA:
        raise unknown(f"dataset in {file}:", params.dataset, DATA)
    for name in (params.model_name, params.adversarial_model, params.teacher_model):
        if name is not None and name not in NETS:
            raise unknown(f"network in {file}:", name, NETS)
    try:
        objective, checkpoints, asked_net = _objective(params, file)
        training = _training(params, overrides)
        net = net_of(params.model_name, params)
    except ConfigError as error:
        raise error if str(file) in str(error) else ConfigError(f"{file}: {error}") from None
    notes = [
        "sample order, views and random draws differ from those of the official code",
        "of equally good epochs the earliest is kept, in the official code the latest",
    ]
    notes += [
        f"{key} is {value}, which has no effect here: {instead}"
        for key, value, instead in (
            ("cuda", params.cuda, "see --device"),
            ("num_workers", params.num_workers, "batches are cut in memory"),
        )
        if value is not None
    ]
    if params.model_name == "mlp":
        notes.append("the official mlp applies a ReLU to its logits, this one does not")
    if params.dataset == "tiny_imagenet" and params.augmentation:
        notes.append(
            "rotation angles are whole degrees, the official ones any angle up to 20 degrees"
        )
    if params.subset_percent < 1:
        notes.append("the subset is stratified, the official one is a plain shuffle")
    needs = {role: _located(text, path) for role, text in checkpoints.items() if text is not None}
    return ExperimentFolder(
        path=path,
        params=params,
        net=net,
        objective=objective,
        training=training,
        needs=needs,
        asked_net=asked_net,
        notes=tuple(notes),
    )


def _objective(params: Params, file: Path) -> tuple[Objective, dict[str, str | None], str | None]:
    """Objective of the folder, checkpoints by role, and the network of teacher or adversary."""
    nasty = {"adversarial_model", "adversarial_resume", "temperature", "weight"}
    distilled = {"teacher_model", "teacher_resume", "temperature", "alpha"}
    given = {key for key in nasty | distilled if getattr(params, key) is not None}
    init = {"init": params.resume}
    if not given:
        return Normal(), init, None
    for keys in (nasty, distilled):
        if given != keys:
            continue
        assert params.temperature is not None
        if keys is nasty:
            assert params.weight is not None
            push = Nasty(temperature=params.temperature, omega=params.weight)
            return push, {"adversary": params.adversarial_resume, **init}, params.adversarial_model
        soft = Distilled(temperature=params.temperature, alpha=params.alpha)
        return soft, {"teacher": params.teacher_resume, **init}, params.teacher_model
    closest = nasty if given & {"adversarial_model", "adversarial_resume", "weight"} else distilled
    missing, extra = sorted(closest - given), sorted(given - closest)
    raise ConfigError(
        f"{file} describes no training: with {', '.join(sorted(given))} it "
        + (f"lacks {', '.join(missing)}" if missing else f"has {', '.join(extra)} too many")
        + ". A nasty teacher has " + ", ".join(sorted(nasty)) + "; a student has "
        + ", ".join(sorted(distilled)) + "; a normal network has none of them."
    )  # fmt: skip


def _located(text: str, folder: Path) -> Path:
    """Resolve the path of a checkpoint, which is relative to the root of the repository."""
    path = Path(text)
    if path.is_absolute():
        return path.resolve()
    roots = [Path.cwd(), *folder.parents]
    candidates = [(root / path).resolve() for root in roots]
    present = (p for p in candidates if p.exists() or (p.parent / PARAMS).exists())
    return next(present, candidates[0])


def in_order(folders: Sequence[ExperimentFolder]) -> list[ExperimentFolder]:
    """Sort folders so that each checkpoint is made before the folders that need it.

    Raises:
        ConfigError: a checkpoint is missing and no folder makes it, or folders need each other.
    """
    by_path = {folder.path: folder for folder in folders}
    ordered: list[ExperimentFolder] = []
    entered: set[Path] = set()

    def visit(folder: ExperimentFolder) -> None:
        if folder in ordered:
            return
        if folder.path in entered:
            raise ConfigError(f"{folder.path} needs itself, through the checkpoints that it names.")
        entered.add(folder.path)
        for role, checkpoint in folder.needs.items():
            # A folder may continue from its own earlier checkpoint.
            own = checkpoint.parent == folder.path and checkpoint.exists()
            if checkpoint.parent in by_path and not own:
                visit(by_path[checkpoint.parent])
            elif not checkpoint.exists():
                raise ConfigError(
                    f"{folder.path / PARAMS} names the {role} {checkpoint}, which does not exist. "
                    f"Name also {checkpoint.parent}, the folder that makes it, or a tree with both."
                )
        ordered.append(folder)

    for folder in folders:
        visit(folder)
    return ordered


def net_of(name: str, params: Params) -> str:
    """Name here of an official network, with the options of its folder."""
    if name != "net":
        return NETS[name]
    options = []
    if params.num_channels != 32:
        options.append(f"width={params.num_channels}")
    if params.dropout_rate:
        options.append(f"dropout={params.dropout_rate:g}")
    return "cnn" + ("@" + "+".join(options) if options else "")


def _training(params: Params, overrides: Overrides) -> Training:
    if params.num_epochs < 1:
        raise ConfigError(f"num_epochs is {params.num_epochs}; it must be at least 1.")
    epochs = params.num_epochs if overrides.epochs is None else overrides.epochs
    # A shorter run keeps the shape of its schedule.
    scaled = (round(milestone * epochs / params.num_epochs) for milestone in params.schedule)
    milestones = tuple(sorted({m for m in scaled if 0 < m < epochs}))
    adam = params.model_name in ("net", "mlp")
    augment: Augment = "rotate-flip" if params.dataset == "tiny_imagenet" else "crop-flip"
    return Training(
        seed=overrides.seed,
        epochs=epochs,
        optimizer="adam" if adam else "sgd",
        lr=params.learning_rate,
        weight_decay=0.0 if adam else 5e-4,
        schedule="step" if milestones else "constant",
        milestones=milestones,
        gamma=params.gamma,
        batch_size=params.batch_size,
        fraction=params.subset_percent if overrides.fraction is None else overrides.fraction,
        augment=augment if params.augmentation else "none",
        checkpoint="best-test",
        device=overrides.device,
        precision=overrides.precision,
    )
