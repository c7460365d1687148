"""``/v1/pools``: pools, their selections, and their labels."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from lloss.serve.daemon.api.label_requests import labels_of_export, labels_of_request
from lloss.serve.daemon.api.pool_schemas import (
    MAX_IDS,
    Id,
    IdsBody,
    LabeledView,
    LabelsBody,
    NoBody,
    PoolBody,
    PoolView,
    ReturnBody,
    SelectBody,
)
from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.dependencies import DaemonDep, reject_unknown_parameters
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.labelstudio.import_tasks import tasks_of
from lloss.serve.daemon.services.hand_out import HandedOut, Ranked
from lloss.serve.daemon.services.image_labels import Returned
from lloss.serve.daemon.services.pool_registry import NAME
from lloss.serve.daemon.store.records import JobRow, Pending
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool

from lloss.annotations import Problems
from lloss.annotations.label_csv import labels_text
from lloss.errors import LabelError
from lloss.pools.uri import without_secrets
from lloss.text.csv_table import csv_text

router = APIRouter(
    prefix="/v1/pools",
    tags=["pools"],
    dependencies=[Depends(reject_unknown_parameters)],
    responses={404: {"description": "There is no such pool."}},
)

Name = Annotated[str, Path(pattern=f"^{NAME}$", description="Of the pool.")]
Key = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="Any text, new for each selection; a request that is sent again with its key "
        "gets the same images again.",
    ),
]
Format = Literal["json", "csv", "label-studio"]
TEXT = {"schema": {"type": "string"}}


@router.get("")
def pools(daemon: DaemonDep) -> dict[str, list[PoolView]]:
    """List all pools, each with its scores, the states of its images, and its newest job."""
    return {"pools": daemon.catalog.pools.each(lambda row: _view(daemon, row.name))}


@router.put("/{name}")
def put(daemon: DaemonDep, name: Name, body: PoolBody) -> PoolView:
    """Add a pool: a folder of images, or whatever lloss score takes; repeating it does nothing."""
    daemon.pools.put(name, body.uri, body.scores)
    return _view(daemon, name)


@router.get("/{name}")
def pool(daemon: DaemonDep, name: Name) -> PoolView:
    """Show a pool, its scores, the states of its images, and its newest job with progress."""
    return _view(daemon, name)


@router.delete("/{name}", status_code=204, response_class=Response)
def delete(daemon: DaemonDep, name: Name) -> None:
    """Remove a pool, its labels, jobs and scores, not its images; 409 while a job runs."""
    daemon.pools.remove(name)


@router.post("/{name}/score", status_code=202)
def score(
    daemon: DaemonDep,
    response: Response,
    name: Name,
    body: NoBody | None = None,
    anew: Annotated[
        bool, Query(description="Discard what a failed job has scored, and start again.")
    ] = False,
) -> JobRow:
    """Score a pool in the background, by a new job, the current one, or one that failed half-way.

    The job continues after a restart. The pool keeps its old scores until the job is done, and its
    labels and pending images for good.
    """
    job = daemon.jobs.submit(name, anew)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return daemon.jobs.live(job)


@router.post(
    "/{name}/select",
    response_model=HandedOut | list[dict[str, Any]],
    responses={200: {"content": {"text/csv": TEXT}}},
)
async def select(
    request: Request,
    daemon: DaemonDep,
    name: Name,
    body: SelectBody,
    format: Format = "json",
    idempotency_key: Key = None,
) -> Response:
    """Hand out the next K images; they are pending until labeled, returned or expired.

    As JSON, or by ``format`` as CSV or as tasks for Label Studio. The header ``Lloss-Selection``
    has the selection's id, ``Lloss-Unknown`` counts ids to exclude that match nothing,
    ``Lloss-Notes`` has warnings about the scores.
    """
    check = _csv if format == "csv" else None
    handed = await daemon.selections.select(
        name, body.settings(), body.exclude, idempotency_key or "", check
    )
    return await run_in_threadpool(_selection_reply, daemon, handed, format, request)


def _selection_reply(
    daemon: Daemon, handed: HandedOut, format: Format, request: Request
) -> Response:
    headers = {"Lloss-Selection": handed.id, "Lloss-Replayed": str(handed.replayed).lower()}
    if handed.unknown:
        headers["Lloss-Unknown"] = str(handed.unknown)
    if handed.notes:
        notes = " ".join("; ".join(handed.notes).split())  # a header is one line
        headers["Lloss-Notes"] = notes.encode("ascii", "backslashreplace").decode()
    if format == "json":
        return Response(to_json(handed), media_type="application/json", headers=headers)
    if format == "label-studio":
        return JSONResponse(tasks_of(daemon, handed, request), headers=headers)
    return Response(_csv(handed), media_type="text/csv", headers=headers)


def _csv(handed: HandedOut) -> str:
    rows = ((one.id, one.score, one.rank, one.reason) for one in handed.images)
    try:
        return csv_text(("id", "score", "rank", "reason"), rows)
    except LabelError as error:
        raise RequestError(409, f"{error}; ask with format=json") from error


@router.get("/{name}/preview")
def preview(
    daemon: DaemonDep, name: Name, k: Annotated[int, Query(ge=1, le=1000)] = 20
) -> dict[str, list[Ranked]]:
    """Show the next K free images, as the next selection would choose them."""
    return {"images": daemon.selections.preview(name, k)}


@router.get("/{name}/pending")
def pending(
    daemon: DaemonDep, name: Name, limit: Annotated[int, Query(ge=1, le=100_000)] = 1000
) -> dict[str, int | list[Pending]]:
    """List pending images, those that become free first at the head, and count all (total)."""
    images = daemon.catalog.images
    return {"total": images.counts(name).pending, "images": images.pending(name, limit)}


@router.get(
    "/{name}/labels",
    response_model=dict[str, list[dict[str, str]]],
    responses={200: {"content": {"text/csv": TEXT}}},
)
def labels(
    daemon: DaemonDep,
    name: Name,
    format: Literal["json", "csv"] = "json",
    without: Annotated[
        bool, Query(description="In CSV, also the images whose label is kept elsewhere.")
    ] = False,
) -> Response:
    """List labels, as JSON, or by ``format`` as CSV for ``lloss train --labels``.

    With ``without`` the CSV is one for ``lloss select --exclude``: it has rows without a label.
    Otherwise the header ``Lloss-Without-Label`` counts those left out.
    """
    stored = daemon.catalog.images.labels(name)
    if format == "csv":
        rows = {id: label for id, label in stored.items() if label or without}
        left_out = {"Lloss-Without-Label": str(len(stored) - len(rows))}
        return Response(labels_text(rows), media_type="text/csv", headers=left_out)
    listed = [{"id": id, "label": label} for id, label in stored.items()]
    return Response(to_json({"labels": listed}), media_type="application/json")


_LABELS = {"application/json": {"schema": LabelsBody.model_json_schema()}, "text/csv": TEXT}


@router.post(
    "/{name}/labels", openapi_extra={"requestBody": {"required": True, "content": _LABELS}}
)
async def label(
    request: Request,
    daemon: DaemonDep,
    name: Name,
    format: Literal["label-studio"] | None = None,
    control: Annotated[
        str | None,
        Query(max_length=1000, description="Label Studio's control whose choice is the label."),
    ] = None,
    allow_new_classes: Annotated[
        bool, Query(description="Accept classes that neither the model nor a label has.")
    ] = False,
    without: Annotated[
        bool, Query(description="Accept images without a label: it is kept elsewhere.")
    ] = False,
) -> LabeledView:
    """Label images: all, or none when an id is of another pool, or a class is missing or new.

    JSON, a CSV with a column ``id`` and perhaps a column ``label``, or (by ``format``) a JSON
    export of Label Studio. A new label replaces an earlier one; a row without a label keeps it.
    """
    body, media_type = await request.body(), request.headers.get("content-type", "")

    def store() -> LabeledView:
        disputed = without_class = 0
        problems = Problems()
        if format == "label-studio":
            labels, disputed = labels_of_export(body, name, control)
            if daemon.classes.required and not without:
                without_class = sum(not label for label in labels.values())
                labels = {id: label for id, label in labels.items() if label}
        else:
            labels = labels_of_request(body, media_type, without, problems)
        if not labels and not without_class:
            raise LabelError("the request holds no label")
        if len(labels) > MAX_IDS:
            raise RequestError(422, f"{len(labels)} labels: give at most {MAX_IDS} in a request")
        done = daemon.labels.label(name, labels, allow_new_classes, without)
        return LabeledView(
            **vars(done), without_class=without_class, disputed=disputed, notes=problems.notes
        )

    return await run_in_threadpool(store)


@router.delete("/{name}/labels")
def unlabel(
    daemon: DaemonDep, name: Name, id: Annotated[list[Id], Query(min_length=1, max_length=1000)]
) -> dict[str, int]:
    """Remove labels; images that are not labeled stay as they are."""
    return {"images": daemon.catalog.images.unlabel(name, id)}


@router.post("/{name}/return")
def give_back(daemon: DaemonDep, name: Name, body: ReturnBody) -> Returned:
    """Free pending and skipped images; others stay as they are.

    With ``selection``, images that expired and that another selection has now stay pending.
    """
    return daemon.labels.give_back(name, body.ids, body.selection)


@router.post("/{name}/skip")
def skip(daemon: DaemonDep, name: Name, body: IdsBody) -> dict[str, int]:
    """Never hand images out until they are returned; labeled ones stay labeled."""
    return {"images": daemon.labels.skip(name, body.ids)}


def _view(daemon: Daemon, name: str) -> PoolView:
    catalog = daemon.catalog
    row, job = catalog.pools.row(name), catalog.jobs.newest(name)
    return PoolView(
        name=row.name,
        uri=without_secrets(row.uri),
        created=row.created,
        scores=row.scores,
        images=catalog.images.counts(name),
        job=daemon.jobs.live(job) if job else None,
    )
