"""Every experiment that `denature reproduce` knows, by name: one line for each.

The class of an experiment is imported when the experiment is chosen: a list needs no torch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from denature.core.errors import ConfigError, unknown
from denature.recipes.experiment import Experiment, Request
from denature.recipes.nose.config import NoseOptions
from denature.recipes.paper.catalogue import DESIGNS
from denature.recipes.paper.config import PaperOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """An entry of the catalogue."""

    about: str
    home: str
    """`module:class` in `denature.recipes`; the class has `of(request, out)`, and options of its
    own as a third argument, if it has any."""
    options: type[Any] | None = None
    """A dataclass of further options."""
    out: Path | None = None
    """Default folder; runs/NAME where None."""


EXPERIMENTS: Mapping[str, Listed] = {
    **{
        name: Listed(
            about=design.about,
            home="paper.experiment:PaperExperiment",
            options=PaperOptions,
            out=Path("runs/paper"),
        )
        for name, design in DESIGNS.items()
    },
    "nose": Listed(
        about="A face service's nose detector, cloned from its answers.",
        home="nose.experiment:Nose",
        options=NoseOptions,
    ),
    "defensive-distillation": Listed(
        about="Robustness of distilled networks at temperatures from 1 to 100.",
        home="defensive:DefensiveDistillation",
    ),
    "flatness": Listed(
        about="Whether networks in flatter minima are more robust.",
        home="flat_minima:FlatMinima",
    ),
    "robustness-and-extraction": Listed(
        about="Robustness and clones of nasty and hardened networks.",
        home="robustness_and_extraction:RobustnessAndExtraction",
    ),
}


def names_of(selected: Iterable[str]) -> list[str]:
    """Names of experiments without repeats; `all` stands for those of the Nasty Teacher paper.

    Raises:
        ConfigError: no experiment has this name.
    """
    names: list[str] = []
    for name in selected:
        if name != "all" and name not in EXPERIMENTS:
            raise unknown("experiment", name, {*EXPERIMENTS, "all"})
        names += DESIGNS if name == "all" else [name]
    return list(dict.fromkeys(names))


def experiment(
    request: Request, out: Path | None = None, options: object | None = None
) -> Experiment:
    """An experiment, ready to run.

    Args:
        request: name, scale, seeds, data and device.
        out: folder for runs and results; the entry's by default.
        options: the experiment's own options; their defaults where None.

    Raises:
        ConfigError: options that the experiment does not take, or no such scale.
    """
    listed = EXPERIMENTS[request.name]
    if options is not None and type(options) is not listed.options:
        taken = (
            "none of its own" if listed.options is None else f"those of {listed.options.__name__}"
        )
        raise ConfigError(
            f"{request.name} was given {type(options).__name__}; it takes {taken}. Leave them out."
        )
    given = [] if listed.options is None else [options or listed.options()]
    module, _, kind = listed.home.partition(":")
    own = getattr(import_module(f"denature.recipes.{module}"), kind)
    made: Experiment = own.of(request, out or listed.out or Path("runs") / request.name, *given)
    return made
