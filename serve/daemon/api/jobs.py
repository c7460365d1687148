"""``/v1/jobs``: pools being scored."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from lloss.serve.daemon.api.pool_schemas import JobsView, JobView
from lloss.serve.daemon.deps import daemon_of, reject_unknown_parameters
from lloss.serve.daemon.services.pool_registry import NAME

router = APIRouter(
    prefix="/v1/jobs", tags=["jobs"], dependencies=[Depends(reject_unknown_parameters)]
)

JobId = Annotated[str, Path(min_length=1, max_length=100)]
_NONE: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such job."}}


@router.get("", summary="Jobs, the newest first", responses={404: {"description": "No such pool."}})
def jobs(
    request: Request, pool: Annotated[str | None, Query(pattern=f"^{NAME}$")] = None
) -> JobsView:
    """All jobs, or those of a pool."""
    daemon = daemon_of(request)
    return JobsView(jobs=[JobView.of(row, daemon.jobs) for row in daemon.catalog.jobs.rows(pool)])


@router.get("/{id}", summary="A job and its progress", responses=_NONE)
def job(request: Request, id: JobId) -> JobView:
    """How far it is, and how fast."""
    daemon = daemon_of(request)
    return JobView.of(daemon.catalog.jobs.row(id), daemon.jobs)


@router.delete("/{id}", summary="Cancel a job", responses=_NONE)
def cancel(request: Request, id: JobId) -> JobView:
    """Stop it between two batches and remove what it wrote; a job that has ended stays as it is.

    The pool keeps the scores that it had before.
    """
    daemon = daemon_of(request)
    return JobView.of(daemon.jobs.cancel(id), daemon.jobs)
