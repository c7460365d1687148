"""The rows of the catalog, as the daemon uses them. Times are Unix seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ImageState = Literal["free", "pending", "labeled", "skipped"]
"""Available, handed out, labeled, or never to be handed out."""

JobState = Literal["queued", "running", "done", "failed", "cancelled"]


@dataclass(frozen=True)
class PoolScores:
    """A complete scores folder of a pool.

    Attributes:
        folder: absolute.
        model_sha256: of the model that predicted them.
        scored: images in it.
        skipped: images that could not be read.
    """

    folder: Path
    model_sha256: str
    scored: int
    skipped: int


@dataclass(frozen=True)
class PoolRow:
    """A pool.

    Attributes:
        name: letters, digits, ``.``, ``_`` and ``-``, the first a letter or digit.
        uri: as :func:`lloss.pools.open_pool` takes it.
        created: when it was added.
        scores: its newest complete scores folder, absolute; None before the first.
        model_sha256: of the model that predicted them.
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
    """A job that scores a pool.

    Attributes:
        id: opaque.
        pool: name of the pool.
        model_sha256: of the model that scores it.
        total: images of the pool; None if counting them is expensive.
        scored: images so far.
        skipped: images so far that could not be read.
        error: why it failed, or "".
        folder: of its scores, absolute.
        batch_size: images per inference; 0 until the engine's own is known.
        resumable: whether it failed and continues when the pool is submitted again.
        provider: execution provider that it began with; "" before that.
    """

    id: str
    pool: str
    state: JobState
    model_sha256: str
    created: float
    started: float | None
    ended: float | None
    total: int | None
    scored: int
    skipped: int
    error: str
    folder: Path
    batch_size: int = 0
    resumable: bool = False
    provider: str = ""

    @property
    def done(self) -> int:
        """Images scored or skipped so far."""
        return self.scored + self.skipped


@dataclass(frozen=True)
class Counts:
    """Images of a pool by state."""

    labeled: int
    pending: int
    skipped: int


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image that was labeled, skipped or handed out at least once.

    Attributes:
        state: of now.
        label: "" if it is not labeled, or its label is stored elsewhere.
        selection: that handed it out, if it is pending.
    """

    state: ImageState
    label: str
    selection: str


@dataclass(frozen=True)
class Pending:
    """An image that is handed out.

    Attributes:
        id: of the image.
        selection: that handed it out.
        expires: when it becomes free again.
        score: by which it was selected; None if that is not a number.
        rank: in its selection, from 1.
    """

    id: str
    selection: str
    expires: float
    score: float | None
    rank: int


@dataclass(frozen=True)
class StoredReply:
    """The reply to a request with an idempotency key.

    Attributes:
        request: fingerprint of the request.
        content: of the reply.
    """

    request: str
    content: bytes
