"""Options of the nose experiment."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class NoseOptions:
    """Source of the face pictures, starts of the clones, and price.

    A victim is trained on landmarks placed by people and served as Rekognition; a thief queries the
    local server through boto3 with pictures of other persons. With `pictures` and `labels` no
    service is queried: the clones learn from the recorded answers of an earlier harvest.
    """

    data: str | None = None
    """Faces with 68 landmarks: a folder of Parquet shards, or hf:owner/name."""
    group: str | None = None
    """A regular expression with one group: pictures whose paths give the same match show one
    person. By default (.*)_ as in PERSON_NUMBER.jpg."""
    pictures: Path | None = None
    """Folder of the pictures that an earlier harvest sent to a service."""
    labels: Path | None = None
    """JSON file of the service's answers: {"path or key": a response with FaceDetails}."""
    backbone: tuple[str, ...] = ()
    """Start of further clones, frozen and fine-tuned: a run's folder, trained on any labels, or a
    library's network, such as timm:resnet18. Repeat the option for several."""
    price_per_1000: float | None = None
    """US dollars per thousand queries; the package's price for Rekognition by default."""
    trust: tuple[str, ...] = ()
    """A module of your own that a run's record may import; repeat the option for several."""
