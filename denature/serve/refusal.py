"""The refusal of a request; this module needs none of the server's packages."""


class Refused(Exception):
    """A request that is not answered, with the HTTP status and the message for the client."""

    def __init__(self, status: int, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
