"""Score a whole pool into a scores folder; a run that was killed can go on."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lloss.serve.scoring.batch.scoring_run import (
    PART,
    RunEngine,
    ScoreReport,
    ScoringRun,
    part_ranges,
)
from lloss.serve.scoring.result import Scores, concatenate
from lloss.serve.scoring.scorer import Scorer

from lloss.errors import ScoresError, SettingsError
from lloss.pools import Pool, SubsetPool
from lloss.scores.scores_folder import ScoresFolder
from lloss.scores.shard_spec import Shard
from lloss.text.progress import progress


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
    out: Path | str,
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
        out: the scores folder, or its URL in an object store.
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
    engine = RunEngine.of(scorer.engine)
    run = ScoringRun(engine, images, exclude, folder, part_size, batch_size, shard)
    folder.run()  # raises where the folder is damaged, before anything is made
    busy = ScoresError(f"{out}: another lloss score is at work in this folder; wait for it")
    with folder.files.locked(busy):
        return run.score(_LocalParts(scorer, run, progress).score)


@dataclass(frozen=True)
class _LocalParts:
    """Scores a run's missing parts in this process."""

    scorer: Scorer
    run: ScoringRun
    progress: Progress | None

    def score(self, before: ScoreReport, missing: Iterator[int]) -> ScoreReport:
        """Score; one part is written while the next one is scored."""
        scored, skipped = before.scored, before.skipped
        writing: Future[None] | None = None
        with (
            ThreadPoolExecutor(1, "lloss-write") as writer,
            contextlib.closing(self._batches(before, missing)) as batches,
        ):
            by_part = itertools.groupby(batches, lambda batch: batch.start // self.run.part_size)
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

    def _batches(self, before: ScoreReport, missing: Iterator[int]) -> Generator[Scores]:
        """Score the missing parts, and report the progress, by default as a bar in a terminal."""
        total = None if self.progress else self.run.total()
        if self.progress:
            self.progress.begin(before, self.run.total)
        run = self.run
        ranges = (
            each for part in missing for each in part_ranges(part, run.part_size, run.batch_size)
        )
        with (
            progress(
                total=total,
                initial=before.resumed,
                unit="images",
                desc="score",
                disable=bool(self.progress),
            ) as bar,
            contextlib.closing(self.scorer.ranges(run.pool, ranges)) as batches,
        ):
            for batch in batches:
                if self.progress:
                    self.progress.batch(batch)
                bar.update(batch.seen)
                yield batch

    def _write(self, number: int, batches: list[Scores]) -> None:
        """Write a part, and empty the list."""
        with self.scorer.telemetry.timed("write"):
            part = concatenate(batches, self.scorer.manifest)
            batches.clear()
            self.run.folder.write_part(number, part.table(), part.skipped)
