"""Image data sets: readers of sources, the cache of decoded images, and views."""

from typing import TYPE_CHECKING

from denature.core.lazy import attach

if TYPE_CHECKING:
    from denature.data.config import DataConfig
    from denature.data.dataset import Dataset, Split
    from denature.data.loading import load

__getattr__ = attach(
    __name__,
    {"load": "loading", "DataConfig": "config", "Dataset": "dataset", "Split": "dataset"},
)

__all__ = ["load", "DataConfig", "Dataset", "Split"]
