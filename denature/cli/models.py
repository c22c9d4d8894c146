"""Options of the command line for models; see `denature.recipes.models`."""

from typing import Annotated, TypeAlias

from cyclopts import Group, Parameter

from denature.recipes.models import ModelOptions, NetworkOptions, ServedOptions

MODEL = Group("Model", sort_key=1)

NetworkFlags: TypeAlias = Annotated[NetworkOptions, Parameter(name="*", group=MODEL)]
ServedFlags: TypeAlias = Annotated[ServedOptions, Parameter(name="*", group=MODEL)]
ModelFlags: TypeAlias = Annotated[ModelOptions, Parameter(name="*", group=MODEL)]
