"""The data that pages show, as their templates need it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

import anyio
from fastapi import Depends, Request
from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.services.hand_out import Ranked
from lloss.serve.daemon.services.score_summary import ScoredImage, score_summary
from lloss.serve.daemon.store.records import Counts, ImageState, JobRow, PoolRow
from lloss.serve.daemon.ui.taken_images import Mark, marks
from lloss.serve.daemon.ui.templates import duration, rate
from lloss.serve.daemon.ui.thumbnails import Thumbnails

from lloss.errors import LlossError
from lloss.manifest import EMBEDDING, PRETRAINED_EMBEDDING, class_name
from lloss.pools.uri import without_secrets
from lloss.statistics.charts import histogram

IMAGES_PER_PAGE = 60
MAX_PAGES = 50
"""Pages of the next images: each costs what all pages before it cost."""

MAX_LISTED_CLASSES = 30
"""Classes in a list to choose from; of more, people type the name."""

IMAGES_AT_ONCE = 4
"""Images that are read and decoded for people at once; scoring has the other cores."""


@dataclass(frozen=True)
class PoolSummary:
    """A pool at a glance.

    Attributes:
        uri: without credentials.
        images: None before they were counted.
        job: queued or running: its "id", "done", "total" (None when unknown) and a "text".
        failure: of the newest job; "" if it did not fail.
        resumable: whether that job continues where it failed.
        outdated: whether another model made the scores.
    """

    name: str
    uri: str
    images: int | None
    counts: Counts
    row: PoolRow
    job: dict[str, Any] | None
    failure: str
    resumable: bool
    outdated: bool
    scored: bool


@dataclass(frozen=True)
class Tile:
    """An image on a page.

    Attributes:
        place: on the page, from 1.
        rank: by predicted loss, from 1; 0 when unknown.
        score: predicted loss; NaN when unknown.
        guess: predicted class; "" for none.
        confidence: of the guess, 0 to 1; NaN for none.
    """

    id: str
    place: int
    rank: int
    score: float
    guess: str
    confidence: float
    mark: Mark


@dataclass(frozen=True)
class LabelInput:
    """How people give a label.

    Attributes:
        classes: empty when labels are not class names.
        listed: whether the classes are in a list to choose from.
        required: whether a label needs a class.
    """

    classes: tuple[str, ...]
    listed: bool
    required: bool


class PageData:
    """Collects what the pages of a daemon show.

    Attributes:
        image_limiter: of the threads that read and decode images for pages.
    """

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.thumbnails = Thumbnails(daemon.settings.limits.image_pixels)
        self.image_limiter = anyio.CapacityLimiter(IMAGES_AT_ONCE)

    def status(self) -> dict[str, Any]:
        """The figures that change from second to second."""
        queue = self.daemon.metrics.registry.get_sample_value("lloss_queue_images")
        jobs = {job.pool: self._progress(job) for job in self.daemon.catalog.jobs.active()}
        return {"problem": self.daemon.not_ready(), "queue": f"{int(queue or 0):,}", "jobs": jobs}

    def model(self) -> dict[str, str]:
        """The model's facts by heading; empty before it is loaded."""
        if not self.daemon.models.sha256:
            return {}
        model = self.daemon.models.current
        manifest = model.manifest
        image = manifest.image
        return {
            "name": manifest.model,
            "task": manifest.task,
            "classes": f"{len(manifest.classes):,}" if manifest.classes else "–",
            "input": f"{image.height}×{image.width}, {image.fit}",
            "precision": manifest.precision,
            "provider": model.provider,
            "sha256": model.sha256,
        }

    def pools(self) -> list[PoolSummary]:
        """All pools, by name."""
        return self.daemon.catalog.pools.each(self._summary)

    def pool(self, name: str) -> PoolSummary:
        """A pool; raises :class:`RequestError` 404."""
        return self._summary(self.daemon.catalog.pools.row(name))

    def label_input(self) -> LabelInput:
        """How people give labels to images of the model's task."""
        models, required = self.daemon.models, self.daemon.classes.required
        classes = models.current.manifest.classes if models.sha256 and required else ()
        return LabelInput(classes, 0 < len(classes) <= MAX_LISTED_CLASSES, required)

    def ranked(self, pool: PoolSummary, page: int) -> tuple[list[Ranked], bool]:
        """A page of the next images, and whether there is another, up to :data:`MAX_PAGES`."""
        if page > MAX_PAGES or not pool.scored:
            return [], False
        end = page * IMAGES_PER_PAGE
        images = self.daemon.selections.preview(pool.name, end + 1)
        return images[end - IMAGES_PER_PAGE : end], len(images) > end and page < MAX_PAGES

    def comparable(self, pool: PoolSummary) -> bool:
        """Whether its scores have embeddings to compare images by."""
        if not pool.scored:
            return False
        with self.daemon.pools.reading(pool.name) as (_, folder):
            return not {EMBEDDING, PRETRAINED_EMBEDDING}.isdisjoint(folder.columns())

    def listed(self, pool: PoolSummary, state: ImageState, page: int) -> tuple[list[Ranked], bool]:
        """A page of the images of a state, and whether there is another."""
        start = (page - 1) * IMAGES_PER_PAGE
        rows = self.daemon.catalog.images.listed(pool.name, state, start, IMAGES_PER_PAGE + 1)
        images = [Ranked(id, math.nan, 0) for id in rows[:IMAGES_PER_PAGE]]
        return images, len(rows) > IMAGES_PER_PAGE

    def tiles(self, pool: PoolSummary, images: Sequence[Ranked], own: str = "") -> list[Tile]:
        """Tiles of images, for those whose selection is ``own``."""
        ids = [image.id for image in images]
        with contextlib.suppress(LlossError):  # the thumbnails show the reason
            self.daemon.pools.get(pool.name).items(ids)  # all at once, for the thumbnails
        rows: dict[str, ScoredImage] = {}
        if pool.scored:
            with self.daemon.pools.reading(pool.name) as (_, folder):
                rows = score_summary(folder).images(ids)
        marked = marks(self.daemon.catalog.images, pool.name, ids, own)
        names = () if pool.outdated else self.label_input().classes

        def tile(place: int, image: Ranked) -> Tile:
            row = rows.get(image.id, ScoredImage())
            guess, mark = class_name(names, row.prediction), marked[image.id]
            return Tile(image.id, place, image.rank, image.score, guess, row.confidence, mark)

        return [tile(place, image) for place, image in enumerate(images, 1)]

    def chart(self, pool: PoolSummary, shown: Iterable[float]) -> str:
        """The histogram of predicted losses as HTML, with marks at the shown ones."""
        if not pool.scored:
            return ""
        with self.daemon.pools.reading(pool.name) as (_, folder):
            losses = score_summary(folder).histogram
        return histogram(losses, list(shown)) if losses else ""

    def _summary(self, row: PoolRow) -> PoolSummary:
        job, scores = self.daemon.catalog.jobs.newest(row.name), row.scores
        active = job is not None and job.state in ("queued", "running")
        progress = self._progress(job) if job and active else None
        counted = progress["total"] if progress else (job.total if job else None)
        sha256 = self.daemon.models.sha256
        return PoolSummary(
            name=row.name,
            uri=without_secrets(row.uri),
            images=scores.scored + scores.skipped if scores else counted,
            counts=self.daemon.catalog.images.counts(row.name),
            row=row,
            job=progress,
            failure=job.error if job and job.state == "failed" else "",
            resumable=bool(job and job.resumable),
            outdated=bool(scores and sha256 and scores.model_sha256 != sha256),
            scored=scores is not None,
        )

    def _progress(self, job: JobRow) -> dict[str, Any]:
        now = self.daemon.jobs.live(job)
        words = [f"{now.done:,}" + ("" if now.total is None else f" of {now.total:,}") + " images"]
        if now.rate:
            words.append(f"{rate(now.rate)} a second")
            if now.total is not None:
                words.append(f"{duration((now.total - now.done) / now.rate)} left")
        text = "waits for its turn" if now.state == "queued" else " · ".join(words)
        return {"id": now.id, "done": now.done, "total": now.total, "text": text}


async def _page_data(request: Request) -> PageData:
    """Not in a thread: FastAPI's may all be busy."""
    return cast(PageData, request.app.state.page_data)


PageDataDep = Annotated[PageData, Depends(_page_data)]
"""The data of the application's pages, for routes that take it as a parameter."""
