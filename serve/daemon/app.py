"""The application: all routes behind the gate."""

from __future__ import annotations

from typing import cast

from fastapi import FastAPI, Request

import lloss

from .core import Daemon


def create_app(daemon: Daemon) -> FastAPI:
    """The routes of a daemon.

    Not wrapped in :class:`~.gate.Gate` yet: the server does that, around everything.
    """
    from . import health, inference, jobs_api, labelstudio, page, pools_api, scoring

    app = FastAPI(title="lloss", version=lloss.__version__, docs_url=None, redoc_url=None)
    app.state.daemon = daemon
    for module in (health, inference, scoring, pools_api, jobs_api, labelstudio, page):
        app.include_router(module.router)
    return app


def daemon_of(request: Request) -> Daemon:
    """The daemon that a request is put to; a FastAPI dependency."""
    return cast(Daemon, request.app.state.daemon)
