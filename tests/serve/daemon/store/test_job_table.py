"""Jobs in the catalog."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from lloss.serve.daemon.store.catalog import Catalog
from lloss.serve.daemon.store.records import PoolScores


def test_active_and_newest_jobs(tmp_path: Path) -> None:
    with closing(Catalog(tmp_path)) as catalog:
        jobs = catalog.jobs
        for name in ("p", "q", "bare"):
            catalog.pools.put(name, f"/{name}")
        jobs.cancel(jobs.submit("p", "m", 8).id)
        new, other = jobs.submit("p", "m", 8), jobs.submit("q", "m", 8)
        jobs.begin(other.id, 8)
        assert [job.id for job in jobs.active()] == [other.id, new.id]
        jobs.cancel(new.id)
        assert [job.id for job in jobs.active()] == [other.id]
        newest = jobs.newest("p")
        assert newest is not None and newest.id == new.id
        assert jobs.newest("bare") is None and jobs.newest("none") is None


def test_scores_move_with_the_data_dir(tmp_path: Path) -> None:
    with closing(Catalog(tmp_path / "one")) as catalog:
        catalog.pools.put("p", "/p")
        job = catalog.jobs.submit("p", "m", 8)
        catalog.jobs.begin(job.id, 8)
        catalog.jobs.finish(job.id, 1, 0)
    (tmp_path / "one").rename(tmp_path / "two")
    folder = tmp_path / "two/pools/p/scores" / job.id
    with closing(Catalog(tmp_path / "two")) as catalog:
        assert catalog.pools.row("p").scores == PoolScores(folder, "m", 1, 0)
        elsewhere = PoolScores(tmp_path / "elsewhere", "m", 1, 0)
        assert catalog.pools.put("p", "/p", elsewhere).scores == elsewhere
        assert catalog.pools.trash() == [folder]
