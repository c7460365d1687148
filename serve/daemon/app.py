"""The application: all routes of a daemon, and the OpenAPI document that describes them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from lloss.serve.daemon.api import health, inference, jobs, model, pools, score_images
from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.errors import answer_failures, answer_of
from lloss.serve.daemon.http.authentication import PROBES
from lloss.serve.daemon.labelstudio import routes as labelstudio
from lloss.serve.daemon.ui import page_routes
from lloss.serve.daemon.ui.page_data import PageData
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
    """Return the routes of a daemon, without its middleware."""
    app = FastAPI(
        title="lloss",
        version=lloss.__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.daemon, app.state.page_data = daemon, PageData(daemon)
    answer_failures(app)
    api = (health, model, inference, score_images, pools, jobs)
    for module in (*api, labelstudio, page_routes):
        app.include_router(module.router)

    # A route like all others, so that it is counted by its name.
    @app.get("/openapi.json", include_in_schema=False)
    def openapi() -> JSONResponse:
        return JSONResponse(_complete(app.openapi(), daemon))

    return app


class InferShortcut:
    """Calls the busiest route directly, past the framework's layers.

    They look at every request in turn, which for one image costs a good part of scoring it. The
    caller handles errors that the route does not expect.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app: ASGIApp = app
        self._scopes: dict[str, Scope] = {
            route.path: {"app": app, "route": route, "path_params": {}}
            for route in inference.router.routes
            if isinstance(route, Route) and route.endpoint is inference.infer
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        matched = self._scopes.get(scope["path"]) if scope["method"] == "POST" else None
        if matched is None:
            await self._app(scope, receive, send)
            return
        scope.update(matched)
        request = Request(scope, receive)
        try:
            reply = await inference.infer(request)
        except LlossError as error:
            reply = await answer_of(request, error)
        await reply(scope, receive, send)


def _complete(schema: dict[str, Any], daemon: Daemon) -> dict[str, Any]:
    """Add what the middleware does: the token, and one shape for every error."""
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
            replies["default"] = {"description": "An error.", "content": content}
    if daemon.settings.token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"token": []}]
    return schema
