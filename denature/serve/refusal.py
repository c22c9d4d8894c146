"""The refusal of a request; this module needs none of the server's packages."""


class Refused(Exception):
    """A request that is not answered, with the HTTP status and the message for the client.

    Args:
        status: HTTP status.
        message: what the client is told.
        retry_after: seconds after which the request may succeed.
        cause: what the access log says, where clients are told less.
        charged: whether the images stay charged, since a model behind has computed them.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        retry_after: float | None = None,
        cause: str | None = None,
        charged: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.cause = cause or message
        self.charged = charged
