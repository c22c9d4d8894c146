"""Weights on disk: written as safetensors, read without executing anything."""

import hashlib
import pickle
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from denature.core.errors import RunError
from denature.core.files import atomic_path
from denature.core.sniffing import is_cut_pickle, is_pickle, is_safetensors, what_else

WEIGHTS = "weights.safetensors"

NESTED = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
"""Names under which training scripts put the weights of their checkpoints."""

COUNT = ".num_batches_tracked"

WANTED = "Wanted is a .safetensors file, or a torch checkpoint that loads with weights_only=True."


def digest(network: nn.Module) -> str:
    """sha256 over names, types, shapes and values of the weights, first 16 hex digits."""
    found = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        found.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        found.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def save_weights(folder: Path, network: nn.Module) -> None:
    """Write the weights atomically.

    Raises:
        OSError: the weights could not be written, for any reason.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # Cloned, because safetensors refuses tensors that share memory, as tied weights do.
    tensors = {
        name: t.detach().cpu().clone().contiguous() for name, t in network.state_dict().items()
    }
    with atomic_path(folder / WEIGHTS) as temporary:
        try:
            save_file(tensors, temporary, metadata={"format": "pt"})
        except SafetensorError as error:  # a full disk, in the library's own words
            raise OSError(str(error)) from None


def read_weights(path: Path, entry: str | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a checkpoint that torch saved.

    A checkpoint is a pickle and is read with `weights_only=True`, so reading executes no code; a
    file that needs code is refused. This function unwraps the entries that training scripts put
    around the weights; `fit_weights` removes prefixes of names. The content decides the format,
    whatever the suffix.

    Raises:
        RunError: the file is missing, damaged, or holds no weights.
    """
    if not path.is_file():
        raise RunError(f"There is no weights file {path}.")
    if (found := what_else(path)) is not None:
        raise RunError(f"{path} {found}. {WANTED}")
    tensors_alone = is_safetensors(path)
    if not tensors_alone and not is_pickle(path):
        raise RunError(f"{path} is no checkpoint of a known format. {WANTED}")
    try:
        if tensors_alone:
            from safetensors.torch import load_file

            loaded: object = load_file(path)
        else:
            # Given a path torch would judge by the suffix; torch warns of pickles before refusing.
            with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
                loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError) as error:
        if isinstance(error, EOFError) or is_cut_pickle(path):
            raise RunError(f"{path} is cut off or damaged. Download it again. {WANTED}") from None
        raise RunError(
            f"{path} is a pickle of more than tensors and plain values, and reading it could "
            "execute code; refused. Save its state_dict() alone, best as .safetensors."
        ) from None
    except Exception as error:  # both libraries raise many kinds for a damaged file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(
            f"{path} cannot be read as weights: {reason.rstrip('.')}. {WANTED}"
        ) from None
    if entry is not None:
        if not isinstance(loaded, Mapping) or not isinstance(loaded.get(entry), Mapping):
            held = [str(key) for key in loaded] if isinstance(loaded, Mapping) else []
            raise RunError(
                f"{path} has no entry {entry} with weights; it holds {_few(held) or 'none'}."
            )
        loaded = loaded[entry]
    while isinstance(loaded, Mapping):
        inner = next((k for k in NESTED if isinstance(loaded.get(k), Mapping)), None)
        if inner is None:
            break
        if entry is None and (others := _like(loaded, inner)):
            raise RunError(
                f"{path} holds several sets of weights, {_few([inner, *others])}, which may differ "
                "(one may be an average over the training). Choose one with --entry "
                f"{others[0]} or --entry {inner}."
            )
        loaded = loaded[inner]
    if not isinstance(loaded, Mapping) or not loaded:
        raise RunError(f"{path} holds no weights, but {type(loaded).__name__}.")
    tensors = {str(k): v for k, v in loaded.items()}
    strange = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    if strange:
        raise RunError(f"{path} holds more than weights: {', '.join(strange[:5])}.")
    return tensors


def _like(checkpoint: Mapping[str, object], entry: str) -> list[str]:
    """The other entries that hold as many tensors as `entry`, and nothing else."""
    weights = checkpoint[entry]
    assert isinstance(weights, Mapping)
    return [
        str(name)
        for name, value in checkpoint.items()
        if name != entry
        and isinstance(value, Mapping)
        and len(value) == len(weights) > 0
        and all(isinstance(tensor, Tensor) for tensor in value.values())
    ]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def unwrapped(tensors: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """The tensors without the prefixes that wrappers put before all names, as far as that helps.

    DataParallel adds `module.`, torch.compile `_orig_mod.`, Lightning and other wrappers the name
    of their attribute, one around the other. As many shared prefixes are removed as give the most
    names of the network.

    Args:
        tensors: by the names in the file.
        own: the network's names.
    """
    best = dict(tensors)
    inner = {name.replace("_orig_mod.", ""): value for name, value in tensors.items()}
    while True:
        if len(inner.keys() & own) > len(best.keys() & own):
            best = inner
        prefixes = {name.partition(".")[0] for name in inner}
        if not all("." in name for name in inner) or len(prefixes) > 1:
            return best
        inner = {name.partition(".")[2]: value for name, value in inner.items()}


def fit_weights(network: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Load `tensors` into `network`, all of them, or none; prefixes of wrappers are removed.

    Raises:
        RunError: names or shapes differ; the error lists them, and `network` stays unchanged.
    """
    own = network.state_dict()
    # Checkpoints from before torch 0.4.1 lack batch counts, which only momentum None reads.
    counts = {name: count for name, count in own.items() if name.endswith(COUNT)}
    tensors = {**counts, **unwrapped(tensors, own.keys())}
    missing = [name for name in own if name not in tensors]
    extra = [name for name in tensors if name not in own]
    shapes = [
        f"{name} is {tuple(tensors[name].shape)} there and {tuple(own[name].shape)} here"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    kinds = [
        f"{name} is {tensors[name].dtype}"
        for name in own
        if name in tensors and tensors[name].is_floating_point() != own[name].is_floating_point()
    ]
    wild = [
        f"{name} is not finite"
        for name in own
        if name in tensors and not bool(tensors[name].isfinite().all())
    ]
    faults = []
    for what, names in (
        ("missing", missing),
        ("not known here", extra),
        ("", shapes),
        ("", kinds),
        ("", wild),
    ):
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
            faults.append(f"{what}: {shown}" if what else shown)
    if faults:
        raise RunError(f"The weights {where} do not fit the network: {'; '.join(faults)}.")
    network.load_state_dict(tensors)
