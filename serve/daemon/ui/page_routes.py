"""Routes: the pages that people open.

They work without scripts: an action is a form whose answer leads back to where it was sent from.
A script that sends the same form and takes JSON updates the page in place.
"""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Callable
from typing import Annotated, Any, Literal, cast
from urllib.parse import unquote, urlencode

from fastapi import APIRouter, Form, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from lloss.serve.daemon.deps import base_url_of
from lloss.serve.daemon.errors import RequestError, retry_seconds, status_of
from lloss.serve.daemon.services.label_classes import CHOOSE, Accepted, NewClassError
from lloss.serve.daemon.ui import image_routes as pictures
from lloss.serve.daemon.ui.image_details import Batch, Mark
from lloss.serve.daemon.ui.templates import render, static_files
from lloss.serve.daemon.ui.ui_deps import Viewing, viewing_of
from lloss.serve.daemon.ui.views import POOLS, PoolView, Tile

from lloss.errors import LlossError
from lloss.pools.uri import is_url

MOST = 200
"""Images that a page takes at once."""

Action = Literal["label", "skip", "undo", "return"]
Listed = Literal["pending", "labeled", "skipped"]
View = Literal["next", "batch"] | Listed
Page = Annotated[int, Query(ge=1, le=1_000_000)]


class _PageRoute(APIRoute):
    """Failures as a page for people; scripts that ask for JSON get the daemon's usual answer."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handler = super().get_route_handler()

        async def told(request: Request) -> Response:
            try:
                response: Response = await handler(request)
                return response
            except (LlossError, RequestValidationError) as error:
                if _wants_json(request):
                    raise
                return _failure(error)

        return told


router = APIRouter(
    route_class=_PageRoute, include_in_schema=False, default_response_class=HTMLResponse
)
router.include_router(pictures.router)


@router.get("/")
def overview(request: Request, page: Page = 1) -> HTMLResponse:
    """The daemon at a glance."""
    viewing = viewing_of(request)
    pools = viewing.viewer.pools(page)
    status = viewing.viewer.status()
    return _page(
        "overview.html",
        status=status,
        model=viewing.viewer.model(),
        pools=pools,
        page=page,
        total=len(viewing.daemon.catalog.pools.rows()),
        pages=-(-len(viewing.daemon.catalog.pools.rows()) // POOLS),
        hint=_hint(request, viewing, {pool.name for pool in pools}),
        roots=viewing.daemon.settings.pool_roots,
        guarded=viewing.daemon.access.needs_token,
    )


@router.get("/page/status")
def status(request: Request) -> JSONResponse:
    """What changes from second to second."""
    return JSONResponse(viewing_of(request).viewer.status(), headers=_FRESH)


@router.get("/favicon.ico")
def icon(request: Request) -> Response:
    """Asked for by browsers that show an image by itself."""
    return static(request, "icon.svg")


@router.get("/static/{name}")
def static(request: Request, name: str) -> Response:
    """A file that pages refer to."""
    found = static_files().get(name)
    if found is None:
        raise RequestError(404, f"no such file: {name[:100]!r}")
    tag = f'"{found.version}"'
    lasting = request.query_params.get("v") == found.version
    keep = "public, max-age=31536000, immutable" if lasting else "no-cache"
    headers = {"ETag": tag, "Cache-Control": keep}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(found.content, 200, headers, found.media_type)


@router.get("/pools/{name}")
def pool(request: Request, name: str, page: Page = 1) -> HTMLResponse:
    """A pool: what is next, and how its predicted losses are spread."""
    viewer = viewing_of(request).viewer
    view = viewer.pool(name)
    images, more = viewer.ranked(view, page) if view.scored else ([], False)
    return _tiles_page(
        request,
        "pool.html",
        "next",
        view,
        viewer.tiles(view, images),
        page,
        more,
        chart=viewer.chart(view, (image.score for image in images)),
        key=secrets.token_urlsafe(12),
        batch=_own_batch(request, name),
    )


@router.get("/pools/{name}/batch")
def batch(request: Request, name: str, key: str) -> HTMLResponse:
    """The images that were handed out to this browser."""
    viewing = viewing_of(request)
    view = viewing.viewer.pool(name)
    handed = viewing.viewer.held.batch(name, key)
    tiles = viewing.viewer.tiles(view, handed.images, handed.id)
    return _tiles_page(request, "batch.html", "batch", view, tiles, 1, False, batch=key)


@router.get("/pools/{name}/pending")
@router.get("/pools/{name}/labeled")
@router.get("/pools/{name}/skipped")
def listed(request: Request, name: str, page: Page = 1) -> HTMLResponse:
    """The images of a state, to look at and to take back."""
    viewer = viewing_of(request).viewer
    state = cast(Listed, request.url.path.rpartition("/")[2])
    view = viewer.pool(name)
    tiles, more = viewer.listed(view, state, page)
    return _tiles_page(request, "listed.html", state, view, tiles, page, more, batch="")


@router.post("/pools/{name}/mark")
def mark(
    request: Request,
    name: str,
    image: Annotated[str, Form(description="its id, percent-encoded")],
    do: Annotated[Action, Form()],
    label: Annotated[str, Form(max_length=1000)] = "",
    view: Annotated[View, Form()] = "next",
    page: Annotated[int, Form(ge=1)] = 1,
    batch: Annotated[str, Form(max_length=100)] = "",
    selection: Annotated[str, Form(max_length=100)] = "",
    allow_new_classes: Annotated[bool, Form()] = False,
) -> Response:
    """Mark an image labeled or skipped, take that back, or give the image back."""
    viewing = viewing_of(request)
    id = unquote(image, errors="surrogatepass")
    own = viewing.viewer.held.batch(name, batch).id if view == "batch" else ""
    text = label.strip().replace("\r\n", "\n")
    try:
        now = _act(viewing, name, id, do, text, own, selection, Accepted(allow_new_classes))
    except NewClassError as error:
        given = {"image": image, "do": do, "label": label, "view": view, "page": page}
        return _asked_back(request, error, {**given, "batch": batch})
    if own and do == "undo" and now.state == "free":
        viewing.viewer.held.hold_again(name, batch, id)
        now = viewing.viewer.held.marks(name, [id], own)[id]
    if _wants_json(request):
        counts = viewing.daemon.catalog.images.counts(name)
        told = {"state": now.state, "label": now.label, "counts": vars(counts)}
        return JSONResponse(told, headers=_FRESH)
    query = {"page": page} if view != "batch" else {"key": batch}
    where = f"/pools/{name}" if view == "next" else f"/pools/{name}/{view}"
    did: dict[str, str] = {"did": now.state, "image": image} if len(image) <= 2000 else {}
    return _leading_to(f"{where}?{urlencode({**query, **did})}")


@router.post("/pools/{name}/take")
async def take(
    request: Request,
    name: str,
    k: Annotated[int, Form(ge=1, le=MOST)],
    key: Annotated[str, Form(min_length=8, max_length=100, pattern="^[!-~]+$")],
) -> Response:
    """Hand the next K out to this browser; sent twice, the same form takes them once."""
    batch = Batch(k, key)
    await viewing_of(request).daemon.selection_queue.select(name, batch.request, key)
    response = _leading_to(f"/pools/{name}/batch?{urlencode({'key': str(batch)})}")
    response.set_cookie(
        _COOKIE, str(batch), _WEEK, path=f"/pools/{name}", httponly=True, samesite="strict"
    )
    return response


@router.post("/pools/{name}/return")
def give_back(request: Request, name: str, batch: Annotated[str, Form(max_length=100)]) -> Response:
    """Give back what is still pending of a batch."""
    viewing = viewing_of(request)
    handed, waiting = _waiting(viewing, name, batch)
    viewing.daemon.selections.give_back(name, waiting, handed)
    response = _leading_to(f"/pools/{name}")
    response.delete_cookie(_COOKIE, path=f"/pools/{name}")
    return response


@router.post("/pools/{name}/score")
def score(request: Request, name: str, anew: Annotated[bool, Form()] = False) -> Response:
    """Have the pool scored."""
    viewing_of(request).daemon.jobs.submit(name, anew)
    return _leading_to(f"/pools/{name}")


@router.post("/pools/{name}/cancel")
def cancel(request: Request, name: str, job: Annotated[str, Form(max_length=100)]) -> Response:
    """Stop a job."""
    viewing_of(request).daemon.jobs.cancel(job)
    return _leading_to(f"/pools/{name}")


_COOKIE = "lloss_batch"

_WEEK = 7 * 24 * 3600

_FRESH = {"Cache-Control": "no-store"}


def _act(
    viewing: Viewing,
    pool: str,
    id: str,
    do: Action,
    label: str,
    own: str,
    shown: str,
    accepted: Accepted,
) -> Mark:
    """Do it, and tell what is known of the image then.

    ``own`` is the selection of who asks, ``shown`` the one that the page showed; "" for none.
    """
    selections, held = viewing.daemon.selections, viewing.viewer.held
    state = held.marks(pool, [id], own)[id].state
    if do == "label":
        if not label and viewing.daemon.classes.required:
            raise RequestError(422, CHOOSE)
        selections.label(pool, {id: label}, accepted)
    elif do == "skip":
        selections.skip(pool, [id])
    elif do == "undo" and state == "labeled":
        selections.unlabel(pool, [id])
    elif do == "undo" and state == "skipped":
        selections.give_back(pool, [id])
    elif do == "return" and state == "pending":
        selections.give_back(pool, [id], own or shown)
    return held.marks(pool, [id], own)[id]


def _asked_back(request: Request, error: NewClassError, given: dict[str, Any]) -> Response:
    """Whether a new class is meant: a form that sends the same again, which then is accepted."""
    told = {"error": error.short, "new_class": error.name}
    if _wants_json(request):
        return JSONResponse(told, 422, headers=_FRESH)
    again = {**given, "allow_new_classes": "true"}
    return _page("newclass.html", 422, **told, action=request.url.path, fields=again)


def _page(template: str, status_code: int = 200, **values: Any) -> HTMLResponse:
    return HTMLResponse(render(template, **values), status_code, headers=_FRESH)


def _tiles_page(
    request: Request,
    template: str,
    view: View,
    pool: PoolView,
    tiles: list[Tile],
    page: int,
    more: bool,
    **values: Any,
) -> HTMLResponse:
    viewer = viewing_of(request).viewer
    image = request.query_params.get("image", "")
    return _page(
        template,
        view=view,
        pool=pool,
        tiles=tiles,
        page=page,
        more=more,
        status=viewer.status(),
        labeling=viewer.labeling(),
        did=request.query_params.get("did", "") if image else "",
        done=unquote(image, errors="replace"),
        guarded=viewer.daemon.access.needs_token,
        pending_seconds=viewer.daemon.settings.pending_seconds,
        **values,
    )


def _failure(error: LlossError | RequestValidationError) -> HTMLResponse:
    if isinstance(error, RequestValidationError):
        wrong = [f"{found['loc'][-1]}: {found['msg']}" for found in error.errors()]
        return _page("error.html", 422, code=422, message="; ".join(wrong)[:500])
    code = status_of(error)
    response = _page("error.html", code, code=code, message=str(error))
    if isinstance(error, RequestError) and error.retry_after is not None:
        response.headers["Retry-After"] = retry_seconds(error)
    return response


def _leading_to(where: str) -> RedirectResponse:
    return RedirectResponse(where, 303)


def _wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


def _own_batch(request: Request, pool: str) -> str:
    """The batch that this browser took last, if something of it is still pending."""
    batch = request.cookies.get(_COOKIE, "")
    try:
        return batch if batch and _waiting(viewing_of(request), pool, batch)[1] else ""
    except LlossError:
        return ""  # it is forgotten


def _waiting(viewing: Viewing, pool: str, batch: str) -> tuple[str, list[str]]:
    """The selection of a batch, and the ids that are still pending by it."""
    held = viewing.viewer.held
    handed = held.batch(pool, batch)
    marks = held.marks(pool, [image.id for image in handed.images], handed.id)
    return handed.id, [id for id, mark in marks.items() if mark.state == "pending"]


def _hint(request: Request, viewing: Viewing, names: set[str]) -> str:
    """A line for the shell that adds a pool of another name than these."""
    name = next(f"photos{n}" for n in ("", *range(2, len(names) + 3)) if f"photos{n}" not in names)
    settings = viewing.daemon.settings
    root = settings.pool_roots[0] if settings.pool_roots else "/path/of/images"
    uri = f"{root.rstrip('/')}/…" if is_url(root) else root
    address = f"{base_url_of(viewing.daemon, request)}/v1/pools/{name}"
    words = ["curl", "-X", "PUT", address, "-H", "Content-Type: application/json"]
    line = shlex.join([*words, "-d", json.dumps({"uri": uri}, ensure_ascii=False)])
    return f'{line} -H "Authorization: Bearer $TOKEN"' if settings.token else line
