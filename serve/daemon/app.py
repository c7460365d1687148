"""The application: all routes behind the gate."""

from __future__ import annotations

import threading
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from lloss.serve.daemon.api import health, inference, jobs, pools, score_images
from lloss.serve.daemon.deps import Daemon
from lloss.serve.daemon.errors import answer_failures, answer_of
from lloss.serve.daemon.http.authentication import PROBES
from lloss.serve.daemon.labelstudio import routes as labelstudio
from lloss.serve.daemon.ui import login, page_routes
from lloss.serve.daemon.ui.viewer import Viewer
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import lloss
from lloss.errors import LlossError

_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string", "description": "One line."}},
    "required": ["error"],
}


def create_app(daemon: Daemon) -> FastAPI:
    """The routes of a daemon.

    Not wrapped in :class:`~.gate.Gate` yet: the server does that, around everything.
    """
    app = FastAPI(
        title="lloss",
        version=lloss.__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.daemon, app.state.viewer = daemon, Viewer(daemon)
    answer_failures(app)
    app.state.routes = []
    for module in (health, inference, score_images, pools, jobs, labelstudio, login, page_routes):
        app.include_router(module.router)
        app.state.routes += [route for route in module.router.routes if isinstance(route, Route)]
    # A route as all others are, so that it is counted by its name.
    app.add_api_route("/openapi.json", _Document(app, daemon).answer, include_in_schema=False)
    return app


class _Document:
    """What the routes are, put together when it is first asked for."""

    def __init__(self, app: FastAPI, daemon: Daemon) -> None:
        self._app, self._daemon = app, daemon
        self._lock = threading.Lock()
        self._content: dict[str, Any] | None = None

    def answer(self) -> JSONResponse:
        """The reply."""
        with self._lock:
            if self._content is None:
                self._content = _described(self._app.openapi(), self._daemon)
        return JSONResponse(self._content)


class ShortWay:
    """An application whose busiest route is reached past the framework's layers.

    They look at every request in turn, and for one image that costs a good part of scoring it. What
    the route does not expect is the gate's to answer.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app: ASGIApp = app
        self._endpoint = inference.infer
        self._found: dict[str, Scope] = {
            route.path.format(**inference.SERVED): {
                "app": app,
                "route": route,
                "path_params": inference.SERVED,
            }
            for route in inference.router.routes
            if isinstance(route, Route) and route.endpoint is inference.infer
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        found = self._found.get(scope["path"]) if scope.get("method") == "POST" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        scope.update(found)
        request = Request(scope, receive)
        try:
            reply = await self._endpoint(request)
        except LlossError as error:
            reply = await answer_of(request, error)
        await reply(scope, receive, send)


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
