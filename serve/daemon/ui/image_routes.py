"""Routes: images of pools, whole and as thumbnails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated
from urllib.parse import quote

import anyio.to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.ui.page_data import PageData, PageDataDep
from lloss.serve.daemon.ui.thumbnails import PLACEHOLDER, Picture, whole_picture

from lloss.errors import ImageError, PoolError
from lloss.pools import Item

router = APIRouter()

Id = Annotated[str, Query(description="The image's id, as the pool gives it.")]

_FORMATS: dict[str, dict[str, str]] = {
    f"image/{name}": {} for name in ("png", "jpeg", "gif", "webp")
}
_GUARD = {
    "X-Content-Type-Options": "nosniff",
    # For an image that is opened by itself: browsers make a page of it, and style that.
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


@router.get(
    "/v1/pools/{name}/images",
    response_class=Response,
    responses={200: {"content": _FORMATS, "description": "The image."}},
)
async def image(request: Request, data: PageDataDep, name: str, id: Id) -> Response:
    """An image of a pool: its own bytes where browsers know the format, else PNG."""
    pixels = data.daemon.settings.limits.image_pixels
    return await _reply(request, data, lambda: whole_picture(_item(data, name, id), pixels))


@router.get("/pools/{name}/thumb", include_in_schema=False)
async def thumb(request: Request, data: PageDataDep, name: str, id: Id) -> Response:
    """A thumbnail; a placeholder, and the reason in a header, if there is no image."""

    def read() -> Picture:
        return data.thumbnails.get(data.daemon.catalog.pools.row(name), _item(data, name, id))

    try:
        return await _reply(request, data, read)
    except (ImageError, PoolError) as error:
        reason = quote(str(error)[:500], safe=" ,:()")
        headers = {"X-Lloss-Error": reason, "Cache-Control": "no-store", **_GUARD}
        return Response(PLACEHOLDER.content, 200, headers, PLACEHOLDER.media_type)


def _item(data: PageData, name: str, id: str) -> Item:
    item = data.daemon.pools.get(name).items([id]).get(id)
    if item is None:
        raise RequestError(404, f"the pool {name!r} has no image {id[:200]!r}")
    return item


async def _reply(request: Request, data: PageData, read: Callable[[], Picture]) -> Response:
    picture = await anyio.to_thread.run_sync(read, limiter=data.image_limiter)
    headers = {"ETag": picture.etag, "Cache-Control": "private, max-age=60", **_GUARD}
    if picture.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(picture.content, 200, headers, picture.media_type)
