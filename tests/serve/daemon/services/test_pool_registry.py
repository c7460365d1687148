"""Pools under roots, and their scores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lloss.serve.daemon.services.pool_registry import PoolRegistry
from lloss.serve.daemon.settings import ServeSettings
from lloss.serve.daemon.store.catalog import Catalog
from lloss.serve.daemon.store.records import PoolScores

from lloss.errors import ImageError, PoolError
from lloss.pools import open_pool

from ..scores import write_scores
from .conftest import refused


@pytest.fixture
def uri(root: Path) -> str:
    return str(root / "cats")


@pytest.fixture
def cats(pools: PoolRegistry, uri: str) -> PoolRegistry:
    """With a pool of three images."""
    pools.put("cats", uri)
    return pools


def write(folder: Path, uri: str, **run: Any) -> Path:
    """A complete scores folder of the cats, or with another ``run.json``."""
    ids = list(open_pool(uri).ids())[:2]
    run = {"model_sha256": "ab" * 32, "pool": uri, "pool_fingerprint": "", "excluded": 0, **run}
    losses = {"loss": np.arange(2, dtype=np.float32)}
    return write_scores(folder, ids, losses, [("sub/c.png", "broken")], **run).path


def finish_job(catalog: Catalog, uri: str) -> Path:
    """The scores folder of a job that is done."""
    row = catalog.jobs.submit("cats", "m", 8)
    catalog.jobs.begin(row.id, 8)
    write(row.folder, uri)
    assert catalog.jobs.finish(row.id, 2, 1)
    return row.folder


def test_a_pool_is_opened_once(pools: PoolRegistry, uri: str) -> None:
    row = pools.put("cats", uri)
    assert (row.name, row.scores) == ("cats", None)
    pool = pools.get("cats").open()
    assert sorted(pool.ids()) == ["a.png", "b.png", "sub/c.png"]
    assert pools.get("cats").open() is pool
    assert pools.put("cats", uri) == row
    message = refused(lambda: pools.put("cats", f"{uri}/sub"), 409)
    assert "choose another name" in message


def test_unreadable_pools_are_refused(pools: PoolRegistry, root: Path) -> None:
    (root / "notes.doc").write_text("x")
    for uri in (f"{root}/none", f"{root}/notes.doc", f"{root}/{{a", f"{root}/cats?colour=red"):
        refused(lambda uri=uri: pools.put("x", uri), 422)


def test_a_pool_outside_the_roots_of_now_is_not_opened(
    cats: PoolRegistry, catalog: Catalog, root: Path
) -> None:
    settings = ServeSettings(
        model=root / "m", data_dir=catalog.data_dir, pool_roots=(str(root / "cats/sub"),)
    )
    refused(PoolRegistry(settings, catalog).get("cats").open, 403)
    cats.get("cats").open()
    shutil.rmtree(root / "cats")
    (root / "cats").symlink_to(root.parent / "out")
    with pytest.raises(PoolError, match="leads outside"):
        list(cats.get("cats").open())
    refused(lambda: cats.reopen("cats"), 403)


def test_images_are_found_by_id_and_ids_are_not_paths(cats: PoolRegistry, root: Path) -> None:
    (root / "cats/link.png").symlink_to(root.parent / "out/secret.png")
    asked = ["sub/c.png", "../../out/secret.png", "/etc/passwd", "a.png", "\0", "\ud800", "a.png",
             "'; DROP TABLE pools; --", "x" * 100_000]  # fmt: skip
    items = cats.get("cats").items(asked)
    assert list(items) == ["sub/c.png", "a.png"]
    assert all(item.read()[:4] == b"\x89PNG" for item in items.values())
    with pytest.raises(ImageError, match="leads outside"):
        cats.get("cats").items(["link.png"])["link.png"].read()


def test_scores_of_the_command_line_are_adopted(pools: PoolRegistry, root: Path, uri: str) -> None:
    folder = write(root / "scores", uri)
    row = pools.put("cats", uri, str(folder))
    assert row.scores == PoolScores(folder, "ab" * 32, 2, 1)
    with pools.reading("cats") as (again, scores):
        assert again == row.scores and len(list(scores.scan(["id"]))) == 1
    pools.remove("cats")
    assert (folder / "run.json").exists(), "it is not the daemon's"


@pytest.mark.parametrize(
    "run",
    [
        {"state": "running"},
        {"scored": 3},
        {"pool_fingerprint": "abc"},
        {"model_sha256": 5},
        {"shard": "1/2"},
        {"excluded": None},
        {"part_size": 0},
        None,
    ],
)
def test_invalid_scores_are_not_adopted(
    pools: PoolRegistry, root: Path, uri: str, run: dict[str, Any] | None
) -> None:
    folder = write(root / "scores", uri, **(run or {}))
    if run is None:
        (folder / "run.json").write_text(json.dumps(["complete"]))
    assert str(folder) in refused(lambda: pools.put("c", uri, str(folder)), 422)


def test_scores_of_other_pools_are_not_adopted(pools: PoolRegistry, root: Path, uri: str) -> None:
    folder = write(root / "scores", uri)
    for other in (f"{uri}/sub", str(root)):
        refused(lambda other=other: pools.put("x", other, str(folder)), 422)
    (root / "cats/d.png").write_bytes((root / "cats/a.png").read_bytes())
    message = refused(lambda: pools.put("cats", uri, str(folder)), 422)
    assert "'d.png' is not in both" in message
    (root / "cats/a.png").unlink()
    message = refused(lambda: pools.put("cats", uri, str(folder)), 422)
    assert "'a.png' is not in both" in message


def test_scores_outside_the_roots_are_not_adopted(
    pools: PoolRegistry, root: Path, uri: str
) -> None:
    folder = write(root.parent / "out/scores", uri)
    (root / "linked").symlink_to(folder)
    inside = write(root / "inside", uri)
    (inside / "part-00000.parquet").unlink()
    (inside / "part-00000.parquet").symlink_to(folder / "part-00000.parquet")
    for scores in (folder, root / "linked", inside):
        refused(lambda scores=scores: pools.put("c", uri, str(scores)), 403)


def test_scores_stay_until_the_last_reader_is_done(
    cats: PoolRegistry, catalog: Catalog, uri: str
) -> None:
    first = finish_job(catalog, uri)
    with cats.reading("cats") as (_, scores):
        second = finish_job(catalog, uri)
        cats.sweep()
        assert scores.path == first and (first / "run.json").exists()
        with cats.reading("cats") as (_, newer):
            assert newer.path == second
    assert not first.exists() and (second / "run.json").exists()
    assert catalog.pools.trash() == []
    cats.remove("cats")
    assert not (catalog.data_dir / "pools/cats").exists()
    refused(lambda: cats.reading("cats").__enter__(), 404)


def test_an_active_job_keeps_its_pool(cats: PoolRegistry, catalog: Catalog) -> None:
    job = catalog.jobs.submit("cats", "m", 8)
    assert f"DELETE /v1/jobs/{job.id}" in refused(lambda: cats.remove("cats"), 409)
    catalog.jobs.cancel(job.id)
    cats.remove("cats")
    assert catalog.pools.rows() == [] and catalog.jobs.rows() == []


def test_a_name_can_be_used_again(cats: PoolRegistry, catalog: Catalog, uri: str) -> None:
    catalog.images.label("cats", {"a.png": "cat"})
    cats.remove("cats")
    cats.put("cats", f"{uri}/sub")
    assert catalog.images.labels("cats") == {}
    assert list(cats.get("cats").open().ids()) == ["c.png"]
