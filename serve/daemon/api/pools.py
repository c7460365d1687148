"""``/v1/pools``: pools, what is next of them, and what is labeled."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from lloss.serve.daemon.api.label_requests import labels_of_request
from lloss.serve.daemon.api.pool_schemas import (
    Id,
    IdsBody,
    JobView,
    LabeledView,
    LabelsView,
    LabelView,
    MarkedView,
    PendingsView,
    PendingView,
    PoolPut,
    PoolsView,
    PoolView,
    PreviewView,
    RankedView,
    ReturnBody,
    ReturnedView,
    SelectBody,
    SelectionView,
    labels_schema,
)
from lloss.serve.daemon.deps import Daemon, daemon_of, reject_unknown_parameters
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.labelstudio.import_tasks import tasks_of
from lloss.serve.daemon.services.pool_registry import NAME
from lloss.serve.daemon.services.selections import HandedOut, Ranked, SelectionRequest
from starlette.concurrency import run_in_threadpool

from lloss.annotations.label_csv import labels_text
from lloss.text.csv_table import csv_text

router = APIRouter(
    prefix="/v1/pools", tags=["pools"], dependencies=[Depends(reject_unknown_parameters)]
)

Name = Annotated[str, Path(pattern=f"^{NAME}$", description="Of the pool.")]
Key = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="Anything, new for each selection; a request that is sent again with its key "
        "gets the same images again.",
    ),
]
Format = Literal["json", "csv", "ids", "label-studio"]
Responses = dict[int | str, dict[str, Any]]

SELECT_AT_ONCE = 16
"""Choices that are made at once, each of another pool."""

NO_POOL: Responses = {404: {"description": "There is no such pool."}}
NOT_SCORED: Responses = {409: {"description": "The pool has no scores, or too few are left."}}
UNKNOWN: Responses = {422: {"description": "A value that cannot be, or an id of another pool."}}
TEXT = {"schema": {"type": "string"}}


@router.get("", summary="All pools")
def pools(request: Request) -> PoolsView:
    """Each with its scores, what is known of its images, and its newest job."""
    daemon = daemon_of(request)
    return PoolsView(pools=daemon.catalog.pools.each(lambda row: _view(daemon, row.name)))


@router.put(
    "/{name}",
    summary="Name a pool",
    responses={
        403: {"description": "It is outside every root."},
        409: {"description": "Another pool has the name."},
        422: {"description": "It cannot be opened, or the scores are not its own."},
    },
)
def put(request: Request, name: Name, body: PoolPut) -> PoolView:
    """A folder of images, or whatever else lloss score takes; the same again does nothing."""
    daemon = daemon_of(request)
    daemon.pools.put(name, body.uri, body.scores)
    return _view(daemon, name)


@router.get("/{name}", summary="A pool", responses=NO_POOL)
def pool(request: Request, name: Name) -> PoolView:
    """Its scores, what is known of its images, and its newest job with progress and rate."""
    return _view(daemon_of(request), name)


@router.delete(
    "/{name}",
    summary="Forget a pool",
    status_code=204,
    response_class=Response,
    responses={**NO_POOL, 409: {"description": "A job of it is under way."}},
)
def delete(request: Request, name: Name) -> None:
    """Its labels, jobs and scores are removed, its images are not."""
    daemon_of(request).pools.remove(name)


@router.post(
    "/{name}/score", summary="Score a pool in the background", status_code=202, responses=NO_POOL
)
def score(
    request: Request,
    response: Response,
    name: Name,
    anew: Annotated[
        bool, Query(description="Throw away what a job that failed has scored, and begin again.")
    ] = False,
) -> JobView:
    """The job that does it: a new one, the one that is under way, or one that failed half-way.

    It goes on after a restart. The pool keeps its old scores until it is done, and its labels and
    pending images for good.
    """
    daemon = daemon_of(request)
    job = daemon.jobs.submit(name, anew)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return JobView.of(job, daemon.jobs)


@router.post(
    "/{name}/select",
    summary="Hand out the K images to label next",
    response_model=SelectionView | list[dict[str, Any]],
    responses={
        200: {"content": {"text/csv": TEXT, "text/plain": TEXT}},
        **NO_POOL,
        **NOT_SCORED,
        **UNKNOWN,
    },
)
async def select(
    request: Request,
    name: Name,
    body: SelectBody,
    idempotency_key: Key = None,
    format: Format = "json",
) -> Response:
    """None that is labeled, skipped, excluded, or that somebody else has.

    They are pending from now on: nobody else gets them until they are labeled, returned, or have
    expired. ``format`` makes the answer JSON, CSV (id, score, rank), an id a line, or Label
    Studio's tasks.
    """
    check = _check_lines if format == "ids" else None
    handed = await chosen(request, name, body.request(), idempotency_key or "", check)
    return await run_in_threadpool(_told, daemon_of(request), handed, format, request)


async def chosen(
    request: Request,
    pool: str,
    asked: SelectionRequest,
    key: str,
    check: Callable[[Sequence[Ranked]], None] | None = None,
) -> HandedOut:
    """See :meth:`Selections.select`; one choice of a pool at a time, some of all pools together.

    A choice takes memory and cores. Who waits for another of the same pool holds neither a thread
    nor one of the places that other pools need.
    """
    state, selections = request.app.state, daemon_of(request).selections
    given: tuple[Any, ...] = (pool, asked, key) if check is None else (pool, asked, key, check)
    earlier = await run_in_threadpool(selections.replayed, pool, asked, key) if key else None
    if earlier is not None:
        return await run_in_threadpool(selections.select, *given)
    if not hasattr(state, "selecting"):
        state.selecting = anyio.CapacityLimiter(SELECT_AT_ONCE)
        state.turns = WeakValueDictionary()
    turn = state.turns.setdefault(pool, asyncio.Lock())
    async with turn:
        return await anyio.to_thread.run_sync(selections.select, *given, limiter=state.selecting)


def _told(daemon: Daemon, handed: HandedOut, format: Format, request: Request) -> Response:
    headers = {"Lloss-Selection": handed.id, "Lloss-Replayed": str(handed.replayed).lower()}
    if handed.unknown:
        headers["Lloss-Unknown"] = str(handed.unknown)
    if handed.notes:
        notes = " ".join("; ".join(handed.notes).split())  # a header is one line
        headers["Lloss-Notes"] = notes.encode("ascii", "backslashreplace").decode()
    if format == "json":
        view = SelectionView.of(handed)
        return Response(view.model_dump_json(), media_type="application/json", headers=headers)
    if format == "label-studio":
        return JSONResponse(tasks_of(daemon, handed, request), headers=headers)
    if format == "csv":
        rows = ((one.id, one.score, one.rank) for one in handed.images)
        text = csv_text(("id", "score", "rank"), rows, readable=False)
        return Response(text, media_type="text/csv", headers=headers)
    lines = "".join(f"{one.id}\n" for one in handed.images)
    return Response(lines, media_type="text/plain", headers=headers)


@router.get(
    "/{name}/preview",
    summary="The images that would be handed out next",
    responses={**NO_POOL, **NOT_SCORED},
)
def preview(
    request: Request, name: Name, k: Annotated[int, Query(ge=1, le=1000)] = 20
) -> PreviewView:
    """The best K that are free, without handing them out."""
    return PreviewView(images=RankedView.listed(daemon_of(request).selections.preview(name, k)))


@router.get("/{name}/pending", summary="Images that somebody has", responses=NO_POOL)
def pending(
    request: Request, name: Name, limit: Annotated[int, Query(ge=1, le=100_000)] = 1000
) -> PendingsView:
    """Those that become free first at the head."""
    catalog = daemon_of(request).catalog
    found = catalog.images.pending(name, limit)
    total = catalog.images.counts(name).pending
    return PendingsView(total=total, images=[PendingView.of(one) for one in found])


@router.get(
    "/{name}/labels",
    summary="The labels of a pool",
    response_model=LabelsView,
    responses={200: {"content": {"text/csv": TEXT}}, **NO_POOL},
)
def labels(
    request: Request,
    name: Name,
    format: Literal["json", "csv"] | None = None,
    without: Annotated[
        bool, Query(description="In CSV, also the images whose label is kept elsewhere.")
    ] = False,
) -> Response | LabelsView:
    """As JSON, or by ``format`` or ``Accept`` as the CSV that ``lloss train --labels`` takes.

    With ``without`` the CSV is one for ``lloss select --exclude``: it holds rows without a label.
    Otherwise the header ``Lloss-Without-Label`` says how many were left out.
    """
    held = daemon_of(request).catalog.images.labels(name)
    wants_csv = "text/csv" in request.headers.get("accept", "")
    if format == "csv" or (format is None and wants_csv):
        rows = {id: label for id, label in held.items() if label or without}
        left_out = {"Lloss-Without-Label": str(len(held) - len(rows))}
        return Response(labels_text(rows), media_type="text/csv", headers=left_out)
    view = LabelsView(labels=[LabelView(id=id, label=label) for id, label in held.items()])
    return Response(view.model_dump_json(), media_type="application/json")


@router.post(
    "/{name}/labels",
    summary="Mark images labeled",
    responses={**NO_POOL, **UNKNOWN, 415: {"description": "Neither JSON nor CSV."}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": labels_schema()},
                "text/csv": TEXT,
            },
        }
    },
)
async def label(
    request: Request,
    name: Name,
    format: Literal["label-studio"] | None = None,
    control: Annotated[
        str | None,
        Query(max_length=1000, description="Of Label Studio's, whose choice is the label."),
    ] = None,
    allow_new_classes: Annotated[
        bool, Query(description="Accept classes that neither the model nor a label knows.")
    ] = False,
    without: Annotated[
        bool, Query(description="Accept images without a label: it is kept elsewhere.")
    ] = False,
) -> LabeledView:
    """All of them, or none where an id is not of the pool, or a class is missing or new.

    JSON, a CSV with a column ``id`` and perhaps a column ``label``, or (by ``format``) an export of
    Label Studio's as JSON. A label given again replaces the first; a row without one never does.
    """
    daemon = daemon_of(request)
    body, kind = await request.body(), request.headers.get("content-type", "")
    label_studio = format == "label-studio"

    def mark() -> LabeledView:
        given = labels_of_request(body, kind, name, label_studio, control, without)
        accepted = dataclasses.replace(
            given.accepted,
            new_classes=allow_new_classes or given.accepted.new_classes,
            without=without or given.accepted.without,
        )
        labels = dict(given.labels)
        if label_studio and daemon.classes.required and not accepted.without:
            labels = {id: label for id, label in labels.items() if label}
        done = daemon.selections.label(name, labels, accepted)
        without_class = len(given.labels) - len(labels)
        return LabeledView(**vars(done), without_class=without_class, disputed=given.disputed)

    return await run_in_threadpool(mark)


@router.delete("/{name}/labels", summary="Take labels back", responses=NO_POOL)
def unlabel(
    request: Request, name: Name, id: Annotated[list[Id], Query(min_length=1, max_length=1000)]
) -> MarkedView:
    """Images that are not labeled stay as they are."""
    return MarkedView(images=daemon_of(request).selections.unlabel(name, id))


@router.post("/{name}/return", summary="Free images", responses=NO_POOL)
def give_back(request: Request, name: Name, body: ReturnBody) -> ReturnedView:
    """Pending and skipped ones can be handed out again; others stay as they are.

    With the ``selection`` that handed them out, those that expired and were handed out again to
    somebody else stay theirs.
    """
    selections = daemon_of(request).selections
    return ReturnedView(**vars(selections.give_back(name, body.ids, body.selection)))


@router.post("/{name}/skip", summary="Never hand images out", responses={**NO_POOL, **UNKNOWN})
def skip(request: Request, name: Name, body: IdsBody) -> MarkedView:
    """Until they are returned. Labeled ones stay labeled."""
    return MarkedView(images=daemon_of(request).selections.skip(name, body.ids))


def _view(daemon: Daemon, name: str) -> PoolView:
    catalog = daemon.catalog
    row, counts = catalog.pools.row(name), catalog.images.counts(name)
    return PoolView.of(row, counts, catalog.jobs.newest(name), daemon.jobs)


def _check_lines(images: Sequence[Ranked]) -> None:
    broken = next((one.id for one in images if one.id.splitlines() != [one.id]), None)
    if broken is not None:
        raise RequestError(
            422, f"the id {broken!r} has a line break in it, so a list of ids would lie: "
            "ask for csv or json; nothing was handed out"
        )  # fmt: skip
