"""How a failure becomes an HTTP status."""

from __future__ import annotations

import json
import logging
import math
import reprlib
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from lloss.serve.daemon.observability import logs
from starlette.exceptions import HTTPException
from starlette.routing import Match

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

_PROBLEMS = 3
_SHOWN = 80


class _Short(reprlib.Repr):
    """Looks at the beginning of what it shows alone: a client may have sent any amount."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = _SHOWN

    def repr_bytes(self, value: bytes, level: int) -> str:
        return repr(value[:_SHOWN])


_shown = _Short()


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


def retry_seconds(error: RequestError) -> str:
    """The value of ``Retry-After``: whole seconds, at least one."""
    return str(max(1, math.ceil(error.retry_after or 0)))


def internal_error(request_id: str) -> RequestError:
    """What a client hears of a failure that nobody foresaw."""
    return RequestError(500, f"internal error; see the log of request {request_id}")


def answer_failures(app: FastAPI) -> None:
    """Have an application answer every failure with ``{"error": "one line"}``."""
    app.add_exception_handler(LlossError, answer_of)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _unforeseen)


def _reply(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    # ASCII escapes: an id may hold what UTF-8 cannot.
    content = json.dumps({"error": " ".join(message.split())}).encode()
    return _Ready(content, status_code=status, headers=headers)


class _Ready(JSONResponse):
    """JSON that is encoded already."""

    def render(self, content: bytes) -> bytes:
        return content


async def answer_of(request: Request, error: Exception) -> JSONResponse:
    """The reply that tells of an :class:`LlossError`."""
    assert isinstance(error, LlossError)
    headers = {}
    if isinstance(error, RequestError) and error.retry_after is not None:
        headers["Retry-After"] = retry_seconds(error)
    status = status_of(error)
    if status == 500:
        request_id = request.scope.get("state", {}).get("request_id", "")
        logs.event("failed", logging.ERROR, request_id=request_id, reason=str(error))
    return _reply(status, str(error), headers)


async def _of_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    if any(isinstance(found.get("input"), bytes) for found in error.errors()):
        kind = request.headers.get("content-type", "")[:_SHOWN]  # nobody tried to read it
        return _reply(415, f"Content-Type {kind!r}: send JSON, as application/json")
    return _reply(422, "; ".join(map(validation_problem, error.errors()[:_PROBLEMS])))


def validation_problem(found: Mapping[str, Any]) -> str:
    """Describe one of pydantic's errors in a line: where, what, and the given value."""
    place = ".".join(str(part)[:_SHOWN] for part in found.get("loc", ())) or "the body"
    given = _shown.repr(found["input"]) if found.get("input") is not None else ""
    shown = f" (given {given[:_SHOWN]})" if given and found.get("type") != "missing" else ""
    return " ".join(f"{place}: {found['msg'][:300]}{shown}".split())


async def _of_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = str(error.detail)
    if error.status_code == 404 and message == "Not Found":
        message = f"there is nothing at {request.url.path}"
    headers = dict(error.headers or {})
    if error.status_code == 405:
        message = f"{request.method} is not for {request.url.path}"
        if allowed := _allowed(request):
            headers["Allow"] = ", ".join(sorted(allowed))
    return _reply(error.status_code, message, headers)


def _allowed(request: Request) -> set[str]:
    """What all routes of a path take; the framework names the first one's methods alone."""
    return {
        method
        for route in getattr(request.app.state, "routes", ())
        if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }


async def _unforeseen(request: Request, _: Exception) -> JSONResponse:
    # The gate logs it: starlette raises it again once this is sent.
    error = internal_error(request.scope.get("state", {}).get("request_id", ""))
    return _reply(error.status, str(error))
