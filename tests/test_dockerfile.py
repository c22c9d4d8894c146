"""The Dockerfile beside what it names: files, extras, a base of one version, a user, a command."""

import json
import re
import tomllib
from pathlib import Path
from pkgutil import resolve_name

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def steps() -> list[tuple[str, str]]:
    """Instructions with their arguments; comments are left out, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    text = re.sub(r"\\\n\s*", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in text.splitlines())]


def arguments(instruction: str) -> list[str]:
    return [rest for word, rest in steps() if word == instruction]


def test_all_that_is_copied_exists_and_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").split()
    sources = [source for rest in arguments("COPY") for source in rest.split()[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source not in ignored


def test_the_extras_that_are_installed_exist() -> None:
    [install] = [rest for rest in arguments("RUN") if "pip install" in rest]
    [extras] = re.findall(r"\.\[([\w,-]+)\]", install)
    assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()


def test_the_base_image_has_one_version_of_python_that_the_package_allows() -> None:
    [base] = arguments("FROM")
    version = re.fullmatch(r"python:(\d+\.\d+(?:\.\d+)?)(-[\w.]+)?(@sha256:[0-9a-f]{64})?", base)
    assert version is not None, base
    assert version[1] in SpecifierSet(PROJECT["requires-python"])


def test_the_command_runs_as_a_user_without_rights_and_is_that_of_the_package() -> None:
    instructions = [word for word, _ in steps()]
    assert arguments("USER")[-1].split(":")[0] not in ("root", "0")
    assert "RUN" not in instructions[instructions.index("USER") :]
    [command] = arguments("ENTRYPOINT")
    [name] = json.loads(command)
    assert callable(resolve_name(PROJECT["scripts"][name]))
