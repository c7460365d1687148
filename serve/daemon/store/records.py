"""What the catalog knows of a pool, a job and a pool's images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ImageState = Literal["free", "pending", "labeled", "skipped"]
"""Free to be handed out, handed out, labeled, or never to be handed out."""

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
        batch_size: images a run of the engine; 0 until it began, where the engine's own is taken.
        resumable: whether it failed and goes on where it was when the pool is submitted again.
        provider: that it began on; "" before that.
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
    batch_size: int = 0
    resumable: bool = False
    provider: str = ""


@dataclass(frozen=True)
class Counts:
    """How many images of a pool are what."""

    labeled: int
    pending: int
    skipped: int


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image that was once labeled, skipped or handed out.

    Attributes:
        state: of now.
        label: of a labeled one; "" where that is kept elsewhere.
        selection: that a pending one was handed out by.
    """

    state: ImageState
    label: str
    selection: str


@dataclass(frozen=True)
class Pending:
    """An image that was handed out.

    Attributes:
        id: of the image.
        selection: that handed it out.
        expires: when it becomes free again, Unix seconds.
        score: it was chosen by; None where that is no number.
        rank: in its selection, from 1.
    """

    id: str
    selection: str
    expires: float
    score: float | None
    rank: int


@dataclass(frozen=True)
class PoolScores:
    """A complete scores folder of a pool.

    Attributes:
        folder: absolute.
        model_sha256: of the model that made them.
        scored: images in it.
        skipped: images that could not be read.
    """

    folder: Path
    model_sha256: str
    scored: int
    skipped: int
