"""What else could compute a teacher's answers: int8, larger chunks, fp32, torch.compile.

    python -m benchmarks.answers RUN... --data DATA [--json FILE] [--images 2048] [--no-compile]

Each way is measured in turns with the one that a training takes. What it changes is measured on
test images, against the plain network in fp32: the mean divergence of the softmax of its logits in
nats, KL(plain || way), and the share of images whose class it flips. int8 is torch's static
quantization by FX for the x86 backend: folded, observed on 512 training images, weights by channel.
No command offers int8; this benchmark is the trial.
"""

import argparse
import copy
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.bench import Bench, Work
from denature.answers.config import InferenceConfig
from denature.answers.inference import Inference, fold
from denature.core.compute import Compute, resolve
from denature.core.types import Logits, Pixels
from denature.data.loading import load
from denature.train.run import Run, load_run

CALIBRATION = 512
"""Training images that set the ranges of int8 activations."""

AT_A_TIME = 64
"""Images of a pass of int8; the default's chunk on a CPU."""

CHUNKS = (16, 128, 256, 512)

NAMES = {
    "fp32": "fp32, folded",
    "int8": "int8, folded",
    "compile": "`--compile`",
    **{f"chunk-{size}": f"chunks of {size}" for size in CHUNKS},
}
"""Ways by their keys, as the table names them."""

Answer = Callable[[Pixels], Logits]


def quantized(network: nn.Module, observed: Pixels) -> nn.Module:
    """A copy of a network with int8 weights and activations.

    Args:
        network: in eval mode, in fp32; batch norms are folded first where that is possible.
        observed: images that set the ranges of activations.
    """
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    torch.backends.quantized.engine = "x86"
    plain = fold(network) or copy.deepcopy(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that this module moves to torchao
        mapping = get_default_qconfig_mapping("x86")
        prepared = prepare_fx(plain.eval(), mapping, example_inputs=(observed[:1],))
        with torch.no_grad():
            for part in observed.split(AT_A_TIME):
                prepared(part)
        made: nn.Module = convert_fx(prepared)
    return made


@torch.no_grad()
def in_parts(network: nn.Module, pixels: Pixels) -> Logits:
    return torch.cat([network(part) for part in pixels.split(AT_A_TIME)])


def inference(
    network: nn.Module,
    compute: Compute,
    shape: tuple[int, int, int],
    *,
    chunk: int | None = None,
    compile: bool = False,
) -> Inference:
    made = Inference(copy.deepcopy(network), compute, InferenceConfig(compile=compile), shape=shape)
    if chunk is not None:
        made.chunk = chunk
    return made


def work_of(answer: Answer, pixels: Pixels) -> Work:
    def work() -> int:
        answer(pixels)
        return len(pixels)

    return work


def errors(expected: Logits, found: Logits) -> dict[str, float]:
    """Divergence in nats, and the share of flipped classes in percent."""
    nats = F.kl_div(
        found.double().log_softmax(-1),
        expected.double().log_softmax(-1),
        reduction="batchmean",
        log_target=True,
    )
    flipped = (expected.argmax(-1) != found.argmax(-1)).double().mean()
    return {"nats": round(float(nats), 6), "flipped_percent": round(100 * float(flipped), 3)}


def measure(bench: Bench, run: Run, data: str, *, images: int, compiled: bool) -> None:
    dataset = load(data)
    name = run.record.net.name
    fp32 = resolve(run.network, device="cpu", precision="fp32")
    auto = resolve(run.network, device="cpu", precision="auto")
    network = run.network.eval()
    shape = (dataset.channels, dataset.image_size, dataset.image_size)
    chosen = dataset.test.images[dataset.test.rows[:images]]
    observed = dataset.train.images[dataset.train.rows[:CALIBRATION]]
    plain = fp32.place(copy.deepcopy(network))
    expected = in_parts(plain, fp32.pixels(chosen))
    usual = inference(network, auto, shape)
    bench.figures[f"usual/{name}"] = {
        "precision": auto.precision,
        "chunk": usual.chunk,
        "images": len(chosen),
        **errors(expected, usual(auto.pixels(chosen))),
    }
    ways: dict[str, tuple[Answer, Compute]] = {
        "fp32": (inference(network, fp32, shape), fp32),
        "int8": (partial(in_parts, quantized(plain, fp32.pixels(observed))), fp32),
        **{f"chunk-{n}": (inference(network, auto, shape, chunk=n), auto) for n in CHUNKS},
    }
    if compiled:
        ways["compile"] = inference(network, auto, shape, compile=True), auto
    for way, (answer, compute) in ways.items():
        pixels = compute.pixels(chosen)
        key = f"{way}/{name}"
        bench.compare(key, work_of(answer, pixels), work_of(usual, auto.pixels(chosen)))
        bench.figures[key] |= errors(expected, answer(pixels))


def ways_table(figures: Mapping[str, Any]) -> str:
    """Speed and error of each way, as Markdown, in the order of the figures."""
    lines = ["| network | answers by | speed | nats | classes flipped, % |"]
    lines.append("| --- " * 5 + "|")
    for key, found in figures.items():
        if "nats" not in found:
            continue
        way, _, network = key.partition("/")
        if way == "usual":
            way = f"{found['precision']} in chunks of {found['chunk']}, the usual"
        speed = f"{found.get('ratio', 1):.2f}"
        nats, flipped = f"{found['nats']:.2g}", f"{found['flipped_percent']:.2f}"
        lines.append(f"| `{network}` | {NAMES.get(way, way)} | {speed} | {nats} | {flipped} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of trained networks")
    parser.add_argument("--data", required=True, help="their data")
    parser.add_argument("--images", type=int, default=2048, help="test images")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    bench = Bench(torch.device("cpu"), repeats=5)
    for folder in options.runs:
        run = load_run(folder)
        measure(bench, run, options.data, images=options.images, compiled=not options.no_compile)
    compute = resolve(run.network, device="cpu", precision="auto")
    bench.finish({}, options.json, device=compute.describe())


if __name__ == "__main__":
    main()
