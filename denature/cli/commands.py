"""The catalogue of commands: where each is, what it does, and two examples of it."""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import NamedTuple


class Command(NamedTuple):
    """One command of the command line."""

    home: str
    """Module under denature.cli, and the function or app in it; imported when it is called."""
    help: str
    examples: tuple[str, ...]
    """Command lines without `denature`."""


GROUPS: Mapping[str, Mapping[str, Command]] = {
    "Audit and steal": {
        "audit": Command(
            "audit:audit",
            "Audit a model: what the worst thief gets of it at each budget, behind each defense.",
            (
                "audit runs/demo/seed-0/teacher-normal --data digits",
                "audit http://127.0.0.1:8000 --data data/cifar10 --max-queries 20000 --estimate",
            ),
        ),
        "steal": Command(
            "stealing:steal",
            "Query a served model within a budget, and train clones on its answers.",
            (
                "steal http://127.0.0.1:8000 --pool digits --budget 100,500 --student mlp",
                "steal api.toml --pool data/pool --test data/cifar10 --budget 5000 --student cnn",
            ),
        ),
        "rest": Command(
            "rest:app",
            "Try the description of an HTTP API on one image.",
            ("rest try api.toml cat.jpg", "rest try api.toml cat.jpg --json"),
        ),
        "ledger": Command(
            "stealing:ledger",
            "List the queries of a theft, and their cost.",
            ("ledger runs/theft", "ledger runs/theft/ledger.sqlite --json"),
        ),
        "speed": Command(
            "stealing:speed",
            "Time a clone or any other model, and the service that it copies, with its price.",
            (
                "speed runs/theft/clones/500-random-0 --against http://127.0.0.1:8000",
                "speed model.pt --net resnet18 --against rekognition --queries 60",
            ),
        ),
    },
    "Train": {
        "train": Command(
            "training:train",
            "Train a network on the true labels.",
            (
                "train cnn --data digits --epochs 10 --out runs/teacher",
                "train resnet18 --data data/cifar10 --lr 0.1,0.05 --seed 0,1,2 --out runs/sweep",
            ),
        ),
        "distill": Command(
            "training:distill",
            "Train a student on a teacher's answers.",
            (
                "distill mlp --data digits --teacher runs/teacher --temperature 20 --alpha 0.9",
                "distill mlp --data digits --teacher runs/nasty --answers labels",
            ),
        ),
        "skeptical": Command(
            "training:skeptical",
            "Train a student that distils through auxiliary heads: an attack on nasty teachers.",
            (
                "skeptical mlp --data digits --teacher runs/nasty --temperature 20",
                "skeptical cnn --data digits --teacher runs/nasty --epochs 20",
            ),
        ),
        "dafl": Command(
            "training:dafl",
            "Train a student from a teacher's weights, without data (DAFL).",
            (
                "dafl mlp --data digits --teacher runs/teacher --epochs 60",
                "dafl mlp --data digits --teacher runs/nasty --epochs 60 --out runs/dataless",
            ),
        ),
        "import": Command(
            "inspect:import_weights",
            "Make a run from your own weights.",
            (
                "import resnet18 --weights model.pt --out runs/model",
                "import cnn --weights model.safetensors --mean 0.5 --std 0.25 --out runs/model",
            ),
        ),
    },
    "Defend": {
        "nasty": Command(
            "training:nasty",
            "Train a nasty teacher: accurate itself, harmful to students that imitate it.",
            (
                "nasty cnn --data digits --adversary runs/teacher --temperature 20 --omega 0.1",
                "nasty cnn --data digits --adversary runs/teacher --init runs/teacher",
            ),
        ),
        "harden": Command(
            "hardening:harden",
            "Train with defensive distillation, label smoothing or adversarial training.",
            (
                "harden mlp --data digits --temperature 20 --out runs/hardened",
                "harden cnn --data digits --method adversarial --out runs/adversarial",
            ),
        ),
    },
    "Measure": {
        "eval": Command(
            "inspect:evaluate",
            "Measure a model's accuracy on the test split of a data set.",
            (
                "eval runs/teacher --data digits",
                "eval model.pt --net resnet18 --data data/cifar10",
            ),
        ),
        "robustness": Command(
            "robustness:robustness",
            "Evaluate adversarial robustness and detect gradient masking.",
            (
                "robustness runs/hardened/student --data digits --effort quick",
                "robustness runs/a runs/b --data data/cifar10 --linf 8/255 --samples 200",
            ),
        ),
        "flatness": Command(
            "robustness:flatness",
            "Measure the flatness of minima, and the sensitivity of answers to the image.",
            (
                "flatness runs/teacher runs/nasty --data digits",
                "flatness runs/teacher --data digits --samples 100 --directions 3",
            ),
        ),
        "predict": Command(
            "inspect:predict",
            "Print the most probable classes of image files.",
            (
                "predict runs/teacher digit.png",
                "predict hf:owner/name cat.jpg dog.jpg --resize --top 5",
            ),
        ),
        "mark": Command(
            "annotate:mark",
            "Draw the landmarks that models find into pictures.",
            (
                "mark faces/ --detector runs/faces --out runs/marked",
                "mark face.jpg --detector runs/faces --detector rekognition --out runs/marked",
            ),
        ),
        "invert": Command(
            "inversion:invert",
            "Reconstruct images from a network's weights (DeepInversion).",
            (
                "invert runs/teacher --images 20 --steps 500",
                "invert runs/teacher --judge runs/nasty --out runs/inverted",
            ),
        ),
    },
    "Serve": {
        "serve": Command(
            "serving:serve",
            "Serve models over the Open Inference Protocol, behind keys, budgets and defenses.",
            (
                "serve runs/teacher --keys runs/keys.sqlite --defense rounding@decimals=1",
                "serve --upstream http://127.0.0.1:9000 --show label",
            ),
        ),
        "keys": Command(
            "serving:keys",
            "Manage the keys of a server, with their budgets and rates.",
            (
                "keys runs/keys.sqlite --add alice --budget 1000 --rate 50",
                "keys runs/keys.sqlite",
            ),
        ),
        "export": Command(
            "serving:export",
            "Write a network as ONNX or as torch's exported program.",
            (
                "export runs/teacher",
                "export runs/teacher --format pt2 --out network.pt2",
            ),
        ),
        "push": Command(
            "hub:push",
            "Push a run to the Hugging Face hub, with a model card.",
            (
                "push runs/nasty hf:owner/name --dry-run",
                "push runs/nasty hf:owner/name --license apache-2.0 --public",
            ),
        ),
        "pull": Command(
            "hub:pull",
            "Fetch a run that was pushed to the Hugging Face hub.",
            ("pull hf:owner/name", "pull hf:owner/name --revision main --out runs/theirs"),
        ),
    },
    "Inspect": {
        "report": Command(
            "inspect:report",
            "Write one HTML report of any runs, or draw an experiment's again.",
            (
                "report runs/teacher runs/nasty runs/student",
                "report runs/demo --markdown",
            ),
        ),
        "runs": Command(
            "storage:runs",
            "List and compare runs; remove unfinished runs and snapshots.",
            ("runs runs", "runs runs/alphas --compare"),
        ),
        "answers": Command(
            "storage:answers",
            "List, verify and remove stored answers; fill a store ahead of training.",
            ("answers --verify", "answers --fill runs/teacher --data digits"),
        ),
        "data": Command(
            "inspect:data",
            "Describe a data set, and decode it into the cache.",
            ("data digits", "data data/cifar10 --json"),
        ),
        "nets": Command(
            "inspect:nets",
            "List the catalogue of networks with their parameter counts.",
            ("nets", "nets --json"),
        ),
    },
    "Reproduce": {
        "demo": Command(
            "demo:demo",
            "Compare the students of a normal and of a nasty teacher, on real digits.",
            ("demo", "demo --seeds 1 --out runs/small-demo"),
        ),
        "reproduce": Command(
            "reproduce:app",
            "Reproduce experiments: nasty teachers, defensive distillation, a stolen detector.",
            (
                "reproduce",
                "reproduce cifar10-table --scale cpu",
            ),
        ),
        "run": Command(
            "upstream:run",
            "Run experiment folders of the official repository as they are.",
            (
                "run experiments/teacher --data-root data",
                "run experiments --epochs 20",
            ),
        ),
    },
}
"""Every command by the group under which `denature --help` lists it."""

SUBCOMMANDS: Mapping[str, tuple[str, ...]] = {
    "rest try": ("rest try api.toml cat.jpg", "rest try api.toml cat.jpg --json"),
    "reproduce nose": (
        "reproduce nose --data data/faces --scale smoke",
        "reproduce nose --pictures harvest/faces --labels harvest/answers.json",
    ),
}
"""Examples of commands below these, by their names."""


def epilogue(examples: Sequence[str]) -> str:
    """The end of a command's help, in Markdown; long examples go on in lines of the shell."""
    lines = [
        wrap(f"denature {example}", 70, break_long_words=False, break_on_hyphens=False)
        for example in examples
    ]
    text = "\n".join("    " + " \\\n        ".join(parts) for parts in lines)
    return f"Examples:\n\n```\n{text}\n```"


COMMANDS: Mapping[str, Command] = {
    name: command for group in GROUPS.values() for name, command in group.items()
}
