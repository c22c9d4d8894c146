"""Failed requests."""

from denature.core.errors import DenatureError


class AskFailed(DenatureError):
    """A request without an answer.

    Args:
        message: cause of the failure.
        again: whether a retry of the same request may succeed.
        billed: whether the request may have been counted or charged.
        wait_s: seconds to wait before a retry, where the server states them.
        status: of the reply, where there was one with another status than 200.
    """

    def __init__(
        self,
        message: str,
        *,
        again: bool,
        billed: bool,
        wait_s: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.again = again
        self.billed = billed
        self.wait_s = wait_s
        self.status = status
