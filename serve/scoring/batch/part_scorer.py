"""Single parts of a pool, in any order, as the actors of a cluster score them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from lloss.serve.scoring.batch.scoring_run import ids_digest, part_ranges
from lloss.serve.scoring.result import Scores, concatenate
from lloss.serve.scoring.scorer import Scorer

from lloss.pools import Chunk, Pool


@dataclass(frozen=True)
class ScoredPart:
    """The scores of a part, and a digest of all its ids, scored or skipped, in their order."""

    scores: Scores
    ids_sha256: str


class PartScorer:
    """Scores parts of a pool; each has the bits that a local run computes.

    The pool is listed once as long as the parts ascend; for an earlier part, again.

    Args:
        scorer: the model.
        pool: without the excluded images.
        part_size: items per part.
        batch_size: images per run of the engine.
    """

    def __init__(self, scorer: Scorer, pool: Pool, part_size: int, batch_size: int) -> None:
        self.scorer, self.pool = scorer, pool
        self.part_size, self.batch_size = part_size, batch_size
        self._wanted: deque[range] = deque()
        self._next = 0  # the first part that the listing has not passed
        self._begin()

    def score(self, number: int) -> ScoredPart:
        """Score the part of this number in the whole pool; empty beyond the pool's end."""
        if number < self._next:
            self._begin()
        self._next = number + 1
        ids: list[str] = []
        try:
            batches = self.scorer.chunks(self._part(number, ids), self.pool.remote)
            scores = concatenate(list(batches), self.scorer.manifest)
        except BaseException:
            self._begin()  # what failed would look like the pool's end
            raise
        return ScoredPart(scores, ids_digest(ids))

    def _begin(self) -> None:
        self._next = 0
        self._wanted.clear()
        self._chunks = self.pool.chunks(self._ranges())

    def _ranges(self) -> Iterator[range]:
        """The ranges that are wanted by now; a pool asks for one when a chunk is asked for."""
        while True:
            yield self._wanted.popleft()

    def _part(self, number: int, ids: list[str]) -> Iterator[Chunk]:
        for each in part_ranges(number, self.part_size, self.batch_size):
            self._wanted.append(each)
            chunk = next(self._chunks, None)
            if chunk is None:  # the pool's end
                self._wanted.clear()
                return
            ids += chunk.ids
            yield chunk
