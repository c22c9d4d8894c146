"""A request that is not answered; nothing here needs a server's packages."""


class Refused(Exception):
    """A request that is not answered, with the HTTP status and what to tell."""

    def __init__(self, status: int, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
