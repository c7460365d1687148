"""The application: all routes behind the gate."""

from __future__ import annotations

from typing import Any, cast

from fastapi import FastAPI, Request

import lloss

from .core import Daemon
from .failures import answer_failures

_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string", "description": "One line."}},
    "required": ["error"],
}


def create_app(daemon: Daemon) -> FastAPI:
    """The routes of a daemon.

    Not wrapped in :class:`~.gate.Gate` yet: the server does that, around everything.
    """
    from . import health, inference, jobs_api, labelstudio, login, page, pools_api, scoring

    app = FastAPI(
        title="lloss",
        version=lloss.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.daemon = daemon
    answer_failures(app)
    for module in (health, inference, scoring, pools_api, jobs_api, labelstudio, login, page):
        app.include_router(module.router)
    plain = app.openapi
    app.openapi = lambda: _described(plain(), daemon)  # type: ignore[method-assign]
    return app


def daemon_of(request: Request) -> Daemon:
    """The daemon that a request is put to; a FastAPI dependency."""
    return cast(Daemon, request.app.state.daemon)


def _described(schema: dict[str, Any], daemon: Daemon) -> dict[str, Any]:
    """Add what stands before the routes: the token, and one shape for every error."""
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    if "Error" in schemas:
        return schema
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Error"] = _ERROR
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for path in schema["paths"].values():
        for operation in path.values():
            replies = operation["responses"]
            for status, reply in replies.items():
                if status.startswith(("4", "5")):
                    replies[status] = {**reply, "content": content}
            replies["default"] = {"description": "What went wrong.", "content": content}
    if daemon.access.needs_token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"token": []}]
    return schema
