"""Settings of training; imports nothing heavy, so that the command line can show them."""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast

from denature.core.errors import ConfigError
from denature.core.schema import check_fields

Optimizer: TypeAlias = Literal["auto", "sgd", "adam", "adamw"]
Schedule: TypeAlias = Literal["auto", "one-cycle", "cosine", "step", "constant"]
Augment: TypeAlias = Literal["auto", "none", "flip", "crop", "crop-flip", "rotate-flip"]
Device: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]
Precision: TypeAlias = Literal["auto", "fp32", "bf16"]
ParallelEngine: TypeAlias = Literal["ddp", "fsdp"]
Checkpoint: TypeAlias = Literal["last", "best-validation", "best-test"]

DEFAULT_LR: dict[str, float] = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3}
DEFAULT_DECAY: dict[str, float] = {"sgd": 5e-4, "adam": 0.0, "adamw": 0.01}


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """Settings of one training, for every objective."""

    seed: int = 0
    """Determines initial weights and dropout."""
    view_seed: int | None = None
    """Determines order and augmentation; the seed itself by default."""
    epochs: int = 30
    """Passes over the training samples."""
    optimizer: Optimizer = "auto"
    """sgd with momentum 0.9, adam or adamw; auto is adam for small networks
    (mlp, cnn, sepcnn, papernot) and those outside the catalogue, sgd for the others."""
    lr: float | None = None
    """Highest learning rate; 0.1 for sgd, 0.001 for adam and adamw by default."""
    weight_decay: float | None = None
    """5e-4 for sgd, 0 for adam, 0.01 for adamw by default."""
    schedule: Schedule = "auto"
    """Course of the learning rate; `step` multiplies by gamma at each milestone. auto is a late
    step for nasty teachers, because one-cycle leaves them harmless at the usual omega, and
    one-cycle else."""
    milestones: tuple[int, ...] = ()
    """Epochs at which `step` lowers the learning rate."""
    gamma: float = 0.1
    """Factor of `step`."""
    batch_size: int = 128
    """Images per step."""
    fraction: float = 1.0
    """Share of the training samples to use; a smaller share is a subset of a larger one."""
    augment: Augment = "auto"
    """Views of a sample; auto is crop-flip for colour images of 16 pixels and more,
    crop for landmarks, else none."""
    frozen: bool = False
    """With a backbone: freeze its layers, and train the others."""
    clip_norm: float | None = None
    """Largest norm of the gradient, by clipping; off by default."""
    checkpoint: Checkpoint = "last"
    """Epoch whose weights are kept; the code of many papers uses best-test."""
    validation: float = 0.1
    """Share of training samples held out where best-validation finds no validation split."""
    evaluate_every: int = 0
    """Epochs between measurements of test accuracy, for the curve; 0 measures the last only."""
    device: Device = "auto"
    """Device of the training."""
    precision: Precision = "auto"
    """auto is bf16 on devices where measurements show it to be faster."""
    parallel: ParallelEngine = "ddp"
    """Engine for processes started by torchrun or accelerate: ddp averages gradients, fsdp also
    divides weights and moments."""
    sync_norm: bool = False
    """With several CUDA processes: batch norm over the whole batch instead of parts of it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))  # accept a list too
        rules = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 2, "at least 2, since batch norm needs two samples"),
            "lr": (self.lr is None or self.lr > 0, "above 0"),
            "weight_decay": (self.weight_decay is None or self.weight_decay >= 0, "at least 0"),
            "gamma": (0 < self.gamma <= 1, "in (0, 1]"),
            "fraction": (0 < self.fraction <= 1, "a share in (0, 1]"),
            "validation": (0 < self.validation < 1, "a share in (0, 1)"),
            "clip_norm": (self.clip_norm is None or self.clip_norm > 0, "above 0"),
            "evaluate_every": (self.evaluate_every >= 0, "at least 0"),
            "milestones": (
                list(self.milestones) == sorted(set(self.milestones) & set(range(1, self.epochs))),
                f"rising, from 1 to epochs - 1 = {self.epochs - 1}",
            ),
        }
        check_fields(self, rules)
        if bool(self.milestones) != (self.schedule == "step"):
            raise ConfigError(
                f"The schedule is {self.schedule} with milestones {list(self.milestones)}; "
                "`step` needs milestones, and no other schedule has any."
            )

    def resolved(
        self, *, optimizer: str, augment: str, schedule: str, device: str, precision: str
    ) -> "Training":
        """The same training with all `auto` and None fields filled in.

        Args:
            optimizer: meaning of `auto` for this network.
            augment: meaning of `auto` for these images.
            schedule: meaning of `auto` for this objective.
            device: device of the training.
            precision: precision of the training.
        """
        chosen = optimizer if self.optimizer == "auto" else self.optimizer
        decay = DEFAULT_DECAY[chosen] if self.weight_decay is None else self.weight_decay
        course, milestones = self.schedule, self.milestones
        if course == "auto":
            course = cast(Schedule, schedule if self.epochs > 1 else "one-cycle")
            milestones = (late_step(self.epochs),) if course == "step" else ()
        return replace(
            self,
            schedule=course,
            milestones=milestones,
            view_seed=self.seed if self.view_seed is None else self.view_seed,
            optimizer=cast(Optimizer, chosen),
            augment=cast(Augment, augment) if self.augment == "auto" else self.augment,
            lr=DEFAULT_LR[chosen] if self.lr is None else self.lr,
            weight_decay=decay,
            device=cast(Device, device),
            precision=cast(Precision, precision),
        )


def late_step(epochs: int) -> int:
    """The milestone of a schedule with one step: 19 of 30 epochs, as in the demo.

    During the long stretch at the full rate a nasty teacher drifts far from its adversary; after
    the step its accuracy recovers.
    """
    return min(max(round(epochs * 19 / 30), 1), epochs - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig:
    """Settings of states, snapshots, stores and trackers; none of them changes a number."""

    save_every_s: float = 60.0
    """Seconds between saved states; a killed run loses at most this much work."""
    keep_every: int = 0
    """Epochs between weights kept in snapshots/; 0 keeps none."""
    store: str = "auto"
    """Store of a network's answers for later runs: a folder, `off`, or `auto`, which is answers/
    in the cache for stores of up to 2 GiB."""
    track: tuple[str, ...] = ()
    """Trackers besides TensorBoard events, such as mlflow or wandb."""

    def __post_init__(self) -> None:
        if not self.save_every_s >= 0 or self.keep_every < 0:
            raise ConfigError(
                f"save_every_s is {self.save_every_s}, keep_every {self.keep_every}; "
                "neither may be below 0."
            )
        if self.track:  # here, since a misspelt name must not cost hours of training first
            from denature.train.tracking import check_trackers

            check_trackers(self.track)
