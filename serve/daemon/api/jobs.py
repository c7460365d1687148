"""``/v1/jobs``: jobs that score pools."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from lloss.serve.daemon.dependencies import DaemonDep, reject_unknown_parameters
from lloss.serve.daemon.services.pool_registry import NAME
from lloss.serve.daemon.store.records import JobRow

router = APIRouter(
    prefix="/v1/jobs",
    tags=["jobs"],
    dependencies=[Depends(reject_unknown_parameters)],
    responses={404: {"description": "There is no such job, or no such pool."}},
)

JobId = Annotated[str, Path(min_length=1, max_length=100)]


@router.get("")
def jobs(
    daemon: DaemonDep, pool: Annotated[str | None, Query(pattern=f"^{NAME}$")] = None
) -> dict[str, list[JobRow]]:
    """List all jobs, or those of a pool, the newest first."""
    rows = daemon.catalog.jobs.rows(pool)
    return {"jobs": [daemon.jobs.live(row) for row in rows]}


@router.get("/{id}")
def job(daemon: DaemonDep, id: JobId) -> JobRow:
    """Show a job: how many images are done, and how fast."""
    return daemon.jobs.live(daemon.catalog.jobs.row(id))


@router.delete("/{id}")
def cancel(daemon: DaemonDep, id: JobId) -> JobRow:
    """Stop a job between two batches and remove what it wrote; an ended job stays as it is.

    The pool keeps its earlier scores.
    """
    return daemon.jobs.cancel(id)
