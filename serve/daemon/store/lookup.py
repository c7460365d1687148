"""Rows by the names that requests give."""

from __future__ import annotations

import sqlite3
from typing import cast

from lloss.serve.daemon.errors import RequestError

from lloss.text.clean_names import is_text


def pool_row(db: sqlite3.Connection, name: str) -> sqlite3.Row:
    """The row of a pool.

    Raises:
        RequestError: 404.
    """
    found = None
    if is_text(name):
        found = db.execute("SELECT * FROM pools WHERE name = ?", [name]).fetchone()
    if found is None:
        raise RequestError(404, f"no pool {name[:100]!r}; PUT it first, or see GET /v1/pools")
    return cast(sqlite3.Row, found)


def job_row(db: sqlite3.Connection, id: str) -> sqlite3.Row:
    """The row of a job, with the name of its pool as ``pool_name``.

    Raises:
        RequestError: 404.
    """
    found = None
    if is_text(id):
        found = db.execute(f"{JOBS} WHERE jobs.id = ?", [id]).fetchone()
    if found is None:
        raise RequestError(404, f"no job {id[:100]!r}; see GET /v1/jobs")
    return cast(sqlite3.Row, found)


JOBS = """
    SELECT jobs.*, pools.name AS pool_name FROM jobs JOIN pools ON pools.number = jobs.pool
"""
