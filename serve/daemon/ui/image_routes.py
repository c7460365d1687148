"""Routes: images of pools, whole and as thumbnails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated
from urllib.parse import quote

import anyio
import anyio.to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.ui.thumbnails import PLACEHOLDER, Picture, whole
from lloss.serve.daemon.ui.ui_deps import Viewing, viewing_of

from lloss.errors import ImageError, PoolError
from lloss.pools import Item

router = APIRouter()

Id = Annotated[str, Query(description="The image's id, as the pool gives it.")]

_FRESH = "private, max-age=60"

_PICTURES: dict[str, dict[str, str]] = {
    "image/png": {},
    "image/jpeg": {},
    "image/gif": {},
    "image/webp": {},
}


@router.get(
    "/v1/pools/{name}/images",
    response_class=Response,
    responses={200: {"content": _PICTURES, "description": "The image."}},
)
async def image(request: Request, name: str, id: Id) -> Response:
    """An image of a pool: its own bytes where browsers know the format, else as PNG."""
    viewing = viewing_of(request)
    limits = viewing.daemon.settings.limits

    def made() -> Picture:
        return whole(_item(viewing, name, id), limits.image_pixels, limits.inflated_bytes)

    return _answer(request, await _in_turn(viewing, made))


@router.get("/pools/{name}/thumb", include_in_schema=False)
async def thumb(request: Request, name: str, id: Id) -> Response:
    """A thumbnail; a picture that stands for it, and why in a header, where there can be none."""
    viewing = viewing_of(request)

    def made() -> Picture:
        row = viewing.daemon.catalog.pools.row(name)
        key = viewing.viewer.thumbnail_key(row)
        return viewing.viewer.thumbnails.of(key, _item(viewing, name, id))

    try:
        return _answer(request, await _in_turn(viewing, made))
    except (ImageError, PoolError) as error:
        why = quote(str(error)[:500], safe=" ,:()")
        headers = {"X-Lloss-Error": why, "Cache-Control": "no-store", **_GUARD}
        return Response(PLACEHOLDER.content, 200, headers, PLACEHOLDER.media_type)


_GUARD = {
    "X-Content-Type-Options": "nosniff",
    # Of an image that is opened by itself: browsers style the page that they make of it.
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


async def _in_turn(viewing: Viewing, made: Callable[[], Picture]) -> Picture:
    """Few at a time, and who waits holds no thread that other requests need."""
    return await anyio.to_thread.run_sync(made, limiter=viewing.limiter, abandon_on_cancel=False)


def _item(viewing: Viewing, name: str, id: str) -> Item:
    found = viewing.daemon.pools.get(name).items([id]).get(id)
    if found is None:
        raise RequestError(404, f"the pool {name!r} has no image {id[:200]!r}")
    return found


def _answer(request: Request, picture: Picture) -> Response:
    headers = {"ETag": picture.etag, "Cache-Control": _FRESH, **_GUARD}
    known = {tag.strip().removeprefix("W/") for tag in _tags(request)}
    if picture.etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(picture.content, 200, headers, picture.media_type)


def _tags(request: Request) -> list[str]:
    return request.headers.get("if-none-match", "").split(",")
