"""Every defense by its name; this module imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import fields

from denature.core.errors import ConfigError, unknown
from denature.core.schema import decode
from denature.core.untrusted import parse_json
from denature.defenses.adaptive_misinformation import AdaptiveMisinformation
from denature.defenses.base import Chain, Defense
from denature.defenses.dirichlet_noise import DirichletNoise
from denature.defenses.gaussian_noise import GaussianNoise
from denature.defenses.gradient_redirection import GradientRedirection
from denature.defenses.label_only import LabelOnly
from denature.defenses.mad import MAD
from denature.defenses.modelguard_s import ModelGuardS
from denature.defenses.modelguard_w import ModelGuardW
from denature.defenses.reverse_sigmoid import ReverseSigmoid
from denature.defenses.rounding import Rounding
from denature.defenses.sparse_logits import SparseLogits
from denature.defenses.temperature import Temperature
from denature.defenses.top_k import TopK

DEFENSES: dict[str, type[Defense]] = {
    defense.name: defense
    for defense in (
        LabelOnly,
        TopK,
        Rounding,
        Temperature,
        SparseLogits,
        GaussianNoise,
        DirichletNoise,
        ReverseSigmoid,
        AdaptiveMisinformation,
        MAD,
        GradientRedirection,
        ModelGuardW,
        ModelGuardS,
    )
}


def defense_of(name: str, options: Mapping[str, str]) -> Defense:
    """The defense called `name`, with options such as `{"temperature": "4"}`.

    Raises:
        ConfigError: the name or an option is unknown, or a value cannot be read.
    """
    if name not in DEFENSES:
        raise unknown("defense", name, DEFENSES)
    known = [field.name for field in fields(DEFENSES[name])]
    for key in options:
        if key not in known:
            has = ", ".join(known) or "none"
            raise ConfigError(f"The defense {name} has no option {key!r}; known: {has}.")
    return decode(
        DEFENSES[name],
        {key: _number(text) for key, text in options.items()},
        where=f"The defense {name}",
    )


def _number(text: str) -> object:
    try:
        return parse_json(text)
    except ValueError:
        return text


def chain_of(text: str) -> Chain:
    """The chain that `NAME@option=value+option=value+NAME` spells; `none` is the empty one.

    Raises:
        ConfigError: a name or an option is unknown, or a value cannot be read.
    """
    if text == "none":
        return Chain()
    steps: list[tuple[str, dict[str, str]]] = []
    for part in text.split("+"):
        name, at, option = part.partition("@")
        if not at and steps and "=" in part:
            option = part
        else:
            steps.append((name, {}))
        if not option and not at:
            continue
        key, equals, value = option.partition("=")
        if not key or not equals or not value or key in steps[-1][1]:
            raise ConfigError(
                f"The defense {text!r} cannot be read; wanted is NAME, or NAME@option=value, with "
                "further options and defenses after a +, such as rounding@decimals=1+label-only."
            )
        steps[-1][1][key] = value
    return Chain(tuple(defense_of(name, options) for name, options in steps))
