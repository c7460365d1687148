"""``/v1/jobs``: jobs that score pools."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from lloss.serve.daemon.api.pool_schemas import JobsView, JobView
from lloss.serve.daemon.deps import DaemonDep, reject_unknown_parameters
from lloss.serve.daemon.services.pool_registry import NAME

router = APIRouter(
    prefix="/v1/jobs", tags=["jobs"], dependencies=[Depends(reject_unknown_parameters)]
)

JobId = Annotated[str, Path(min_length=1, max_length=100)]
_NO_JOB: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such job."}}


@router.get("", summary="Jobs, the newest first", responses={404: {"description": "No such pool."}})
def jobs(
    daemon: DaemonDep, pool: Annotated[str | None, Query(pattern=f"^{NAME}$")] = None
) -> JobsView:
    """All jobs, or those of a pool."""
    return JobsView(jobs=[JobView.of(row, daemon.jobs) for row in daemon.catalog.jobs.rows(pool)])


@router.get("/{id}", summary="A job and its progress", responses=_NO_JOB)
def job(daemon: DaemonDep, id: JobId) -> JobView:
    """How many images are done, and how fast."""
    return JobView.of(daemon.catalog.jobs.row(id), daemon.jobs)


@router.delete("/{id}", summary="Cancel a job", responses=_NO_JOB)
def cancel(daemon: DaemonDep, id: JobId) -> JobView:
    """Stop it between two batches and remove what it wrote; an ended job stays as it is.

    The pool keeps its earlier scores.
    """
    return JobView.of(daemon.jobs.cancel(id), daemon.jobs)
