"""A server of another project's form: no binary tensors, floats of any range, colours last."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.hostile import Answer, Request, reply


def scores(request: Request) -> Answer:
    """A model of 4 x 6 pixels, colours last, as floats of any range, like those of ImageNet."""
    given = json.loads(request.body)["inputs"][0]
    values = np.array(given["data"], np.float32).reshape(given["shape"])
    sums = np.stack([values.mean((1, 2, 3)), values.max((1, 2, 3))], 1)
    return reply({"outputs": [{"name": "predict", "datatype": "FP64", "shape": list(sums.shape),
                               "data": sums.reshape(-1).tolist()}]})  # fmt: skip


TAKEN = {"name": "x", "datatype": "FP32", "shape": [-1, 4, 6, 3]}
SHOWN = {"name": "predict", "datatype": "FP64", "shape": [-1, 2]}


def other(infer: Callable[[Request], Answer], **changes: Any) -> Callable[[Request], Answer]:
    """A server without binary tensors."""
    about = {"name": "m", "inputs": [TAKEN], "outputs": [SHOWN], **changes}

    def answer(request: Request) -> Answer:
        if request.path.endswith("/infer"):
            return infer(request)
        if request.path.startswith("/v2/models/"):
            return reply(about)
        return reply([{"name": "m"}] if request.path.endswith("/index") else {"name": "s"})

    return answer
