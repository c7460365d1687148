"""The application: all routes behind the gate."""

from __future__ import annotations

from typing import Annotated, Any, cast

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.routing import Match, Route
from starlette.types import Scope

import lloss

from .core import Daemon
from .failures import answer_failures
from .net.access import PROBES

_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string", "description": "One line."}},
    "required": ["error"],
}


def create_app(daemon: Daemon) -> FastAPI:
    """The routes of a daemon.

    Not wrapped in :class:`~.gate.Gate` yet: the server does that, around everything.
    """
    from . import health, labelstudio
    from .net import login
    from .pages import page
    from .pools import jobs_api, pools_api
    from .scoring import inference, uploads

    app = FastAPI(
        title="lloss",
        version=lloss.__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.daemon = daemon
    answer_failures(app)
    app.state.routes = []
    for module in (health, inference, uploads, pools_api, jobs_api, labelstudio, login, page):
        app.include_router(module.router)
        app.state.routes += [route for route in module.router.routes if isinstance(route, Route)]
    app.router.routes[:0] = [_Named(r.path, r.endpoint, methods=r.methods) for r in inference.FAST]
    described = _described(app.openapi(), daemon)
    # A route as all others are, so that it is counted by its name.
    app.add_api_route("/openapi.json", lambda: JSONResponse(described), include_in_schema=False)
    return app


class _Named(Route):
    """A plain route that tells its name, as the framework's own do."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See Starlette."""
        match, found = super().matches(scope)
        return match, {**found, "route": self}


def daemon_of(request: Request) -> Daemon:
    """The daemon that a request is put to."""
    return cast(Daemon, request.app.state.daemon)


async def _daemon(request: Request) -> Daemon:
    """Not in a thread, as FastAPI would look for it otherwise: they may all be busy."""
    return daemon_of(request)


Ours = Annotated[Daemon, Depends(_daemon)]
"""The daemon, for routes that take it as a parameter."""


def _described(schema: dict[str, Any], daemon: Daemon) -> dict[str, Any]:
    """Add what stands before the routes: the token, and one shape for every error."""
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Error"] = _ERROR
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            if path in PROBES:
                operation["security"] = []
            replies = operation["responses"]
            for status, reply in replies.items():
                if status.startswith(("4", "5")):
                    replies[status] = {**reply, "content": content}
            replies["default"] = {"description": "What went wrong.", "content": content}
    if daemon.access.needs_token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"token": []}]
    return schema
