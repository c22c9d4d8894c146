"""Image classifiers of Hugging Face transformers, by `hf:owner/name` or `hf:FOLDER`.

A folder is what `save_pretrained` writes. Weights are read from safetensors and never unpickled,
code in a repository is never imported, and a network is built without a download: what was not
fetched before is refused.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from denature.core.errors import ConfigError, MissingExtra
from denature.core.names import FOLDER
from denature.core.text import line_of
from denature.core.types import Logits, Pixels
from denature.core.untrusted import read_json
from denature.core.weights import read_weights

CONFIG, PREPROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"

MOST_NUMBER = 1_000_000
"""Largest number in a configuration."""

MOST_LAYERS = 1000
"""Layers that a configuration may name, and numbers in one of its lists."""

FOREIGN = ("timm_wrapper", "shieldgemma2")
"""Kinds of models whose networks are those of another library, or of text."""

DROPPED = re.compile(
    r"_.*|trust_remote_code|auto_map|attn_implementation|use_kernels|.*backbone.*|(torch_)?dtype"
    r"|id2label|label2id|transformers_version|task_specific_params|.*revision"
)
"""Settings that say nothing of how a network is built in float32. Releases of transformers took
some of them for leave to fetch and execute code (CVE-2026-4372, CVE-2026-5241)."""

USUAL_SIDE = 224
"""Pixels a side of published weights, where nothing states them."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class HubModel:
    """What the files of a model state of its input and output."""

    classes: int
    channels: int
    image_size: int
    mean: tuple[float, ...] | None
    """Of images in [0, 1]; None where the model states no preprocessing."""
    std: tuple[float, ...] | None
    class_names: tuple[str, ...] | None


@final
class Classifier(nn.Module):
    """A classifier of transformers as a network from pixels to logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Pixels) -> Logits:
        logits: Logits = self.model(pixel_values=pixels).logits
        return logits


def check_name(name: str) -> None:
    """Check that a model's configuration is here, from which its network is built."""
    _config(name, fetch=False)


def create(name: str, classes: int, channels: int, image_size: int) -> nn.Module:
    """The network of a model's configuration for images of this shape, with random weights."""
    from transformers import AutoConfig, AutoModelForImageClassification
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

    plain = _config(name, fetch=False)
    kind = plain.pop("model_type", None)
    if kind in FOREIGN or kind not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        raise ConfigError(
            f"hf:{name} is of the kind {kind!r} in {CONFIG}, and no classifier of images."
        )
    settings = _settings(name, plain)
    settings |= {"num_labels": classes, "num_channels": channels}
    if "image_size" in plain:
        settings["image_size"] = image_size
    config = AutoConfig.for_model(kind, **settings)
    make: Callable[..., nn.Module] = AutoModelForImageClassification.from_config
    return Classifier(make(config, trust_remote_code=False, attn_implementation="eager"))


def _settings(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration says of its network: numbers, words, and lists of them.

    Raises:
        ConfigError: another value, which could name a file or a repository; without it the network
            might be another one that the weights fit too.
    """

    def is_plain(value: object) -> bool:
        if isinstance(value, list):
            return all(map(is_plain, value))
        if isinstance(value, str):
            return re.fullmatch(r"\w*", value) is not None
        return value is None or isinstance(value, int | float)

    settings = {key: value for key, value in config.items() if not DROPPED.fullmatch(key)}
    if odd := [key for key, value in settings.items() if not is_plain(value)]:
        raise ConfigError(
            f"{CONFIG} of hf:{name} has settings that are neither numbers nor words: "
            f"{', '.join(odd)}. Export the model as ONNX, and name that file."
        )
    return settings


def published(
    name: str, channels: int, image_size: int
) -> tuple[dict[str, Tensor], tuple[float, ...], tuple[float, ...]]:
    """The weights of a model as the state of what `create` makes, with mean and std.

    Raises:
        ConfigError: there is no such model, or none with safetensors in one file.
        RunError: the weights are damaged.
    """
    about = describe(name, fetch=True)
    tensors = _renamed(
        read_weights(_file(name, WEIGHTS, fetch=True)), name, about, channels, image_size
    )
    zeros, ones = (0.0,) * about.channels, (1.0,) * about.channels
    body = {f"model.{key}": value for key, value in tensors.items()}
    return body, about.mean or zeros, about.std or ones


def _renamed(
    tensors: dict[str, Tensor], name: str, about: HubModel, channels: int, image_size: int
) -> dict[str, Tensor]:
    """Weights under the names that the network has in the installed release of transformers.

    Files keep the names of earlier releases, and `from_pretrained` knows how these became others.
    Weights that fit neither way stay as they are: `network_of` says what is missing.
    """
    from transformers.utils import logging

    with torch.device("meta"):
        outline: Any = create(name, about.classes, channels, image_size)
    wanted = outline.model.state_dict()
    count = sum(tensor.numel() for tensor in wanted.values())
    # The same number of values: the network takes no more memory than the file.
    if tensors.keys() == wanted.keys() or count != sum(t.numel() for t in tensors.values()):
        return tensors
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, report = type(outline.model).from_pretrained(
            None, config=outline.model.config, state_dict=dict(tensors), output_loading_info=True
        )
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
    found: dict[str, Tensor] = model.state_dict()
    return tensors if any(report.values()) else found


def describe(name: str, *, fetch: bool) -> HubModel:
    """Shape, normalisation and class names of a model.

    Args:
        name: `owner/name`, or a folder.
        fetch: whether files that are not in the cache of huggingface_hub are downloaded.

    Raises:
        ConfigError: there is no such model, or it takes no square images.
    """
    try:
        import transformers  # noqa: F401 - before anything is downloaded
    except ImportError:
        raise MissingExtra("transformers", "transformers", f"The model hf:{name}") from None
    config = _config(name, fetch=fetch)
    try:
        steps = read_json(_file(name, PREPROCESSOR, fetch=fetch))
    except ConfigError:
        steps = None
    channels = config.get("num_channels", 3)
    names = config.get("id2label")
    count = len(names) if isinstance(names, dict) else config.get("num_labels", 2)
    mean, std = _normalisation(name, steps, channels) if isinstance(steps, dict) else (None, None)
    return HubModel(
        classes=count,
        channels=channels,
        image_size=_side(name, config, steps if isinstance(steps, dict) else {}),
        mean=mean,
        std=std,
        class_names=_names(names),
    )


def _normalisation(
    name: str, steps: Mapping[str, Any], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of pixels in [0, 1] that stand for the steps of a preprocessor."""
    factor = steps.get("rescale_factor", 1 / 255) if steps.get("do_rescale", True) else 1.0
    mean, std = [0.0], [1.0]
    if steps.get("do_normalize", True):
        mean, std = (steps.get(key, usual) for key, usual in (("image_mean", mean),
                                                               ("image_std", std)))  # fmt: skip
    try:
        largest = 255 * float(factor)
        found = [
            tuple(float(value) / largest for value in (values if len(values) > 1
                                                       else [*values] * channels))
            for values in (mean, std)
        ]  # fmt: skip
    except (TypeError, ValueError, ZeroDivisionError):
        raise ConfigError(f"{PREPROCESSOR} of hf:{name} cannot be read: {dict(steps)}.") from None
    # Sixteen digits of a division by 255 * (1 / 255) are noise.
    mean_found, std_found = (tuple(round(value, 9) for value in values) for values in found)
    return mean_found, std_found


def _side(name: str, config: Mapping[str, Any], steps: Mapping[str, Any]) -> int:
    """Pixels a side of the images that a model takes."""
    for key in ("crop_size", "size"):
        size = steps.get(key)
        if isinstance(size, dict):
            sides = [size[k] for k in ("height", "width", "shortest_edge") if k in size]
        else:
            sides = [size] if isinstance(size, int) else []
        if sides:
            break
    else:
        size = config.get("image_size", USUAL_SIDE)
        sides = size if isinstance(size, list) else [size]
    if len(set(sides)) != 1 or not isinstance(sides[0], int):
        raise ConfigError(f"hf:{name} takes images of {sides} pixels; wanted are square ones.")
    return int(sides[0])


def _names(names: object) -> tuple[str, ...] | None:
    """The names of the classes, unless they are only numbered."""
    if not isinstance(names, dict):
        return None
    ordered = [names.get(str(number)) for number in range(len(names))]
    numbered = [f"LABEL_{number}" for number in range(len(names))]
    if ordered == numbered or not all(isinstance(each, str) for each in ordered):
        return None
    return tuple(map(str, ordered))


def _config(name: str, *, fetch: bool) -> dict[str, Any]:
    """A model's configuration, with numbers that bound the size of its network.

    Raises:
        ConfigError: it cannot be found or read, or has numbers beyond the bounds.
    """
    path = _file(name, CONFIG, fetch=fetch)
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path} is no configuration of a model.")
    for key, value in config.items():
        values = value if isinstance(value, list) else [value]
        numbers = [number for number in values if isinstance(number, int)]
        most = MOST_LAYERS if key in ("depths", "num_hidden_layers") else MOST_NUMBER
        if len(values) > MOST_LAYERS or any(abs(number) > most for number in numbers):
            raise ConfigError(
                f"{key} in {path} is {str(value)[:40]}; wanted are at most {MOST_LAYERS} numbers "
                f"of at most {most:,}. Export the model as ONNX, and name that file."
            )
    return config


def _file(name: str, file: str, *, fetch: bool) -> Path:
    """The path of a model's file, in its folder or in the cache of huggingface_hub.

    Raises:
        ConfigError: there is none.
    """
    folder = Path(name)
    if folder.is_dir():
        if not (folder / file).is_file():
            raise ConfigError(f"{folder} has no {file}, as save_pretrained writes it.")
        return folder / file
    if re.fullmatch(FOLDER, name):
        raise ConfigError(f"There is no folder {name}; wanted is one that save_pretrained wrote.")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, file, local_files_only=not fetch))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        way = (
            "Is the name right, and the machine online?"
            if fetch
            else f"Fetch it: hf download {name}"
        )
        raise ConfigError(
            f"{file} of hf:{name} cannot be obtained: {line_of(error)}. {way}"
        ) from None
