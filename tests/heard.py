"""A display that keeps what it is told."""

from denature.core.progress import Silent


class Heard(Silent):
    """Keeps the lines that stay."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)
