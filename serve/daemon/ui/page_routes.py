"""Routes: the pages that people open, and the forms on them."""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, cast
from urllib.parse import unquote, urlencode

from fastapi import APIRouter, Form, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from lloss.serve.daemon.dependencies import base_url_of
from lloss.serve.daemon.errors import RequestError, retry_seconds, status_of
from lloss.serve.daemon.services.hand_out import Ranked
from lloss.serve.daemon.services.label_classes import CHOOSE, NewClassError
from lloss.serve.daemon.ui import image_routes
from lloss.serve.daemon.ui.page_data import PageData, PageDataDep, PoolSummary
from lloss.serve.daemon.ui.taken_images import batch, marks, still_pending
from lloss.serve.daemon.ui.templates import render
from pydantic import BaseModel, Field
from starlette.staticfiles import StaticFiles

from lloss.errors import LlossError
from lloss.selection import SelectionSettings

MAX_BATCH = 200
"""Images of a batch, which are all on one page."""

_COOKIE, _COOKIE_SECONDS = "lloss_batch", 7 * 24 * 3600
_NO_STORE = {"Cache-Control": "no-store"}
_STATIC = StaticFiles(packages=[("lloss.serve.daemon.ui", "static")])

Listed = Literal["pending", "labeled", "skipped"]
Page = Annotated[int, Query(ge=1, le=1_000_000)]


class _PageRoute(APIRoute):
    """Shows errors as a page; scripts that accept JSON get the daemon's usual reply."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                response: Response = await handler(request)
                return response
            except (LlossError, RequestValidationError) as error:
                if "application/json" in request.headers.get("accept", ""):
                    raise
                return _error_page(error)

        return handle


router = APIRouter(
    route_class=_PageRoute, include_in_schema=False, default_response_class=HTMLResponse
)
router.include_router(image_routes.router)


# Pages


@router.get("/")
def overview(request: Request, data: PageDataDep) -> HTMLResponse:
    """The pools, the model and the daemon's figures."""
    pools, roots = data.pools(), data.daemon.settings.pool_roots
    hint = _hint(request, data, f"photos{len(pools) + 1 if pools else ''}")
    status, model = data.status(), data.model()
    return _page("overview.html", status=status, model=model, pools=pools, hint=hint, roots=roots)


@router.get("/page/status")
def status(data: PageDataDep) -> JSONResponse:
    """The figures that change from second to second."""
    return JSONResponse(data.status(), headers=_NO_STORE)


@router.get("/favicon.ico")
async def icon(request: Request) -> Response:
    """Browsers that show an image by itself ask for it."""
    return await static(request, "icon.svg")


@router.get("/static/{name}")
async def static(request: Request, name: str) -> Response:
    """A file that pages refer to; browsers ask each time whether it changed."""
    reply = await _STATIC.get_response(name, request.scope)
    reply.headers["Cache-Control"] = "no-cache"
    return reply


@router.get("/pools/{name}")
def pool(request: Request, data: PageDataDep, name: str, page: Page = 1) -> HTMLResponse:
    """A pool: its next images, and the histogram of its predicted losses."""
    summary = data.pool(name)
    images, more = data.ranked(summary, page)
    return _pool_page(
        data,
        "pool.html",
        summary,
        images,
        view="next",
        page=page,
        more=more,
        chart=data.chart(summary, (image.score for image in images)),
        key=secrets.token_urlsafe(12),
        comparable=data.comparable(summary),
        batch=_own_batch(request, data, name),
    )


@router.get("/pools/{name}/batch")
def taken(data: PageDataDep, name: str, key: str) -> HTMLResponse:
    """The images that this browser took."""
    summary, handed = data.pool(name), batch(data.daemon.catalog.images, name, key)
    return _pool_page(
        data, "batch.html", summary, handed.images, handed.id, view="batch", batch=key
    )


@router.get("/pools/{name}/pending")
@router.get("/pools/{name}/labeled")
@router.get("/pools/{name}/skipped")
def listed(request: Request, data: PageDataDep, name: str, page: Page = 1) -> HTMLResponse:
    """The images of a state, to look at and to undo."""
    state = cast(Listed, request.url.path.rpartition("/")[2])
    summary = data.pool(name)
    images, more = data.listed(summary, state, page)
    return _pool_page(data, "listed.html", summary, images, view=state, page=page, more=more)


def _page(template: str, status_code: int = 200, **values: Any) -> HTMLResponse:
    return HTMLResponse(render(template, **values), status_code, headers=_NO_STORE)


def _pool_page(
    data: PageData,
    template: str,
    pool: PoolSummary,
    images: Sequence[Ranked],
    own: str = "",
    **values: Any,
) -> HTMLResponse:
    common = {
        "pool": pool,
        "tiles": data.tiles(pool, images, own),
        "label_input": data.label_input(),
        "pending_seconds": data.daemon.settings.pending_seconds,
        "batch": "",
        "page": 1,
        "more": False,
    }
    return _page(template, **{**common, **values})


def _error_page(error: LlossError | RequestValidationError) -> HTMLResponse:
    if isinstance(error, RequestValidationError):
        wrong = [f"{found['loc'][-1]}: {found['msg']}" for found in error.errors()]
        return _page("error.html", 422, code=422, message="; ".join(wrong)[:500])
    code = status_of(error)
    response = _page("error.html", code, code=code, message=str(error))
    if isinstance(error, RequestError) and error.retry_after is not None:
        response.headers["Retry-After"] = retry_seconds(error)
    return response


def _own_batch(request: Request, data: PageData, pool: str) -> str:
    """The batch that this browser took last, if some of it is still pending."""
    key = request.cookies.get(_COOKIE, "")
    try:
        return key if key and still_pending(data.daemon.catalog.images, pool, key)[1] else ""
    except LlossError:
        return ""


def _hint(request: Request, data: PageData, name: str) -> str:
    """A shell command that adds a pool."""
    settings = data.daemon.settings
    root = settings.pool_roots[0] if settings.pool_roots else ""
    uri = f"{root.rstrip('/')}/…" if root else ""  # the root alone would be all pools at once
    address = f"{base_url_of(data.daemon, request)}/v1/pools/{name}"
    words = ["curl", "-X", "PUT", address, "-H", "Content-Type: application/json"]
    line = shlex.join([*words, "-d", json.dumps({"uri": uri}, ensure_ascii=False)])
    return f'{line} -H "Authorization: Bearer $TOKEN"' if settings.token else line


# Forms


class MarkForm(BaseModel):
    """The form of a tile."""

    image: str  # its id, percent-encoded
    do: Literal["label", "skip", "undo", "return"]
    label: str = Field("", max_length=1000)
    batch: str = Field("", max_length=100)
    selection: str = Field("", max_length=100)  # of the image when the page was shown
    allow_new_classes: bool = False


@router.post("/pools/{name}/mark")
def mark(data: PageDataDep, name: str, form: Annotated[MarkForm, Form()]) -> JSONResponse:
    """Label or skip an image, undo that, or return the image; for scripts."""
    daemon, images = data.daemon, data.daemon.catalog.images
    id = unquote(form.image, errors="surrogatepass")
    own = batch(images, name, form.batch).id if form.batch else ""
    state = marks(images, name, [id], own)[id].state
    if form.do == "label":
        label = form.label.strip().replace("\r\n", "\n")
        if not label and daemon.classes.required:
            raise RequestError(422, CHOOSE)
        try:
            daemon.labels.label(name, {id: label}, form.allow_new_classes)
        except NewClassError as error:
            reply = {"error": error.short, "new_class": error.name}
            return JSONResponse(reply, 422, headers=_NO_STORE)
    elif form.do == "skip":
        daemon.labels.skip(name, [id])
    elif form.do == "undo" and state == "labeled":
        images.unlabel(name, [id])
    elif form.do == "undo" and state == "skipped":
        daemon.labels.give_back(name, [id])
    elif form.do == "return" and state == "pending":
        daemon.labels.give_back(name, [id], own or form.selection)
    now = marks(images, name, [id], own)[id]
    counts = vars(images.counts(name))
    return JSONResponse({"state": now.state, "label": now.label, "counts": counts})


@router.post("/pools/{name}/take")
async def take(
    data: PageDataDep,
    name: str,
    k: Annotated[int, Form(ge=1, le=MAX_BATCH)],
    key: Annotated[str, Form(min_length=8, max_length=100, pattern="^[!-~]+$")],
    strategy: Annotated[Literal["", "top", "herding"], Form()] = "",
) -> Response:
    """Hand the next K out to this browser; the same form sent twice takes them once."""
    settings = SelectionSettings(k=k, strategy=strategy, at_most=True)
    await data.daemon.selections.select(name, settings, key=key)
    response = _redirect(f"/pools/{name}/batch?{urlencode({'key': key})}")
    response.set_cookie(
        _COOKIE, key, _COOKIE_SECONDS, path=f"/pools/{name}", httponly=True, samesite="strict"
    )
    return response


@router.post("/pools/{name}/return")
def give_back(
    data: PageDataDep, name: str, batch: Annotated[str, Form(max_length=100)]
) -> Response:
    """Return what is still pending of a batch."""
    selection, ids = still_pending(data.daemon.catalog.images, name, batch)
    data.daemon.labels.give_back(name, ids, selection)
    response = _redirect(f"/pools/{name}")
    response.delete_cookie(_COOKIE, path=f"/pools/{name}")
    return response


@router.post("/pools/{name}/score")
def score(data: PageDataDep, name: str, anew: Annotated[bool, Form()] = False) -> Response:
    """Score the pool."""
    data.daemon.jobs.submit(name, anew)
    return _redirect(f"/pools/{name}")


@router.post("/pools/{name}/cancel")
def cancel(data: PageDataDep, name: str, job: Annotated[str, Form(max_length=100)]) -> Response:
    """Stop a job."""
    data.daemon.jobs.cancel(job)
    return _redirect(f"/pools/{name}")


def _redirect(path: str) -> RedirectResponse:
    return RedirectResponse(path, 303)
