"""Parts in any order have the rows of a whole run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from lloss.serve.scoring.batch.part_scorer import PartScorer
from lloss.serve.scoring.batch.score_pool import score_pool
from lloss.serve.scoring.batch.scoring_run import ids_digest

from lloss import Scorer
from lloss.errors import PoolError
from lloss.pools import Chunk, Pool, SubsetPool, open_pool
from lloss.scores.scores_folder import ScoresFolder

from ....pools.pool_files import write
from ....scores.test_merge import _gz, _parquet, _tar
from ..fakes import pictures


@pytest.fixture(scope="module")
def scorer(onnx_file: Path) -> Scorer:
    return Scorer(onnx_file, provider="cpu", batch_size=4, threads=2)


def check_parts(scorer: Scorer, pool: Pool, out: Path, order: list[int]) -> None:
    """Compare parts of ten with those of a local run."""
    score_pool(scorer, pool, out, part_size=10)
    folder = ScoresFolder(out).opened()
    parts = PartScorer(scorer, pool, 10, scorer.batch_size)
    ids = list(pool.ids())
    for number in order:
        part = parts.score(number)
        assert part.ids_sha256 == ids_digest(ids[number * 10 : number * 10 + 10])
        if number >= len(folder.parts()):
            assert part.scores.seen == 0
            continue
        assert (list(part.scores.ids), list(part.scores.skipped)) == folder.part_ids(number)
        folder.write_part(99, part.scores.table(), part.scores.skipped)
        assert folder.files.read("part-00099.parquet") == folder.files.read(
            f"part-{number:05d}.parquet"
        )
        (out / "part-00099.parquet").unlink()


@pytest.mark.parametrize("order", [[0, 1, 6, 7, 8], [5, 2, 2, 6, 0], [9, 3]])
def test_a_folder_of_which_two_cannot_be_read(
    scorer: Scorer, photos: Path, tmp_path: Path, order: list[int]
) -> None:
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        write(tmp_path / f"pool/{number:02d}.png", b"" if number in (7, 41) else path.read_bytes())
    check_parts(scorer, open_pool(tmp_path / "pool"), tmp_path / "s", order)


@pytest.mark.parametrize("make", [_gz, _tar, _parquet])
def test_other_kinds_of_pools(
    scorer: Scorer, photos: Path, tmp_path: Path, make: Callable[[Path, Path], str]
) -> None:
    check_parts(scorer, open_pool(make(photos, tmp_path)), tmp_path / "scores", [1, 4, 0])


def test_an_array_without_some_rows(scorer: Scorer, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", pictures(60))
    pool = SubsetPool(open_pool(tmp_path / "a.npy"), ["0", "17", "59"])
    check_parts(scorer, pool, tmp_path / "scores", [3, 4, 1])


class _Failing(Pool):
    """Lists its images until the storage fails, once."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.uri, self.failed = pool, pool.uri, False

    def __iter__(self) -> Iterator[object]:  # type: ignore[override]
        return iter(self.pool)

    def chunks(self, ranges: Iterable[range]) -> Iterator[Chunk]:
        for chunk in self.pool.chunks(ranges):
            if chunk.start >= 16 and not self.failed:
                self.failed = True
                raise PoolError("storage: timeout")
            yield chunk


def test_what_follows_a_failure_is_not_taken_for_the_end(scorer: Scorer, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", pictures(60))
    pool = open_pool(tmp_path / "a.npy")
    parts = PartScorer(scorer, _Failing(pool), 10, 4)
    assert len(parts.score(0).scores) == 10
    with pytest.raises(PoolError, match="timeout"):
        parts.score(1)
    assert [len(parts.score(number).scores) for number in (2, 3, 1)] == [10, 10, 10]
