"""Exported networks for other servers: ONNX and torch's own exported programs."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import nn

from denature.core.errors import DenatureError, MissingExtra, RunError, unknown
from denature.core.files import atomic_path
from denature.core.text import line_of
from denature.train.run import Run

ExportFormat: TypeAlias = Literal["onnx", "pt2"]

INPUT, OUTPUT = "images", "logits"

TOLERANCE = 1e-4
"""Largest difference between an export's logits and the network's, as a share of their spread."""


def export(run: Run, path: Path, form: ExportFormat) -> float:
    """Write a run's network for other servers, and check the answers of the written file.

    The export takes `images`, float32 in [0, 1] of any batch size, normalises them itself and
    returns `logits`.

    Args:
        run: the run with the network.
        path: the file to write.
        form: `onnx` for ONNX Runtime, Triton and others, `pt2` for `torch.export.load`.

    Returns:
        The largest difference to the network's own logits, as a share of their spread.

    Raises:
        RunError: the network cannot be exported, or the export answers differently.
        MissingExtra: the packages for ONNX are not installed.
    """
    if form not in get_args(ExportFormat):
        raise unknown("format", form, get_args(ExportFormat))
    net = run.record.net
    network = run.network.cpu().eval()
    shape = (net.channels, net.image_size, net.image_size)
    images = torch.rand((7, *shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = network(images).numpy()
    try:
        with atomic_path(path) as new, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of torch's exporters about their own code
            # Some exporters choose the format by a file's suffix.
            named = new.with_suffix(f".{form}")
            try:
                ask = (_onnx if form == "onnx" else _pt2)(network, images[:2], named)
                found = np.concatenate([ask(images[:1]), ask(images[1:])])
                named.rename(new)
            finally:
                named.unlink(missing_ok=True)
            apart = float(np.abs(found - wanted).max()) / (float(np.ptp(wanted)) or 1.0)
            if not apart <= TOLERANCE:
                raise RunError(
                    f"The exported network answers differently, by {apart:.2g} of the logits' "
                    f"spread where {TOLERANCE:g} is allowed. Nothing was written."
                )
    except DenatureError:
        raise
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}.") from None
    except Exception as error:  # a user's network may raise any exception
        raise RunError(f"{net.name} cannot be exported as {form}: {line_of(error)}.") from error
    return apart


Ask: TypeAlias = Callable[[torch.Tensor], np.ndarray]


def _program(network: nn.Module, example: torch.Tensor) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    return torch.export.export(network, (example,), dynamic_shapes=({0: batch},))


def _pt2(network: nn.Module, example: torch.Tensor, path: Path) -> Ask:
    torch.export.save(_program(network, example), path)
    loaded = torch.export.load(path).module()

    def ask(images: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            answer: np.ndarray = loaded(images).numpy()
        return answer

    return ask


def _onnx(network: nn.Module, example: torch.Tensor, path: Path) -> Ask:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter needs it, with an unclear error
    except ImportError as error:
        raise MissingExtra(error.name or "onnx", "onnx", "Exporting to ONNX") from None
    # The exporter warns of each torchvision operator that is not registered.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    torch.onnx.export(
        _program(network, example),
        (example,),
        str(path),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def ask(images: torch.Tensor) -> np.ndarray:
        [answer] = session.run([OUTPUT], {INPUT: images.numpy()})
        return np.asarray(answer)

    return ask
