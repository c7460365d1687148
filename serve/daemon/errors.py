"""How an error becomes an HTTP reply."""

from __future__ import annotations

import json
import logging
import math
import reprlib
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from lloss.serve.daemon.observability import logs
from starlette.exceptions import HTTPException

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

_MAX_PROBLEMS = 3
_MAX_SHOWN = 80
_shortened = reprlib.Repr()  # looks at the beginning of a value only
_shortened.maxstring = _shortened.maxother = _shortened.maxlong = _MAX_SHOWN


class RequestError(LlossError):
    """A request that the daemon refuses.

    Args:
        status: HTTP status.
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
"""Status of the library's errors; of others, such as a full disk, 500."""


def status_of(error: LlossError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, RequestError):
        return error.status
    return next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)


def retry_seconds(error: RequestError) -> str:
    """Return the value of ``Retry-After``: whole seconds, at least one."""
    return str(max(1, math.ceil(error.retry_after or 0)))


def internal_error(request_id: str) -> RequestError:
    """Return what a client gets for an unexpected error."""
    return RequestError(500, f"internal error; see the log of request {request_id}")


def answer_failures(app: FastAPI) -> None:
    """Make an application answer every error with ``{"error": "one line"}``."""
    app.exception_handler(LlossError)(answer_of)
    app.exception_handler(RequestValidationError)(_answer_invalid)
    app.exception_handler(HTTPException)(_answer_http)
    app.exception_handler(Exception)(_answer_unexpected)


def _reply(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    # ASCII escapes: an id may hold what UTF-8 cannot.
    content = json.dumps({"error": " ".join(message.split())})
    return Response(content, status, headers, "application/json")


async def answer_of(request: Request, error: LlossError) -> Response:
    """Return the reply to a request that raised an error of the library or the daemon."""
    headers = {}
    if isinstance(error, RequestError) and error.retry_after is not None:
        headers["Retry-After"] = retry_seconds(error)
    status = status_of(error)
    if status == 500:
        logs.event("request_failed", logging.ERROR, request_id=_id(request), reason=str(error))
    return _reply(status, str(error), headers)


async def _answer_invalid(request: Request, error: RequestValidationError) -> Response:
    problems = error.errors()
    if any(isinstance(problem.get("input"), bytes) for problem in problems):
        kind = request.headers.get("content-type", "")[:_MAX_SHOWN]  # the body was not parsed
        return _reply(415, f"Content-Type {kind!r}: send JSON, as application/json")
    return _reply(422, "; ".join(map(validation_problem, problems[:_MAX_PROBLEMS])))


def validation_problem(problem: Mapping[str, Any]) -> str:
    """Describe one of pydantic's errors in a line: where, what, and the given value."""
    place = ".".join(str(part)[:_MAX_SHOWN] for part in problem.get("loc", ())) or "the body"
    given = problem.get("input")
    text = f"{place}: {problem['msg'][:300]}"
    if given is not None and problem.get("type") != "missing":
        text += f" (given {_shortened.repr(given)[:_MAX_SHOWN]})"
    return " ".join(text.split())


async def _answer_http(request: Request, error: HTTPException) -> Response:
    message = str(error.detail)
    if error.status_code == 404 and message == "Not Found":
        message = f"nothing at {request.url.path}"
    if error.status_code == 405:
        message = f"{request.url.path} does not accept {request.method}"
    return _reply(error.status_code, message, dict(error.headers or {}))


async def _answer_unexpected(request: Request, _: Exception) -> Response:
    # starlette raises it again after this reply, and the middleware logs it.
    error = internal_error(_id(request))
    return _reply(error.status, str(error))


def _id(request: Request) -> str:
    return str(request.scope.get("state", {}).get("request_id", ""))
