"""How a failure becomes an HTTP status."""

from __future__ import annotations

from lloss.errors import (
    EngineError,
    ImageError,
    InterruptedRunError,
    LabelError,
    LlossError,
    PoolError,
    ScoresError,
    SelectionError,
    SettingsError,
)


class RequestError(LlossError):
    """A request that is refused.

    Args:
        status: the HTTP status.
        message: one line: what was wrong, with the value, and what to do.
        retry_after: seconds after which the same request may succeed; sent as ``Retry-After``.
    """

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


_STATUS: dict[type[LlossError], int] = {
    SettingsError: 422,
    ImageError: 422,
    LabelError: 422,
    PoolError: 422,
    SelectionError: 409,
    ScoresError: 409,
    InterruptedRunError: 503,
    EngineError: 500,
}
"""What the library's own errors are; everything else is 500, a full disk among it."""


def status_of(error: LlossError) -> int:
    """The HTTP status that tells of an error."""
    if isinstance(error, RequestError):
        return error.status
    return next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
