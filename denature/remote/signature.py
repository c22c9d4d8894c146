"""What a server says of a model; this module imports nothing heavy."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteSignature:
    """Input and output of a served model."""

    input: str
    datatype: str
    shape: tuple[int, int, int]
    """Channels, height, width of an image; -1 where any value is accepted."""
    channels_last: bool
    output: str
    labels: bool = False
    """Whether an answer is the index of a class."""
    classes: int | None
    names: tuple[str, ...] = ()
    """Names of an answer's numbers, where the server states them in a known form."""
    unread: str | None = None
    """Excerpt of the server's names, where their form is not known."""

    @property
    def wire_shape(self) -> tuple[int, int, int]:
        """Sizes of an image in the order in which the model takes them."""
        channels, height, width = self.shape
        return (height, width, channels) if self.channels_last else self.shape
