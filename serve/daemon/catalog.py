"""Pools, jobs, labels, pending images and selections, in SQLite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

JobState = Literal["queued", "running", "done", "failed", "cancelled"]


@dataclass(frozen=True)
class PoolRow:
    """A pool.

    Attributes:
        name: of letters, digits, ``.``, ``_`` and ``-``; begins with a letter or digit.
        uri: as :func:`lloss.pools.open_pool` takes it.
        created: when, Unix seconds.
        scores: its newest complete scores folder, absolute; None before the first.
        model_sha256: of the model that made them.
        scored: images in it.
        skipped: images that could not be read.
    """

    name: str
    uri: str
    created: float
    scores: Path | None
    model_sha256: str | None
    scored: int
    skipped: int


@dataclass(frozen=True)
class JobRow:
    """A pool on its way to be scored.

    Attributes:
        id: opaque.
        pool: its name.
        state: where it is.
        model_sha256: of the model that scores it.
        created: Unix seconds, as are ``started`` and ``ended``.
        done: images scored or skipped so far.
        total: images of the pool; None where counting them is not cheap.
        scored: images.
        skipped: images that could not be read.
        error: why it failed; "" otherwise.
        folder: of its scores, absolute.
    """

    id: str
    pool: str
    state: JobState
    model_sha256: str
    created: float
    started: float | None
    ended: float | None
    done: int
    total: int | None
    scored: int
    skipped: int
    error: str
    folder: Path


@dataclass(frozen=True)
class Counts:
    """How many images of a pool are what."""

    labeled: int
    pending: int
    skipped: int


class Catalog:
    """What the daemon must not forget, in ``data_dir/catalog.sqlite`` (WAL)."""

    def __init__(self, data_dir: Path) -> None:
        """Open or make it.

        Raises:
            SettingsError: it is damaged, of a later version, or another daemon holds ``data_dir``.
        """
        raise NotImplementedError

    def problem(self) -> str:
        """Why it cannot be written just now; "" when it can."""
        raise NotImplementedError

    def pools(self) -> list[PoolRow]:
        """All, by name."""
        raise NotImplementedError

    def pool(self, name: str) -> PoolRow:
        """One.

        Raises:
            RequestError: 404.
        """
        raise NotImplementedError

    def jobs(self, pool: str | None = None) -> list[JobRow]:
        """All, or those of a pool; the newest first."""
        raise NotImplementedError

    def job(self, id: str) -> JobRow:
        """One.

        Raises:
            RequestError: 404.
        """
        raise NotImplementedError

    def counts(self, pool: str) -> Counts:
        """What is known of a pool's images."""
        raise NotImplementedError

    def close(self) -> None:
        """Close it."""
        raise NotImplementedError
