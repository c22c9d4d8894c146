"""What makes a run that run: config, data, inputs, and the revisions of the code that decides."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from denature.core.record import Record

REPEATED = ("seed", "view_seed", "evaluate_every")
"""Training fields in which repeats of one experiment may differ."""

Plan: TypeAlias = dict[str, Any]
"""net, data, objective, training, inputs and revisions of a run, as plain values."""


def plan_id(plan: Plan) -> str:
    """The identity of a run: the first 16 hex digits of its plan's sha256."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]


def recipe_id(plan: Plan, recipes: Mapping[str, str]) -> str:
    """The identity of a plan without its seeds, and with its inputs' `recipes` for their digests.

    Runs of one recipe are repeats of one experiment; two students of teachers that were trained
    differently are not, however alike their own settings.
    """
    training = {k: v for k, v in plan["training"].items() if k not in REPEATED}
    net = {k: v for k, v in plan["net"].items() if k != "initial"}
    return plan_id({**plan, "training": training, "net": net, "inputs": dict(recipes)})


def plan_of(record: Record) -> Plan:
    """The plan that this record's run was made by."""
    net = record.net
    return make_plan(
        net={
            "name": net.name,
            "shape": [net.classes, net.channels, net.image_size],
            "initial": net.initial,
        },
        data="" if record.data is None else record.data.split_digest,
        config=record.config,
        inputs={role: given.digest for role, given in record.inputs.items()},
        revisions=record.revisions,
    )


def make_plan(
    *,
    net: dict[str, Any],
    data: str,
    config: Mapping[str, Any],
    inputs: dict[str, str],
    revisions: dict[str, int],
) -> Plan:
    return {
        "net": net,
        "data": data,
        "objective": config.get("objective", {}),
        "training": config.get("training", {}),
        "inputs": inputs,
        "revisions": revisions,
    }


def what_changed(before: Plan, now: Plan) -> str:
    """The differences of two plans, for people."""
    a, b = dict(_flat(before)), dict(_flat(now))
    changes = [
        f"{key} was {a.get(key)}, is {b.get(key)}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
    ]
    return "; ".join(changes) or "nothing"


def _flat(plan: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in plan.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
