"""The model card of a run: what a page of the Hugging Face hub says of it, from its record."""

from collections.abc import Iterator, Mapping
from typing import Any

from denature.core.errors import brief, needs
from denature.core.names import own_module
from denature.core.record import Record
from denature.core.stats import Estimate
from denature.report.divergence import warning
from denature.report.kinds import KINDS, answers_of
from denature.report.tables import markdown
from denature.report.words import learned_from, score
from denature.train.run import CLASS_NAMES

TRAINED = ("epochs", "optimizer", "lr", "weight_decay", "schedule", "batch_size", "augment", "seed")
"""Settings of training that a card names; the record has all."""

MOST_CLASSES = 20
"""Classes that a card names."""


def model_card(record: Record, repository: str, *, license: str | None = None) -> str:
    """Markdown with the hub's block of metadata.

    Args:
        record: of the run, without what must not be shared.
        repository: `owner/name`.
        license: identifier of the hub, such as apache-2.0; none is stated by default.

    Raises:
        MissingExtra: huggingface_hub is not installed.
    """
    name = repository.rpartition("/")[2]
    lines = [["", ""], *([what, text] for what, text in _facts(record))]
    parts = [
        f"# {name}",
        _summary(record),
        *_cautions(record),
        markdown(lines),
        _use(record, name, repository),
        _license(license),
    ]
    return f"---\n{_metadata(record, name, license).strip()}\n---\n\n" + "\n\n".join(parts) + "\n"


def _summary(record: Record) -> str:
    what = "finds landmarks in images" if record.landmarks else "classifies images"
    made = "imported into" if record.kind == "imported" else "trained by"
    return (
        f"A network that {what}, {made} denature, which audits whether a model can be cloned "
        "through its answers. This page was made from `record.json`, which documents the run."
    )


def _cautions(record: Record) -> Iterator[str]:
    kind = KINDS.get(record.kind)
    if kind is not None and kind.caution is not None:
        yield f"> **Read this first.** {kind.caution}"
    if (found := warning(record)) is not None:
        yield f"> As measured, this teacher is {found}"
    module = own_module(record.net.name)
    if module is not None:
        yield (
            f"> The network is code of its author, the module `{module}`, which is not here; "
            f"`denature` imports it only with `--trust {module}`."
        )


def _facts(record: Record) -> Iterator[tuple[str, str]]:
    """What a card says of a run, line by line."""
    net, data = record.net, record.data
    measured = record.error if record.landmarks else record.accuracy
    yield "Score", score(record) + _on(record, measured)
    yield "Network", f"{net.name}, {net.parameters:,} parameters"
    channels = "colour" if net.channels == 3 else "grey"
    yield "Input", f"{channels} images of {net.image_size}x{net.image_size} pixels, in [0, 1]"
    classes = record.given.get(CLASS_NAMES) if data is None else data.classes
    named = f": {brief(map(str, classes), MOST_CLASSES)}" if classes else ""
    yield "Landmarks" if record.landmarks else "Classes", f"{net.classes}{named}"
    if data is not None:
        images = f"{data.train:,} training, {data.validation:,} validation, {data.test:,} test"
        yield "Data", f"{data.source}: {images} images; digest {data.digest}"
    if record.kind != "imported":
        yield "Kind of run", record.kind
        yield "Learned from", _source(record)
    for role, given in record.inputs.items():
        yield f"{role.capitalize()}", f"{given.kind} {given.net}, digest {given.digest}"
    yield from _settings(record)
    if record.divergence is not None:
        yield "Divergence from its adversary", _nats(record.divergence)
    yield "Run", f"{record.id}, weights {net.digest}"


def _on(record: Record, measured: Estimate | None) -> str:
    """Images that a score was measured on, and the meaning of its interval."""
    if measured is None:
        return ""
    origin = "" if record.data is None else f" ({record.data.test_origin})"
    return f", 95 % interval, n = {measured.n:,} test images{origin}"


def _source(record: Record) -> str:
    teacher = record.inputs.get("teacher")
    kind = "a" if teacher is None else teacher.kind
    return learned_from(record.kind, teacher=kind, answers=answers_of(record))


def _settings(record: Record) -> Iterator[tuple[str, str]]:
    objective = {k: v for k, v in record.config.get("objective", {}).items() if k != "kind"}
    if objective:
        yield "Objective", _listed(objective)
    training = record.config.get("training", {})
    if training:
        yield "Training", _listed({key: training[key] for key in TRAINED if key in training})


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} ({_listed(value)})" if isinstance(value, Mapping) else f"{key} {value}"
        for key, value in settings.items()
        if value is not None
    )


def _nats(found: Estimate) -> str:
    return f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}] nats (tau^2 KL)"


def _use(record: Record, name: str, repository: str) -> str:
    trust = own_module(record.net.name)
    flag = "" if trust is None else f" --trust {trust}"
    lines = [
        f"denature pull hf:{repository} --out runs/{name}{flag}",
        f"denature eval runs/{name} --data DATA{flag}",
    ]
    if not record.landmarks:  # which no audit takes
        lines.append(f"denature audit runs/{name} --data DATA{flag}")
    text = "\n".join(lines)
    return (
        f"## Use\n\n```sh\n{text}\n```\n\nThe weights are safetensors, and nothing here executes "
        "when it is read. The data set is not here: DATA is its name or folder on your machine."
    )


def _license(license: str | None) -> str:
    said = "None is stated by this page." if license is None else f"`{license}`, as its owner says."
    return f"## License\n\n{said}"


def _metadata(record: Record, name: str, license: str | None) -> str:
    """The hub's block of metadata, as YAML."""
    with needs("hub", "A model card"):
        from huggingface_hub import EvalResult, ModelCardData

    task = "keypoint-detection" if record.landmarks else "image-classification"
    source = None if record.data is None else record.data.source
    results = None
    if source is not None and record.accuracy is not None:
        results = [
            EvalResult(
                task_type=task,
                dataset_type=source.removeprefix("hf:"),
                dataset_name=source.removeprefix("hf:"),
                dataset_split="test",
                metric_type="accuracy",
                metric_value=round(record.accuracy.value, 6),
            )
        ]
    card = ModelCardData(
        license=license,
        library_name="denature",
        pipeline_tag=task,
        tags=["denature", f"denature-{record.kind}"],
        datasets=[source.removeprefix("hf:")] if source and source.startswith("hf:") else None,
        model_name=None if results is None else name,
        eval_results=results,
    )
    text: str = card.to_yaml()
    return text
