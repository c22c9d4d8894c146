"""Promises about the package as a whole: what it imports, and what it costs to ask for help."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import denature

ROOT = Path(denature.__file__).parents[1]

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


def test_the_training_rooms_import_with_torch_numpy_and_pyarrow_alone() -> None:
    python(BARE + "from denature import answers, core, data, losses, nets, train; train.normal")


def test_training_runs_where_nothing_else_is_installed(tmp_path: Path) -> None:
    code = BARE + textwrap.dedent(
        """
        import numpy as np
        from denature import train

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


HEAVY = ("torch", "numpy", "sklearn", "matplotlib", "pyarrow", "msgspec", "scipy")


@pytest.mark.parametrize("words", ["--help", "--version", "train --help", "nasty --help"])
def test_help_imports_nothing_heavy(words: str) -> None:
    """What keeps `denature --help` fast, held without a clock; the benchmark has the time."""
    code = (
        "import sys; from denature.cli.app import main; main(sys.argv[1:]); "
        f"print('HEAVY', [n for n in {HEAVY!r} if n in sys.modules])"
    )
    assert python(code, *words.split()).splitlines()[-1] == "HEAVY []"


def test_importing_the_package_imports_no_torch() -> None:
    assert python("import denature, sys; print('torch' in sys.modules)").strip() == "False"


def test_every_name_that_a_room_lists_is_there() -> None:
    from denature import answers, data, losses, nets, report, train

    for room in (answers, data, losses, nets, report, train):
        missing = [name for name in room.__all__ if not hasattr(room, name)]
        assert not missing, f"{room.__name__} lacks {missing}"


def test_the_layers_of_the_architecture_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_version_is_in_the_changelog() -> None:
    assert f"## {denature.__version__}" in (ROOT / "CHANGELOG.md").read_text()
