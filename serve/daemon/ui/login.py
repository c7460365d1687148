"""Routes: a session for browsers, which cannot send a bearer token by themselves."""

from __future__ import annotations

import math

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from lloss.serve.daemon.deps import DaemonDep, base_url_of
from lloss.serve.daemon.http.sessions import COOKIE, SESSION_SECONDS
from lloss.serve.daemon.ui.templates import render

router = APIRouter(include_in_schema=False)


@router.get("/login")
async def ask(daemon: DaemonDep, next: str = "/") -> Response:
    """The form; without a token there is nothing to log in to."""
    if not daemon.access.needs_token:
        return RedirectResponse(_local(next), 303)
    return _form(next)


@router.post("/login")
async def log_in(request: Request, daemon: DaemonDep) -> Response:
    """Set the session's cookie, which does not hold the token, and go on to ``next``.

    A client that failed too often gets 429, even with the right token.
    """
    form = await request.form()
    next = _local(str(form.get("next", "/")))
    client = request.client.host if request.client else ""
    attempts = daemon.access.attempts
    if wait := attempts.wait(client):
        daemon.metrics.login("limited")
        seconds = max(1, math.ceil(wait))
        reply = _form(next, f"Too many attempts: try again in {seconds} s.", 429)
        reply.headers["Retry-After"] = str(seconds)
        return reply
    session = daemon.access.log_in(str(form.get("token", "")))
    if session is None:
        attempts.failed(client)
        daemon.metrics.login("refused")
        return _form(next, "That is not the token.", 401)
    daemon.metrics.login("accepted")
    reply = RedirectResponse(next, 303)
    reply.set_cookie(
        COOKIE,
        session,
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=base_url_of(daemon, request).startswith("https:"),
    )
    return reply


@router.post("/logout")
async def log_out(request: Request, daemon: DaemonDep) -> Response:
    """End the session, also for copies of the cookie."""
    daemon.access.log_out(dict(request.scope["headers"]))
    reply = RedirectResponse("/login", 303)
    reply.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return reply


def _local(next: str) -> str:
    """A path of this daemon, not another site's address."""
    plain = next.isprintable() and next.isascii() and "\\" not in next
    return next if plain and next.startswith("/") and not next.startswith("//") else "/"


def _form(next: str, error: str = "", status: int = 200) -> Response:
    return HTMLResponse(render("login.html", error=error, next=_local(next)), status)
