"""The features of a network in training, for objectives with heads of their own."""

from typing import final

import torch
from torch import Tensor, nn

from denature.answers import Answers
from denature.core.compute import Compute
from denature.core.seeds import seeded
from denature.core.types import Logits, PerExample
from denature.data.feed import Batch
from denature.nets.activations import ActivationRecorder
from denature.train.objectives.base import BatchContext, UsesFeatures


@final
class FeatureLoss:
    """An objective that uses features, with the heads that it adds to a network.

    Args:
        objective: makes the heads, and the loss.
        network: the network in training, on its device.
        compute: device and precision; heads compute in the precision of their weights.
        image: channels x height x width of an image.
        seed: of the heads' initial weights.
    """

    def __init__(
        self,
        objective: UsesFeatures,
        network: nn.Module,
        compute: Compute,
        *,
        image: tuple[int, ...],
        seed: int,
    ) -> None:
        self.objective, self.network, self.compute = objective, network, compute
        shapes, classes = self._shapes(image)
        with seeded(seed, "heads"):
            heads = objective.heads(shapes, classes)
        self.heads = compute.place(heads).train()

    def _shapes(self, image: tuple[int, ...]) -> tuple[list[tuple[int, ...]], int]:
        """Shapes of the stages and of the features, without the batch, and number of classes."""
        was_training = self.network.training
        self.network.eval()
        empty = torch.zeros((2, *image), dtype=torch.uint8, device=self.compute.device)
        with torch.no_grad(), ActivationRecorder(self.network, stages=True) as recorder:
            logits = recorder.ask(self.compute.pixels(empty))
            stages = [tuple(stage.shape[1:]) for stage in recorder.stages]
            features = tuple(recorder.features.shape[1:])
        self.network.train(was_training)
        return [*stages, features], logits.shape[1]

    def __call__(
        self, batch: Batch, answers: Answers | None, *, done: float
    ) -> tuple[Logits, PerExample]:
        """The logits of the network in training, and the loss per example."""
        with ActivationRecorder(self.network, stages=True) as recorder:
            with self.compute.autocast():
                logits = recorder.ask(batch.pixels)
            stages, features = recorder.stages, recorder.features
        dtype = next(self.heads.parameters(), logits).dtype
        context = BatchContext(
            logits=logits,
            labels=batch.labels,
            answers=answers,
            done=done,
            features=tuple(stage.to(dtype) for stage in (*stages, features)),
            heads=self.heads,
        )
        return logits, self.objective.loss(context)

    def state(self) -> dict[str, Tensor]:
        """Weights and buffers of the heads."""
        return self.heads.state_dict()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        self.heads.load_state_dict(tensors)
