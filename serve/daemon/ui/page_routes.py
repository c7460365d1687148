"""Routes: the pages that people open, and the forms on them.

They work without scripts: a form's reply leads back to the page that sent it. A script that sends
the same form and accepts JSON updates the page in place.
"""

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
from lloss.serve.daemon.deps import base_url_of
from lloss.serve.daemon.errors import RequestError, retry_seconds, status_of
from lloss.serve.daemon.services.hand_out import Ranked
from lloss.serve.daemon.services.label_classes import CHOOSE, NewClassError
from lloss.serve.daemon.ui import image_routes
from lloss.serve.daemon.ui.page_data import POOLS_PER_PAGE, PageData, PageDataDep, PoolSummary
from lloss.serve.daemon.ui.taken_images import Batch, Mark
from lloss.serve.daemon.ui.templates import render
from pydantic import BaseModel, Field
from starlette.staticfiles import StaticFiles

from lloss.errors import LlossError
from lloss.pools.uri import is_url

MAX_BATCH = 200
"""Images of a batch, which are all on one page."""

_COOKIE, _COOKIE_SECONDS = "lloss_batch", 7 * 24 * 3600
_NO_STORE = {"Cache-Control": "no-store"}
_STATIC = StaticFiles(packages=[("lloss.serve.daemon.ui", "static")])

Action = Literal["label", "skip", "undo", "return"]
Listed = Literal["pending", "labeled", "skipped"]
View = Literal["next", "batch"] | Listed
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
                if _accepts_json(request):
                    raise
                return _error_page(error)

        return handle


router = APIRouter(
    route_class=_PageRoute, include_in_schema=False, default_response_class=HTMLResponse
)
router.include_router(image_routes.router)


# Pages


@router.get("/")
def overview(request: Request, data: PageDataDep, page: Page = 1) -> HTMLResponse:
    """The pools, the model and the daemon's figures."""
    pools, total = data.pools(page), len(data.daemon.catalog.pools.rows())
    return _page(
        "overview.html",
        status=data.status(),
        model=data.model(),
        pools=pools,
        page=page,
        total=total,
        more=page * POOLS_PER_PAGE < total,
        hint=_hint(request, data, {pool.name for pool in pools}),
        roots=data.daemon.settings.pool_roots,
    )


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
    images, more = data.ranked(summary, page) if summary.scored else ([], False)
    return _pool_page(
        request,
        data,
        "pool.html",
        summary,
        images,
        view="next",
        page=page,
        more=more,
        chart=data.chart(summary, (image.score for image in images)),
        key=secrets.token_urlsafe(12),
        batch=_own_batch(request, data, name),
    )


@router.get("/pools/{name}/batch")
def batch(request: Request, data: PageDataDep, name: str, key: str) -> HTMLResponse:
    """The images that this browser took."""
    handed = data.batches.find(name, key)
    return _pool_page(
        request,
        data,
        "batch.html",
        data.pool(name),
        handed.images,
        own=handed.id,
        view="batch",
        batch=key,
    )


@router.get("/pools/{name}/pending")
@router.get("/pools/{name}/labeled")
@router.get("/pools/{name}/skipped")
def listed(request: Request, data: PageDataDep, name: str, page: Page = 1) -> HTMLResponse:
    """The images of a state, to look at and to undo."""
    state = cast(Listed, request.url.path.rpartition("/")[2])
    summary = data.pool(name)
    images, more = data.listed(summary, state, page)
    return _pool_page(
        request, data, "listed.html", summary, images, view=state, page=page, more=more
    )


def _page(template: str, status_code: int = 200, **values: Any) -> HTMLResponse:
    return HTMLResponse(render(template, **values), status_code, headers=_NO_STORE)


def _pool_page(
    request: Request,
    data: PageData,
    template: str,
    pool: PoolSummary,
    images: Sequence[Ranked],
    own: str = "",
    **values: Any,
) -> HTMLResponse:
    image = request.query_params.get("image", "")
    common = {
        "pool": pool,
        "tiles": data.tiles(pool, images, own),
        "status": data.status(),
        "label_input": data.label_input(),
        "did": request.query_params.get("did", "") if image else "",
        "done": unquote(image, errors="replace"),
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
    name = request.cookies.get(_COOKIE, "")
    try:
        return name if name and data.batches.pending(pool, name)[1] else ""
    except LlossError:
        return ""


def _hint(request: Request, data: PageData, names: set[str]) -> str:
    """A shell command that adds a pool with a new name."""
    name = next(f"photos{n}" for n in ("", *range(2, len(names) + 3)) if f"photos{n}" not in names)
    settings = data.daemon.settings
    root = settings.pool_roots[0] if settings.pool_roots else "/path/of/images"
    uri = f"{root.rstrip('/')}/…" if is_url(root) else root
    address = f"{base_url_of(data.daemon, request)}/v1/pools/{name}"
    words = ["curl", "-X", "PUT", address, "-H", "Content-Type: application/json"]
    line = shlex.join([*words, "-d", json.dumps({"uri": uri}, ensure_ascii=False)])
    return f'{line} -H "Authorization: Bearer $TOKEN"' if settings.token else line


# Forms


class MarkForm(BaseModel):
    """The form of a tile."""

    image: str  # its id, percent-encoded
    do: Action
    label: str = Field("", max_length=1000)
    view: View = "next"
    page: int = Field(1, ge=1)
    batch: str = Field("", max_length=100)
    selection: str = Field("", max_length=100)  # of the image when the page was shown
    allow_new_classes: bool = False


@router.post("/pools/{name}/mark")
def mark(
    request: Request, data: PageDataDep, name: str, form: Annotated[MarkForm, Form()]
) -> Response:
    """Label or skip an image, undo that, or return the image."""
    id, view = unquote(form.image, errors="surrogatepass"), form.view
    own = data.batches.find(name, form.batch).id if view == "batch" else ""
    try:
        now = _act(data, name, id, form, own)
    except NewClassError as error:
        return _confirm(request, error, form)
    if own and form.do == "undo" and now.state == "free":
        data.batches.hold(name, form.batch, id)
        now = data.batches.marks(name, [id], own)[id]
    if _accepts_json(request):
        counts = data.daemon.catalog.images.counts(name)
        reply = {"state": now.state, "label": now.label, "counts": vars(counts)}
        return JSONResponse(reply, headers=_NO_STORE)
    query = {"page": form.page} if view != "batch" else {"key": form.batch}
    path = f"/pools/{name}" if view == "next" else f"/pools/{name}/{view}"
    did: dict[str, str] = {}
    if len(form.image) <= 2000:
        did = {"did": now.state, "image": form.image}
    return _redirect(f"{path}?{urlencode({**query, **did})}")


def _act(data: PageData, pool: str, id: str, form: MarkForm, own: str) -> Mark:
    """Do what the form says, and return the new mark; ``own`` is the batch's selection."""
    labels, marks = data.daemon.labels, data.batches.marks
    state = marks(pool, [id], own)[id].state
    if form.do == "label":
        label = form.label.strip().replace("\r\n", "\n")
        if not label and data.daemon.classes.required:
            raise RequestError(422, CHOOSE)
        labels.label(pool, {id: label}, form.allow_new_classes)
    elif form.do == "skip":
        labels.skip(pool, [id])
    elif form.do == "undo" and state == "labeled":
        data.daemon.catalog.images.unlabel(pool, [id])
    elif form.do == "undo" and state == "skipped":
        labels.give_back(pool, [id])
    elif form.do == "return" and state == "pending":
        labels.give_back(pool, [id], own or form.selection)
    return marks(pool, [id], own)[id]


def _confirm(request: Request, error: NewClassError, form: MarkForm) -> Response:
    """Ask whether a new class is meant, with a form that sends the same again."""
    reply = {"error": error.short, "new_class": error.name}
    if _accepts_json(request):
        return JSONResponse(reply, 422, headers=_NO_STORE)
    again = {**form.model_dump(exclude={"selection"}), "allow_new_classes": "true"}
    return _page("newclass.html", 422, **reply, action=request.url.path, fields=again)


@router.post("/pools/{name}/take")
async def take(
    data: PageDataDep,
    name: str,
    k: Annotated[int, Form(ge=1, le=MAX_BATCH)],
    key: Annotated[str, Form(min_length=8, max_length=100, pattern="^[!-~]+$")],
) -> Response:
    """Hand the next K out to this browser; the same form sent twice takes them once."""
    batch = Batch(k, key)
    await data.daemon.selections.select(name, batch.request, key)
    response = _redirect(f"/pools/{name}/batch?{urlencode({'key': str(batch)})}")
    response.set_cookie(
        _COOKIE, str(batch), _COOKIE_SECONDS, path=f"/pools/{name}", httponly=True,
        samesite="strict",
    )  # fmt: skip
    return response


@router.post("/pools/{name}/return")
def give_back(
    data: PageDataDep, name: str, batch: Annotated[str, Form(max_length=100)]
) -> Response:
    """Return what is still pending of a batch."""
    selection, ids = data.batches.pending(name, batch)
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


def _accepts_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")
