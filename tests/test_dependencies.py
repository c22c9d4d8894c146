"""Floors of the dependencies: above known holes, at or below the pins, and the same everywhere."""

import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def floors() -> dict[NormalizedName, set[Version]]:
    """All floors of each package, in the dependencies and in the extras."""
    extras = PROJECT["optional-dependencies"].values()
    found: dict[NormalizedName, set[Version]] = defaultdict(set)
    for text in [*PROJECT["dependencies"], *(text for extra in extras for text in extra)]:
        requirement = Requirement(text)
        [bound] = requirement.specifier
        assert bound.operator == ">="
        found[canonicalize_name(requirement.name)].add(Version(bound.version))
    return found


FLOORS = floors()

PINS = {
    canonicalize_name(name): Version(version)
    for name, version in re.findall(
        r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE
    )
}

SAFE = dict(
    re.findall(
        r"^\| ([\w-]+) \| ([\d.]+) \|", (ROOT / "docs" / "dependencies.md").read_text("utf-8"), re.M
    )
)
"""By package the first release above the known holes, as the page says."""


def test_the_page_has_a_row_for_each_hole() -> None:
    assert len(SAFE) == 17
    assert SAFE.keys() <= FLOORS.keys()


@pytest.mark.parametrize("package", SAFE)
def test_a_floor_lies_above_known_holes(package: str) -> None:
    assert FLOORS[canonicalize_name(package)] == {Version(SAFE[package])}


@pytest.mark.parametrize("package", FLOORS)
def test_a_package_has_one_floor_and_its_pin_satisfies_it(package: NormalizedName) -> None:
    [floor] = FLOORS[package]
    assert package not in PINS or PINS[package] >= floor
