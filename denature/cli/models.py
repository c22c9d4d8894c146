"""Options of the command line for models; see `denature.recipes.models`."""

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from cyclopts import Group, Parameter

from denature.recipes.models import ModelOptions, NetworkOptions, ServedOptions

MODEL = Group("Model", sort_key=1)


@dataclass(frozen=True, kw_only=True)
class ModelArguments(ModelOptions):
    """The same, with another name of one option."""

    model: Annotated[str | None, Parameter(name=("--model", "--service-model"))] = None
    """Name of the server's model; by default the only model."""


NetworkFlags: TypeAlias = Annotated[NetworkOptions, Parameter(name="*", group=MODEL)]
ServedFlags: TypeAlias = Annotated[ServedOptions, Parameter(name="*", group=MODEL)]
ModelFlags: TypeAlias = Annotated[ModelArguments, Parameter(name="*", group=MODEL)]
