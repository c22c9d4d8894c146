"""Weights on disk: written as safetensors, read without executing anything."""

import hashlib
import pickle
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from denature.core.errors import RunError
from denature.core.files import atomic_path
from denature.core.sniffing import is_cut_pickle, is_pickle, is_safetensors, what_else

WEIGHTS = "weights.safetensors"

NESTED = (
    "state_dict", "model_state_dict", "model", "net", "network", "weights", "module", "shadow",
)  # fmt: skip
"""Names under which training scripts put the weights of their checkpoints."""

DEEPEST = 8
"""Entries inside of each other; a checkpoint may even hold itself."""

COUNT = ".num_batches_tracked"

AVERAGED = "n_averaged"
"""What torch's average over a training counts beside its weights."""

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".pkl", ".tar")

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
        OSError: they could not be written, for whatever reason.
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

    A checkpoint is a pickle and is read with `weights_only=True`, so it cannot execute anything;
    one that would need to is refused. The entries that training scripts leave around the weights
    are seen through; what is put before their names, `fit_weights` sees through. A file is known by
    what it holds, whatever its name ends with.

    Args:
        path: the file.
        entry: of several sets of weights the one to take, such as `ema`, or `ema.module` inside.

    Raises:
        RunError: missing, damaged, or no weights.
    """
    loaded = _loaded(path)
    if entry is not None:
        held = [str(key) for key in loaded] if isinstance(loaded, Mapping) else []
        loaded = _at(loaded, entry)
        if not isinstance(loaded, Mapping):
            raise RunError(
                f"{path} has no entry {entry} with weights; it holds {_few(held) or 'none'}."
            )
    loaded = _innermost(loaded, () if entry is None else (entry,), path)
    if not isinstance(loaded, Mapping) or not loaded:
        raise RunError(f"{path} holds no weights, but {type(loaded).__name__}.")
    tensors = {str(k): v for k, v in loaded.items()}
    if strange := [name for name, value in tensors.items() if not isinstance(value, Tensor)]:
        raise RunError(f"{path} holds more than weights: {_few(strange, 5)}.{_hint(loaded, entry)}")
    return tensors


def _loaded(path: Path) -> object:
    """What a file holds, whatever that is.

    Raises:
        RunError: missing, damaged, or no checkpoint.
    """
    if path.is_dir():
        inside = sorted(it.name for it in path.iterdir() if it.suffix in SUFFIXES)
        such = f", such as {_few(inside)}" if inside else ""
        raise RunError(f"{path} is a folder. Name the file with the weights in it{such}.")
    if not path.is_file():
        raise RunError(f"There is no weights file {path}.")
    if (found := what_else(path)) is not None:
        raise RunError(f"{path} {found}. {WANTED}")
    tensors_alone = is_safetensors(path)
    if not tensors_alone and not is_pickle(path):
        raise RunError(f"{path} is no checkpoint that is known here. {WANTED}")
    try:
        if tensors_alone:
            from safetensors.torch import load_file

            return load_file(path)
        # Of a path torch would judge by its suffix; it warns of pickles that it then refuses.
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
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(
            f"{path} cannot be read as weights: {reason.rstrip('.')}. {WANTED}"
        ) from None


def _at(checkpoint: object, entry: str) -> object:
    """What lies under a name, or under one such as `ema.module` inside of another, if anything."""
    if not isinstance(checkpoint, Mapping) or entry in checkpoint:
        return checkpoint.get(entry) if isinstance(checkpoint, Mapping) else None
    heads = (key for key in checkpoint if isinstance(key, str) and entry.startswith(f"{key}."))
    inside = (_at(checkpoint[key], entry.removeprefix(f"{key}.")) for key in heads)
    return next((it for it in inside if it is not None), None)


def _innermost(loaded: object, above: Sequence[str], path: Path) -> object:
    """What training scripts left their entries around.

    Raises:
        RunError: beside it lies another set of weights of the same network.
    """
    names, beside = [*above], list[_Set]()
    while isinstance(loaded, Mapping) and len(names) < DEEPEST:
        inner = next((k for k in NESTED if isinstance(loaded.get(k), Mapping)), None)
        if inner is None:
            break
        beside += _sets({k: v for k, v in loaded.items() if k != inner}, names)
        names.append(inner)
        loaded = loaded[inner]
    chosen, own = ".".join(names), _shapes(loaded.values() if isinstance(loaded, Mapping) else ())
    if others := [it for it in beside if _are_alike(it.shapes, own)]:
        ways = [*[f"--entry {it.name}" for it in others if it.named][:1], f"--entry {chosen}"]
        raise RunError(
            f"{path} holds several sets of weights, {_few([chosen, *(it.name for it in others)])}, "
            "which may differ (one may be an average over the training). Say which with "
            f"{' or '.join(ways)}."
        )
    return loaded


class _Set(NamedTuple):
    """What may be the weights of a network, somewhere in a checkpoint."""

    name: str
    """Of its entry, with those around it before."""
    shapes: Counter[tuple[int, ...]]
    named: bool
    """Whether its tensors have names; a list of them cannot be loaded."""


def _sets(value: object, names: Sequence[str], seen: set[int] | None = None) -> Iterator[_Set]:
    """All tensors that lie together, but those of an optimizer."""
    seen = set() if seen is None else seen
    optimizer = isinstance(value, Mapping) and "param_groups" in value
    if id(value) in seen or optimizer or (names and "optim" in names[-1].lower()):
        return
    seen.add(id(value))
    if isinstance(value, Mapping | list | tuple):
        held = value.values() if isinstance(value, Mapping) else value
        if shapes := _shapes(held):
            yield _Set(".".join(names), shapes, isinstance(value, Mapping))
    if isinstance(value, Mapping) and len(names) < DEEPEST:
        for key, inner in value.items():
            if isinstance(key, str):
                yield from _sets(inner, [*names, key], seen)


def _shapes(values: Iterable[object]) -> Counter[tuple[int, ...]]:
    """How many tensors there are of each shape; only of those with two axes or more.

    Vectors are as long in quite different networks; and names differ by what is put before them,
    or are missing, where shapes do not.
    """
    tensors = (it for it in values if isinstance(it, Tensor) and not it.is_nested)
    return Counter(tuple(it.shape) for it in tensors if it.dim() > 1)


def _are_alike(one: Counter[tuple[int, ...]], other: Counter[tuple[int, ...]]) -> bool:
    """Whether these may be weights of one network: most of the tensors have the same shapes."""
    return 2 * (one & other).total() >= max(one.total(), other.total()) > 0


def _hint(loaded: Mapping[Any, object], entry: str | None) -> str:
    """Where in something that is no weights alone there are some."""
    found = [it.name for it in _sets(loaded, [entry] if entry else []) if it.named]
    found = [name for name in found if name not in ("", entry)]
    ways = " or ".join(f"--entry {name}" for name in found[:3])
    return f" Say with {ways} what is meant." if ways else ""


def _few(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def unwrapped(tensors: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """The tensors without what wrappers put before all of their names, as far as that helps.

    DataParallel leaves `module.`, torch.compile `_orig_mod.`, Lightning and other wrappers what
    their attribute is called, one around the other. Of all prefixes that the names share so many
    are left out that the most names are the network's. The count in torch's averages is left out.

    Args:
        tensors: by the names in the file.
        own: the network's names.
    """
    best = {name: it for name, it in tensors.items() if name != AVERAGED or name in own}
    inner = {name.replace("_orig_mod.", ""): value for name, value in best.items()}
    while True:
        if len(inner.keys() & own) > len(best.keys() & own):
            best = inner
        if not all("." in it for it in inner) or len({it.partition(".")[0] for it in inner}) > 1:
            return best
        inner = {name.partition(".")[2]: value for name, value in inner.items()}


def fit_weights(network: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Load `tensors` into `network`, all of them, or none; wrappers' prefixes are left out.

    Raises:
        RunError: names or shapes differ; says which and how many, and changes nothing.
    """
    own = network.state_dict()
    # Checkpoints from before torch 0.4.1 have no counts of batches, which only momentum None reads.
    counts = {name: count for name, count in own.items() if name.endswith(COUNT)}
    tensors = {**counts, **unwrapped(tensors, own.keys())}
    if faults := _faults(own, tensors):
        raise RunError(f"The weights {where} do not fit the network: {'; '.join(faults)}.")
    network.load_state_dict(tensors)


def _faults(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """Why tensors cannot be taken for a network's own; a kind of fault a line."""
    known = {name: it for name, it in tensors.items() if name in own}
    odd = {name: what for name, it in known.items() if (what := _oddness(it)) is not None}
    plain = {name: it for name, it in known.items() if name not in odd}
    shapes = [
        f"{name} is {tuple(it.shape)} there and {tuple(own[name].shape)} here"
        for name, it in plain.items()
        if it.shape != own[name].shape
    ]
    kinds = [
        f"{name} is {it.dtype}"
        for name, it in plain.items()
        if it.is_floating_point() != own[name].is_floating_point()
    ]
    wild = [
        f"{name} is not finite"
        for name, it in plain.items()
        if it.is_floating_point() and not bool(it.isfinite().all())
    ]
    advice = "wanted are plain tensors, best of float32"
    found = (
        ("missing: ", [name for name in own if name not in tensors]),
        ("not known here: ", [name for name in tensors if name not in own]),
        ("", shapes),
        ("", kinds),
        ("", wild),
        (f"{advice}: ", [f"{name} {what}" for name, what in odd.items()]),
    )
    return [what + _few(names, 3) for what, names in found if names]


def _oddness(tensor: Tensor) -> str | None:
    """Why a tensor's numbers cannot be looked at, or mean something only with more beside them."""
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
