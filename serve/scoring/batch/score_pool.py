"""Score a whole pool into a scores folder; a run that was killed can go on."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import itertools
import json
import os
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lloss.serve.scoring.result import Scores, concatenate
from lloss.serve.scoring.scorer import Scorer

from lloss.errors import InterruptedRunError, OtherRunError, ScoresError, SettingsError
from lloss.files import locked, sweep
from lloss.pools import Pool, SubsetPool, refuse_duplicates
from lloss.scores.scores_folder import POOL_IDS, ScoresFolder
from lloss.scores.shard_spec import Shard
from lloss.text.progress import progress

PART = 10_000
"""Items a part: a killed run repeats no more, and no more outputs are in memory."""


@dataclass(frozen=True)
class ScoreReport:
    """Numbers of images."""

    scored: int
    skipped: int  # could not be read
    resumed: int  # scored or skipped by an earlier, interrupted run


class Progress(Protocol):
    """Follows a run; all calls come from the thread that scores."""

    def begin(self, done: ScoreReport, total: Callable[[], int | None]) -> None:
        """Start, after what an earlier run has ``done``.

        ``total`` counts all images, which may list the pool; it is None where that is not cheap.
        """

    def batch(self, scores: Scores) -> None:
        """Receive a scored batch; raise InterruptedRunError to end the run here."""


def score_pool(
    scorer: Scorer,
    pool: Pool,
    out: Path,
    *,
    exclude: Collection[str] = (),
    part_size: int = PART,
    shard: Shard = Shard(),  # noqa: B008  frozen
    batch_size: int = 0,
    progress: Progress | None = None,
) -> ScoreReport:
    """Score every item of a pool, or of a shard of it, that is not excluded.

    It finishes a folder that an interrupted run of the same model, pool and settings left, and
    leaves a complete one alone.

    Args:
        scorer: the model.
        pool: opened.
        out: the scores folder.
        exclude: ids to leave out.
        part_size: items per part.
        shard: of the pool.
        batch_size: images per run of the engine, at most the scorer's; 0 for the scorer's.
        progress: follows the run; by default a bar, in a terminal.

    Raises:
        SettingsError: a batch size over the scorer's.
        ScoresError: the folder holds another run, or the pool changed under it, or no image at
            all could be read.
        PoolError: the pool cannot be read to its end, or contains an id twice.
        InterruptedRunError: Ctrl-C; the finished parts stay.
    """
    batch_size = batch_size or scorer.batch_size
    if not 0 < batch_size <= scorer.batch_size:
        raise SettingsError(f"batch_size = {batch_size}: give 1 to {scorer.batch_size}")
    folder = ScoresFolder(out)
    images = SubsetPool(pool, exclude) if exclude else pool
    run = _Run(scorer, images, exclude, folder, part_size, batch_size, shard, progress)
    folder.run()  # raises where the folder is damaged, before anything is made
    busy = ScoresError(f"{out}: another lloss score is at work in this folder; wait for it")
    with locked(out, busy):
        return run.score()


def _changed(folder: ScoresFolder, what: str) -> ScoresError:
    return ScoresError(
        f"{folder.path}: the pool changed since it was scored ({what}); "
        "remove that folder to score again, or choose another"
    )


def _versions() -> dict[str, str]:
    """Versions of the packages that decode, compute and write; both onnxruntime wheels are one."""
    versions = {}
    for name in ("onnxruntime", "onnxruntime-gpu", "pillow", "pyarrow"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name.removesuffix("-gpu")] = importlib.metadata.version(name)
    return versions


@dataclass(frozen=True)
class _Run:
    """One call of :func:`score_pool`; ``pool`` is without the excluded images."""

    scorer: Scorer
    pool: Pool
    exclude: Collection[str]
    folder: ScoresFolder
    part_size: int
    batch_size: int
    shard: Shard
    progress: Progress | None

    def score(self) -> ScoreReport:
        """Fill the folder, or finish or verify its contents."""
        settings = self._settings()
        before = self.folder.run()
        if before is not None:
            self._check_same(before, settings)
            if before["state"] == "complete":
                return self._checked(self._verified(complete=True))
        path = self.folder.path
        sweep(path)
        if before is None and any(path.iterdir()):
            raise ScoresError(f"{path}: is not empty and holds no scores; choose another -o")
        if not self.pool.streamed:
            refuse_duplicates(self.pool)
        # A model can be moved, so that its path does not decide whether a run may go on.
        settings["model"] = str(self.scorer.engine.path.absolute())
        self.folder.write_run({"state": "running", **settings})
        try:
            report = self._score_missing_parts()
        except KeyboardInterrupt:
            raise InterruptedRunError(
                f"{path}: interrupted, {len(self.folder.parts())} parts are done; "
                "run the same command again to go on"
            ) from None
        if self.pool.streamed and not self.pool.unique:
            self.folder.check_unique()
        self.folder.write_skipped()
        counts: dict[str, Any] = {"scored": report.scored, "skipped": report.skipped}
        passed = self.pool.passed_over()
        if passed and passed.as_dict():
            counts["passed_over"] = passed.as_dict()
        if self.shard.count > 1 and not settings["pool_fingerprint"]:
            counts[POOL_IDS] = self._ids_digest()
        self.folder.write_run({"state": "complete", **settings, **counts})
        return self._checked(report)

    def _settings(self) -> dict[str, Any]:
        """All that decides the bytes of the parts."""
        excluded = hashlib.sha256(json.dumps(sorted(self.exclude)).encode())
        return {
            "model_sha256": self.scorer.engine.sha256,
            "pool": self.pool.uri,
            "pool_fingerprint": self.pool.fingerprint(),
            "excluded": len(self.exclude),
            "excluded_sha256": excluded.hexdigest(),
            **self.scorer.engine.identity(),
            "precision": self.scorer.manifest.precision,
            "batch_size": self.batch_size,
            "part_size": self.part_size,
            **_versions(),
            **({"shard": str(self.shard)} if self.shard.count > 1 else {}),
        }

    def _check_same(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        for name in dict.fromkeys((*now, "shard")):
            old, value = before.get(name), now.get(name)
            if name == "pool" and os.path.realpath(str(old)) == os.path.realpath(str(value)):
                continue  # the same pool by another path
            if name == "pool_fingerprint" and old != value:
                raise _changed(self.folder, "its images are others than before")
            if old != value:
                raise OtherRunError(
                    f"{self.folder.path}: was begun with {name} = {old!r}, now it is "
                    f"{value!r}; score into another folder, or go back to the old value"
                )

    def _ids_digest(self) -> str:
        """A digest of the pool's ids in their order, the same in every shard of the pool."""
        digest = hashlib.sha256()
        for id in self.pool.ids():
            digest.update(repr(id).encode("utf-8", "backslashreplace") + b"\n")
        return digest.hexdigest()

    def _checked(self, report: ScoreReport) -> ScoreReport:
        """Return the report, unless no image at all could be read."""
        if report.skipped and not report.scored:
            id, reason = self.folder.skipped()[0]
            raise ScoresError(
                f"{self.folder.path}: none of the {report.skipped} images could be read "
                f"(the first, {id!r}: {reason})"
            )
        return report

    def _verified(self, complete: bool = False) -> ScoreReport:
        """Count the images of the finished parts, and check that the pool still has them.

        A ``complete`` run's pool must have no further image.
        """
        scored = skipped = position = 0
        ids = self.pool.ids()
        numbers = self.folder.part_numbers()
        for number in numbers:
            start = number * self.part_size
            chunk = set(itertools.islice(ids, start - position, start - position + self.part_size))
            position = start + self.part_size
            rows, failed = self.folder.part_ids(number)
            part = set(rows) | {id for id, _ in failed}
            if part != chunk:
                new, gone = sorted(chunk - part), sorted(part - chunk)
                what = f"{new[0]!r} is new or moved" if new else f"{gone[0]!r} is gone"
                raise _changed(self.folder, what)
            scored, skipped = scored + len(rows), skipped + len(failed)
        if complete:
            start = self.shard.part(len(numbers)) * self.part_size
            added = next(itertools.islice(ids, max(0, start - position), None), None)
            if added is not None:
                raise _changed(self.folder, f"{added!r} is new")
        return ScoreReport(scored, skipped, scored + skipped)

    def _score_missing_parts(self) -> ScoreReport:
        """Score; one part is written while the next one is scored."""
        before = self._verified()
        scored, skipped = before.scored, before.skipped
        writing: Future[None] | None = None
        with (
            ThreadPoolExecutor(1, "lloss-write") as writer,
            contextlib.closing(self._batches(before)) as batches,
        ):
            by_part = itertools.groupby(batches, lambda batch: batch.start // self.part_size)
            for number, group in by_part:
                part = list(group)
                scored += sum(len(batch) for batch in part)
                skipped += sum(len(batch.skipped) for batch in part)
                if writing is not None:
                    writing.result()
                writing = writer.submit(self._write, number, part)
            if writing is not None:
                writing.result()
        return ScoreReport(scored, skipped, before.resumed)

    def _total(self) -> int | None:
        return self.shard.items(self.pool.count(), self.part_size) if self.pool.counted else None

    def _batches(self, before: ScoreReport) -> Generator[Scores]:
        """Score the missing parts, and report the progress, by default as a bar in a terminal."""
        total = None if self.progress else self._total()
        if self.progress:
            self.progress.begin(before, self._total)
        ranges = self._ranges(self.folder.missing_parts())
        with (
            progress(
                total=total,
                initial=before.resumed,
                unit="images",
                desc="score",
                disable=bool(self.progress),
            ) as bar,
            contextlib.closing(self.scorer.ranges(self.pool, ranges)) as batches,
        ):
            for batch in batches:
                if self.progress:
                    self.progress.batch(batch)
                bar.update(batch.seen)
                yield batch

    def _ranges(self, parts: Iterable[int]) -> Iterator[range]:
        """Batches that end at the end of a part, so that a part has the same bytes in any run."""
        size = self.batch_size
        for number in parts:
            start = number * self.part_size
            end = start + self.part_size
            yield from (range(at, min(at + size, end)) for at in range(start, end, size))

    def _write(self, number: int, batches: list[Scores]) -> None:
        """Write a part, and empty the list."""
        with self.scorer.telemetry.timed("write"):
            part = concatenate(batches, self.scorer.manifest)
            batches.clear()
            self.folder.write_part(number, part.table(), part.skipped)
