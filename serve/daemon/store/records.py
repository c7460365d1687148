"""The rows of the catalog, as the daemon uses them. Times are Unix seconds, folders absolute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, computed_field

ImageState = Literal["free", "pending", "labeled", "skipped"]
"""Available, handed out, labeled, or never to be handed out."""

JobState = Literal["queued", "running", "done", "failed", "cancelled"]


@dataclass(frozen=True)
class PoolScores:
    """A complete scores folder, its model, and images scored and skipped (unreadable)."""

    folder: Path
    model_sha256: str
    scored: int
    skipped: int


@dataclass(frozen=True)
class PoolRow:
    """A pool, and its newest scores."""

    name: str
    uri: str
    created: float
    scores: PoolScores | None


@dataclass(frozen=True)
class JobRow:
    """A job that scores a pool, as the catalog and the API have it.

    ``batch_size`` is 0 until the engine's own is known.
    """

    id: str
    pool: str
    state: JobState
    model_sha256: str
    created: float
    started: float | None
    ended: float | None
    total: Annotated[
        int | None, Field(description="Images of the pool; null when counting is not cheap.")
    ]
    scored: int
    skipped: int
    error: str
    folder: Annotated[Path, Field(exclude=True)]
    batch_size: int = 0
    resumable: Annotated[
        bool, Field(description="Whether it continues, submitted again, where it failed.")
    ] = False
    rate: Annotated[float | None, Field(description="Images per second of a running job.")] = None

    @computed_field  # type: ignore[prop-decorator]
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


class ImageRow(NamedTuple):
    """The state of an image, its label ("" if stored elsewhere), and the selection it is in."""

    state: ImageState
    label: str
    selection: str


@dataclass(frozen=True)
class Pending:
    """An image that is handed out until ``expires``, with its score and rank (from 1) then."""

    id: str
    selection: str
    expires: float
    score: float | None
    rank: int


class StoredReply(NamedTuple):
    """The reply to a request with an idempotency key, and the request's fingerprint."""

    request: str
    content: bytes
