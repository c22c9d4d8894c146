"""Names of the tensors that cross package boundaries; the shapes are part of the contract.

The names are plain aliases, because training must import with torch, numpy and pyarrow alone.
"""

from typing import TypeAlias

from torch import Tensor

Images: TypeAlias = Tensor
"""uint8, batch x channels x height x width, 0..255; never normalised."""

Pixels: TypeAlias = Tensor
"""float32, batch x channels x height x width, in [0, 1]; the input of a network."""

Logits: TypeAlias = Tensor
"""float, batch x classes, any real number."""

Labels: TypeAlias = Tensor
"""int64, batch, 0..classes-1."""

Indices: TypeAlias = Tensor
"""int64, batch: positions of samples in their split."""

PerExample: TypeAlias = Tensor
"""float32, batch: one loss per example; the caller takes the mean."""
