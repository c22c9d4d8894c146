"""Weights on disk: written as safetensors, read without executing anything."""

import pickle
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from denature.core.checkpoints import check_checkpoint, check_total
from denature.core.errors import RunError, brief
from denature.core.names import WEIGHT_SUFFIXES
from denature.core.sealed import content_digest, read_tensors, write_tensors
from denature.core.sniffing import is_cut_pickle, is_pickle, is_safetensors, what_else
from denature.core.text import line_of

WEIGHTS = "weights.safetensors"

NESTED = (
    "state_dict", "model_state_dict", "model", "net", "network", "weights", "module", "shadow",
)  # fmt: skip
"""Names under which training scripts put the weights of their checkpoints."""

DEEPEST = 8
"""Nesting depth of entries at most, since a checkpoint may contain itself."""

COUNT = ".num_batches_tracked"

AVERAGED = "n_averaged"
"""Step count that `torch.optim.swa_utils.AveragedModel` stores beside the weights."""

WANTED = "Wanted is a .safetensors file, or a torch checkpoint that loads with weights_only=True."


def digest(network: nn.Module) -> str:
    """sha256 over names, types, shapes and values of the weights, first 16 hex digits."""
    return content_digest(network.state_dict())[:16]


def save_weights(folder: Path, network: nn.Module) -> None:
    """Write the weights atomically.

    Raises:
        OSError: the weights could not be written, for any reason.
    """
    write_tensors(folder / WEIGHTS, network.state_dict(), {"format": "pt"})


def read_weights(path: Path, entry: str | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a checkpoint that torch saved.

    A checkpoint is a pickle and is read with `weights_only=True`, so reading executes no code; a
    file that needs code is refused. This function unwraps the entries that training scripts put
    around the weights; `fit_weights` removes prefixes of names. The content decides the format,
    whatever the suffix.

    Args:
        path: the file.
        entry: the set of weights to take where there are several, such as `ema`, or a nested one
            such as `ema.module`.

    Raises:
        RunError: the file is missing, damaged, or holds no weights.
    """
    loaded = _loaded(path)
    if entry is not None:
        held = [str(key) for key in loaded] if isinstance(loaded, Mapping) else []
        loaded = _at(loaded, entry)
        if not isinstance(loaded, Mapping):
            raise RunError(
                f"{path} has no entry {entry} with weights; it holds {brief(held, 8) or 'none'}."
            )
    loaded = _innermost(loaded, () if entry is None else (entry,), path)
    if not isinstance(loaded, Mapping) or not loaded:
        raise RunError(f"{path} holds no weights, but {type(loaded).__name__}.")
    tensors = {str(k): v for k, v in loaded.items()}
    if strange := [name for name, value in tensors.items() if not isinstance(value, Tensor)]:
        raise RunError(f"{path} holds more than weights: {brief(strange)}.{_hint(loaded, entry)}")
    check_total(path, sum(_nbytes(tensor) for tensor in tensors.values()))
    return tensors


def _nbytes(tensor: Tensor) -> int:
    """Bytes of a tensor's values, repeated ones included; 0 for tensors that `_faults` refuses."""
    return 0 if _unsupported(tensor) is not None else tensor.numel() * tensor.itemsize


def check_there(path: Path) -> None:
    if not path.is_file():
        raise RunError(f"There is no weights file {path}.")


def _loaded(path: Path) -> object:
    """The content of a weights file, of any type.

    Raises:
        RunError: the file is missing, damaged, or no checkpoint.
    """
    if path.is_dir():
        inside = sorted(file.name for file in path.iterdir() if file.suffix in WEIGHT_SUFFIXES)
        such = f", such as {brief(inside, 8)}" if inside else ""
        raise RunError(f"{path} is a folder. Name the file with the weights in it{such}.")
    check_there(path)
    if (found := what_else(path)) is not None:
        raise RunError(f"{path} {found}. {WANTED}")
    tensors_alone = is_safetensors(path)
    if not tensors_alone and not is_pickle(path):
        raise RunError(f"{path} is no checkpoint of a known format. {WANTED}")
    try:
        if tensors_alone:
            return read_tensors(path)[0]
        check_checkpoint(path)
        # Given a path torch would judge by the suffix; torch warns of pickles before refusing.
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
            return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError) as error:
        if isinstance(error, EOFError) or is_cut_pickle(path):
            raise RunError(f"{path} is cut off or damaged. Download it again. {WANTED}") from None
        raise RunError(
            f"{path} is a pickle of more than tensors and plain values, and reading it could "
            "execute code; refused. Save its state_dict() alone, best as .safetensors."
        ) from None
    except Exception as error:  # both libraries raise many kinds for a damaged file
        raise RunError(f"{path} cannot be read as weights: {line_of(error)}. {WANTED}") from None


def _at(checkpoint: object, entry: str) -> object:
    """The value of an entry, or of a nested one such as `ema.module`; None where there is none."""
    if not isinstance(checkpoint, Mapping) or entry in checkpoint:
        return checkpoint.get(entry) if isinstance(checkpoint, Mapping) else None
    heads = (key for key in checkpoint if isinstance(key, str) and entry.startswith(f"{key}."))
    inside = (_at(checkpoint[key], entry.removeprefix(f"{key}.")) for key in heads)
    return next((value for value in inside if value is not None), None)


def _innermost(loaded: object, above: Sequence[str], path: Path) -> object:
    """The weights inside the entries that training scripts put around them.

    Raises:
        RunError: the file contains another set of weights of the same network.
    """
    names, beside = [*above], list[_TensorSet]()
    while isinstance(loaded, Mapping) and len(names) < DEEPEST:
        inner = next((k for k in NESTED if isinstance(loaded.get(k), Mapping)), None)
        if inner is None:
            break
        beside += _sets({k: v for k, v in loaded.items() if k != inner}, names)
        names.append(inner)
        loaded = loaded[inner]
    chosen, own = ".".join(names), _shapes(loaded.values() if isinstance(loaded, Mapping) else ())
    if others := [found for found in beside if _are_alike(found.shapes, own)]:
        names = [chosen, *(found.name for found in others)]
        loadable = [found.name for found in others if found.named]
        flags = " or ".join(f"--entry {name}" for name in [*loadable[:1], chosen])
        raise RunError(
            f"{path} holds several sets of weights, {brief(names, 8)}, which may differ (one may "
            f"be an average over the training). Say which with {flags}."
        )
    return loaded


class _TensorSet(NamedTuple):
    """Tensors of a checkpoint that lie together and may be the weights of a network."""

    name: str
    """Path of the entry, joined with dots."""
    shapes: Counter[tuple[int, ...]]
    named: bool
    """Whether the tensors have names; a list of tensors cannot be loaded."""


def _sets(
    value: object, names: Sequence[str], seen: set[int] | None = None
) -> Iterator[_TensorSet]:
    """All sets of tensors that lie together, without those of an optimizer."""
    seen = set() if seen is None else seen
    optimizer = isinstance(value, Mapping) and "param_groups" in value
    if id(value) in seen or optimizer or (names and "optim" in names[-1].lower()):
        return
    seen.add(id(value))
    if isinstance(value, Mapping | list | tuple):
        held = value.values() if isinstance(value, Mapping) else value
        if shapes := _shapes(held):
            yield _TensorSet(".".join(names), shapes, isinstance(value, Mapping))
    if isinstance(value, Mapping) and len(names) < DEEPEST:
        for key, inner in value.items():
            if isinstance(key, str):
                yield from _sets(inner, [*names, key], seen)


def _shapes(values: Iterable[object]) -> Counter[tuple[int, ...]]:
    """Counts of the tensors of each shape, for tensors of two dimensions or more.

    Vectors have the same length in quite different networks. Names may have prefixes or be missing
    where the shapes agree.
    """
    tensors = (value for value in values if isinstance(value, Tensor) and not value.is_nested)
    return Counter(tuple(tensor.shape) for tensor in tensors if tensor.dim() > 1)


def _are_alike(shapes: Counter[tuple[int, ...]], others: Counter[tuple[int, ...]]) -> bool:
    """Whether two sets may be weights of one network: most of the tensors have the same shapes."""
    return 2 * (shapes & others).total() >= max(shapes.total(), others.total()) > 0


def _hint(loaded: Mapping[Any, object], entry: str | None) -> str:
    """Entries to name where a checkpoint contains weights beside other values."""
    sets = _sets(loaded, [entry] if entry else [])
    names = [found.name for found in sets if found.named and found.name not in ("", entry)]
    flags = " or ".join(f"--entry {name}" for name in names[:3])
    return f" Choose the weights with {flags}." if flags else ""


def unwrapped(tensors: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """The tensors without the prefixes that wrappers put before all names, as far as that helps.

    DataParallel adds `module.`, torch.compile `_orig_mod.`, Lightning and other wrappers the name
    of their attribute, one around the other. As many shared prefixes are removed as give the most
    names of the network. The step count of torch's averaged models is removed too.

    Args:
        tensors: by the names in the file.
        own: the network's names.
    """
    best = {name: value for name, value in tensors.items() if name != AVERAGED or name in own}
    inner = {name.replace("_orig_mod.", ""): value for name, value in best.items()}
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
    check_weights(own, tensors, where=where)
    network.load_state_dict({**counts, **unwrapped(tensors, own.keys())})


def check_weights(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Check that tensors fit a network, whose own may be on the device meta.

    Raises:
        RunError: see `fit_weights`.
    """
    tensors = unwrapped(tensors, own.keys())
    wanted = {name: t for name, t in own.items() if name in tensors or not name.endswith(COUNT)}
    if faults := _faults(wanted, tensors):
        raise RunError(f"The weights {where} do not fit the network: {'; '.join(faults)}.")


def _faults(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """Reasons why tensors do not fit a network, one text for each kind of fault."""
    known = {name: tensor for name, tensor in tensors.items() if name in own}
    odd = {
        name: reason
        for name, tensor in known.items()
        if (reason := _unsupported(tensor)) is not None
    }
    plain = {name: tensor for name, tensor in known.items() if name not in odd}
    shapes = [
        f"{name} is {tuple(tensor.shape)} there and {tuple(own[name].shape)} here"
        for name, tensor in plain.items()
        if tensor.shape != own[name].shape
    ]
    kinds = [
        f"{name} is {tensor.dtype}"
        for name, tensor in plain.items()
        if tensor.is_floating_point() != own[name].is_floating_point()
    ]
    wild = [
        f"{name} is not finite"
        for name, tensor in plain.items()
        if tensor.is_floating_point()
        and tensor.shape == own[name].shape
        and not bool(tensor.isfinite().all())
    ]
    advice = "wanted are plain tensors, best of float32"
    faults = (
        ("missing: ", [name for name in own if name not in tensors]),
        ("not known here: ", [name for name in tensors if name not in own]),
        ("", shapes),
        ("", kinds),
        ("", wild),
        (f"{advice}: ", [f"{name} {reason}" for name, reason in odd.items()]),
    )
    return [prefix + brief(names, 3) for prefix, names in faults if names]


def _unsupported(tensor: Tensor) -> str | None:
    """Reason why the values of a tensor cannot be read as plain numbers; None where they can."""
    if tensor.is_nested:
        return "is nested"
    if tensor.is_quantized:
        return "is quantized"
    if tensor.layout != torch.strided:
        return "is sparse"
    if tensor.is_meta:
        return "is on the device meta, so without values"
    if tensor.is_complex() or (tensor.is_floating_point() and tensor.itemsize < 2):
        return f"is of {str(tensor.dtype).removeprefix('torch.')}"
    return None
