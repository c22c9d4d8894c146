"""Tables on standard output in the formats of other programs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeAlias

from cyclopts import Parameter

from denature.cli.options import OUTPUT
from denature.cli.terminal import print
from denature.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Format of a table that another program reads."""

    csv: Annotated[bool, Parameter(negative="")] = False
    """Print the main table as comma-separated values and nothing else: each number and each end of
    an interval in a column of its own."""
    latex: Annotated[bool, Parameter(negative="")] = False
    """Print the tables for LaTeX (booktabs) and nothing else."""

    def print(self, tables: Sequence[Sequence[Sequence[str]]]) -> bool:
        """Print tables where a format was asked for; returns whether one was.

        Raises:
            ConfigError: two formats were asked for, or there is no table.
        """
        from denature.report.tables import csv, latex

        if not self.csv and not self.latex:
            return False
        if self.csv and self.latex:
            raise ConfigError("--csv and --latex were both given; pass one of them.")
        if not tables:
            raise ConfigError("There is no table here to print.")
        print(csv(tables[0]) if self.csv else "\n\n".join(map(latex, tables)))
        return True


TableFlags: TypeAlias = Annotated[TableOptions, Parameter(name="*", group=OUTPUT)]
