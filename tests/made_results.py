"""Results that are made by hand, for tests of pages and verdicts."""

from dataclasses import replace

from denature.core.stats import Estimate
from denature.report.flat_minima import FlatMinimaResult, MeasuredMinima
from denature.report.flatness import FlatnessResult, LossSurface
from denature.report.robustness import RobustnessResult
from denature.robust.flatness import SIZES, Flatness
from denature.robust.summary import AttackResult, Robustness
from denature.robust.verdict import Evaluation, Gain, Verdict


def near(value: float, half: float = 0.02, n: int = 100) -> Estimate:
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), n, "images")


def flat(run: str, moved: float, follows: float) -> Flatness:
    """A network that keeps `moved` of its accuracy, with changed weights of the middle size on."""
    shares = [0.98 if size < SIZES[len(SIZES) // 2] else moved for size in SIZES]
    return Flatness(
        run=run, trained_at=1.0, loss_is="normal", weights_split="train", images_split="test",
        sizes=SIZES, accuracy=tuple(map(near, shares)), loss=tuple(near(1 - s) for s in shares),
        curvature=20.0, curvature_moved=1e-4, sensitivity=near(0.5),
        confidence_sensitivity=near(follows), samples=100, directions=3, seed=0,
    )  # fmt: skip


def flatness(*networks: Flatness) -> FlatnessResult:
    grid = (-1.0, 0.0, 1.0)
    surface = LossSurface(places=grid, losses=tuple(tuple(x * x + y * y + 0.1 for x in grid)
                                                    for y in grid))  # fmt: skip
    return FlatnessResult(networks=networks, surfaces=(surface,) * len(networks))


def robustness(*, budgets: tuple[float, ...], scope: str = "") -> RobustnessResult:
    """A defended network, an undefended one, and a verdict over these budgets."""
    keys = ("0.05", "0.1", "0.2", "0.3")
    linf = {key: near(0.9 - float(key)) for key in keys}

    def attack(name: str, norm: str, held: dict[str, Estimate]) -> AttackResult:
        return AttackResult(
            name=name, norm=norm, robust=held, smallest=None, fooled=10, not_run=0, seconds=1.0
        )

    def evaluation(run: str, verdict: Verdict | None) -> Evaluation:
        measured = Robustness(
            run=run, net="mlp", kind="normal", digest=f"digest of {run}", shows="gradients",
            trained_at=1.0, attack_temperature=1.0, shows_probabilities=False, gap=4.0, flat=0.0,
            samples=tuple(range(50)), clean=near(0.97), effort="quick", seed=0,
            attacks=(attack("fgsm", "linf", linf), attack("pgd", "linf", linf)),
            worst={"linf": linf, "l2": {}, "l0": {}},
        )  # fmt: skip
        return Evaluation(robustness=measured, checks=(), verdict=verdict)

    gain = Gain(norm="linf", budgets=budgets, ours=0.7, theirs=0.5,
                difference=Estimate(0.2, 0.1, 0.3, 2, "seeds"))  # fmt: skip
    verdict = Verdict(
        word="no evidence", said="It was not settled.", samples=48, networks=(1, 2),
        apparent=gain, real=gain, masked=gain.difference,
    )  # fmt: skip
    return RobustnessResult(
        data="digits",
        budgets={"linf": (0.05, 0.1, 0.2, 0.3), "l2": (0.5, 1.0), "l0": (1.0, 2.0)},
        judged=(evaluation("runs/hard", verdict), evaluation("runs/plain", None)),
        plain=((0.9, 0.8, 0.6, 0.5), ()),
        samples=(),
        queries={},
        scope=scope,
    )


def of_training(
    name: str, *, robust: float, fall: float, sensitivity: float, seeds: int = 3
) -> MeasuredMinima:
    """A way of training whose networks lose `fall` of their accuracy, with moved weights."""
    [evaluation, *_] = robustness(budgets=(0.1,)).judged
    share = Estimate(robust, robust - 0.02, robust + 0.02, 400, "images")
    evaluation = replace(
        evaluation, robustness=replace(evaluation.robustness, worst={"linf": {"0.1": share}})
    )

    def of_seed(seed: int) -> Flatness:
        found = flat(name, 0.9, sensitivity)
        moved = found.accuracy[0].value - fall + 0.01 * (seed - 1)
        accuracy = list(found.accuracy)
        accuracy[len(SIZES) // 2] = Estimate(moved, moved - 0.02, moved + 0.02, 10, "seeds")
        return replace(found, accuracy=tuple(accuracy), curvature=1 / (1 + robust))

    return MeasuredMinima(
        name=name,
        judged=(evaluation,) * seeds,
        flatness=tuple(of_seed(seed) for seed in range(seeds)),
    )


def minima(*networks: MeasuredMinima) -> FlatMinimaResult:
    return FlatMinimaResult(
        scale="smoke", differs="By hand.", seeds=len(networks[0].judged), budget=0.1,
        networks=networks,
    )  # fmt: skip
