"""Promises about the package as a whole: what it imports, and what it costs to ask for help."""

import ast
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

import denature

ROOT = Path(denature.__file__).parents[1]
PACKAGE = ROOT / "denature"

NOT_NEEDED = (
    *("PIL", "cyclopts", "datasets", "jinja2", "matplotlib", "pandas", "msgspec", "rich"),
    *(
        "accelerate",
        "ray",
        "mlflow",
        "safetensors",
        "scipy",
        "sklearn",
        "tensorboard",
        "tensorboardX",
        "torchvision",
    ),
)

# None in sys.modules is how Python spells "not installed".
BARE = f"import sys; sys.modules.update(dict.fromkeys({NOT_NEEDED!r}))\n"


def python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_training_runs_with_torch_numpy_and_pyarrow_alone(tmp_path: Path) -> None:
    code = BARE + textwrap.dedent(
        """
        import numpy as np
        from denature import answers, core, data, losses, nets, train

        random = np.random.default_rng(0)
        images = random.integers(0, 256, (96, 8, 8, 3), dtype=np.uint8)
        labels = (images[..., 0].mean((1, 2)) > 128).astype(int)
        np.savez(sys.argv[1], x_train=images, y_train=labels, x_test=images, y_test=labels)
        teacher = train.normal("mlp", sys.argv[1], epochs=2)
        nasty = train.nasty("mlp", sys.argv[1], adversary=teacher, epochs=2)
        print(train.distilled("mlp", sys.argv[1], teacher=nasty, epochs=2).accuracy.n)
        """
    )
    assert python(code, str(tmp_path / "data.npz")).strip() == "96"


HEAVY = (
    *("torch", "numpy", "sklearn", "matplotlib", "pyarrow", "msgspec", "scipy"),
    *("aiohttp", "jsonpath", "foolbox", "pyautoattack"),
)


HELPED = [f"{name} --help" for name in ("train", "nasty", "audit", "steal", "serve", "rest")]


@pytest.mark.parametrize("words", ["--help", "--version", *HELPED])
def test_help_imports_nothing_heavy(words: str) -> None:
    """What keeps `denature --help` fast, held without a clock; the benchmark has the time."""
    code = (
        "import sys; from denature.cli.app import main; main(sys.argv[1:]); "
        f"print('HEAVY', [n for n in {HEAVY!r} if n in sys.modules])"
    )
    assert python(code, *words.split()).splitlines()[-1] == "HEAVY []"


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import denature, sys; print([n for n in {HEAVY!r} if n in sys.modules])"
    assert python(code).strip() == "[]"


def test_every_name_that_a_room_lists_is_there() -> None:
    from denature import answers, data, losses, nets, report, robust, train

    for room in (answers, data, losses, nets, report, robust, train):
        missing = [name for name in room.__all__ if not hasattr(room, name)]
        assert not missing, f"{room.__name__} lacks {missing}"
        # A file of the same name would take the place of a function once it is imported.
        hidden = [name for name in room.__all__ if isinstance(getattr(room, name), ModuleType)]
        assert not hidden, f"{room.__name__} has files in the place of {hidden}"


def test_the_layers_of_the_architecture_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def executed(body: Iterable[ast.stmt]) -> Iterator[ast.ImportFrom | ast.Import]:
    """The imports that run at any time, late ones in functions too: all but those for types."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from executed(node.orelse)
        else:
            yield from executed(n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt))
            for handler in getattr(node, "handlers", ()):
                yield from executed(handler.body)


def circle(sources: Mapping[str, str]) -> list[str]:
    """Files, by module, that import each other, at their top or late; empty where there are none.

    A name that a package finds late in a file of its own counts as an import of that file.
    """
    trees = {module: ast.parse(source) for module, source in sources.items()}
    lent = {
        (module, name.asname or name.name): node.module
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{module}.")
        for name in node.names
    }
    graph: dict[str, set[str]] = {}
    for module, tree in trees.items():
        found: set[str] = set()
        for node in executed(tree.body):
            if isinstance(node, ast.Import):
                found |= {name.name for name in node.names}
                continue
            source = node.module or ""
            for name in node.names:
                inner = f"{source}.{name.name}"
                found.add(inner if inner in trees else lent.get((source, name.name)) or source)
        graph[module] = found & trees.keys() - {module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_files_import_each_other() -> None:
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }
    assert len(files) > 100
    assert not circle({module: path.read_text("utf-8") for module, path in files.items()})


def test_a_name_stands_for_one_class() -> None:
    """A reader who meets it in two files need not ask which is meant."""
    bodies = (ast.parse(path.read_text("utf-8")).body for path in PACKAGE.rglob("*.py"))
    names = Counter(
        node.name for body in bodies for node in body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )  # fmt: skip
    assert len(names) > 300
    assert {name for name, count in names.items() if count > 1} == set()


@pytest.mark.parametrize(
    ("other", "wanted"),
    [
        ("from p.a import x", True),
        ("from p import a", True),
        ("import p.a", True),
        ("from p import x", True),
        ("try:\n    from p.a import x\nexcept ImportError:\n    pass", True),
        ("try:\n    import torch\nexcept ImportError:\n    from p.a import x", True),
        ("class C:\n    from p.a import x", True),
        ("def f():\n    from p.a import x", True),
        ("if TYPE_CHECKING:\n    from p.a import x", False),
        ("from p.c import x", False),
    ],
)
def test_circles_are_found(other: str, wanted: bool) -> None:
    package = "if TYPE_CHECKING:\n    from p.a import x\n"
    found = circle({"p": package, "p.a": "from p.b import y", "p.b": other, "p.c": ""})
    assert (set(found) == {"p.a", "p.b"}) == wanted
    assert bool(found) == wanted


def test_the_version_is_in_the_changelog() -> None:
    assert f"## {denature.__version__}" in (ROOT / "CHANGELOG.md").read_text()
