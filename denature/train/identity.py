"""Identity of a run: its config, data and inputs, and the revisions of code that moves numbers."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from denature.core.names import anywhere
from denature.core.record import Record

REPEATED = ("seed", "view_seed", "evaluate_every")
"""Training fields in which repeats of one experiment may differ."""

Plan: TypeAlias = dict[str, Any]
"""net, data, objective, training, asking, inputs, revisions and processes, as plain values."""


def plan_id(plan: Plan) -> str:
    """The identity of a run: the first 16 hex digits of its plan's sha256."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]


def recipe_id(plan: Plan, recipes: Mapping[str, str], *, outline: str | None = None) -> str:
    """The identity of a plan without its seeds, and with its inputs' `recipes` for their digests.

    Runs of one recipe are repeats of one experiment. Two students of teachers with different
    recipes are not, even where the students' own settings are equal.

    Args:
        plan: of a run.
        recipes: of its inputs, by role.
        outline: what tells the network from others of its name, where its code is the user's own.
    """
    training = {k: v for k, v in plan["training"].items() if k not in REPEATED}
    net = {k: v for k, v in plan["net"].items() if k != "initial"}
    net |= {} if outline is None else {"outline": outline}
    return plan_id({**plan, "training": training, "net": net, "inputs": dict(recipes)})


def plan_of(record: Record) -> Plan:
    """The plan of the run with this record."""
    net = record.net
    return make_plan(
        net={
            # A record names a model's folder from the working directory on, its identity whole.
            "name": anywhere(net.name) if record.kind == "imported" else net.name,
            "shape": list(net.shape),
            "initial": net.initial,
        },
        data="" if record.data is None else record.data.split_digest,
        config=record.config,
        inputs={role: given.answered_by for role, given in record.inputs.items()},
        revisions=record.revisions,
        processes=record.config.get("processes", 1),
    )


def make_plan(
    *,
    net: dict[str, Any],
    data: str,
    config: Mapping[str, Any],
    inputs: dict[str, str],
    revisions: dict[str, int],
    processes: int,
) -> Plan:
    return {
        "net": net,
        "data": data,
        "objective": config.get("objective", {}),
        "training": config.get("training", {}),
        "asking": {k: v for k, v in config.get("asking", {}).items() if k != "form"},
        "inputs": inputs,
        "revisions": revisions,
        "processes": processes,
    }


def what_changed(before: Plan, now: Plan) -> str:
    """The differences of two plans, for messages."""
    a, b = dict(_flat(before)), dict(_flat(now))
    changes = [
        f"{key} was {a.get(key)}, is {b.get(key)}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
    ]
    return "; ".join(changes) or "nothing"


def what_varies(plans: Sequence[Plan]) -> list[dict[str, Any]]:
    """For each of several plans, its values of the fields that differ among them.

    Keys are the last part of a field's name, such as `alpha`; digests and fields that follow from
    others are left out.
    """
    flat = [dict(_flat(plan)) for plan in plans]
    keys = dict.fromkeys(key for plan in flat for key in plan)
    varied = [
        key
        for key in keys
        if key not in ("net.initial", "data") and len({str(plan.get(key)) for plan in flat}) > 1
    ]
    if "training.seed" in varied and all(
        plan.get("training.seed") == plan.get("training.view_seed") for plan in flat
    ):
        varied.remove("training.view_seed")
    return [{_short(key): plan.get(key) for key in varied} for plan in flat]


def _short(key: str) -> str:
    return "net" if key == "net.name" else key.rpartition(".")[2]


def _flat(plan: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in plan.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
