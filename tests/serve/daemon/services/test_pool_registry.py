"""Pools under roots, images by id, and scores that the command line made."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lloss.serve.daemon.errors import status_of
from lloss.serve.daemon.services.pool_registry import Pools
from lloss.serve.daemon.services.pool_roots import PoolRoots
from lloss.serve.daemon.settings import ServeSettings
from lloss.serve.daemon.store.catalog import Catalog
from lloss.serve.daemon.store.records import PoolScores

from lloss.errors import ImageError, LlossError, PoolError
from lloss.pools import open_pool

from ..scores import write_scores


def refused(act: Any) -> tuple[int, str]:
    with pytest.raises(LlossError) as error:
        act()
    assert "\n" not in str(error.value)
    return status_of(error.value), str(error.value)


def test_a_pool_under_a_root_is_opened_and_kept(pools: Pools, root: Path) -> None:
    row = pools.put("cats", str(root / "cats"))
    assert (row.name, row.scores, row.scored) == ("cats", None, 0)
    assert sorted(pools.get("cats").open().ids()) == ["a.png", "b.png", "sub/c.png"]
    assert pools.get("cats").open() is pools.get("cats").open()
    assert pools.put("cats", str(root / "cats")) == row


def test_without_roots_nothing_is_opened(catalog: Catalog, root: Path) -> None:
    pools = Pools(ServeSettings(model=root / "m", data_dir=catalog.data_dir), catalog)
    status, told = refused(lambda: pools.put("cats", str(root / "cats")))
    assert status == 403 and "--pool-root" in told


@pytest.mark.parametrize(
    "uri",
    [
        "{out}",
        "{root}/../out",
        "{root}/cats/../../out",
        "{root}/link",
        "{root}/link/secret.png",
        "{root}/{{cats,../out}}/list.txt",
        "{root}/{{cats,link}}/*.txt",
        "{root}/../out/*.tar",
        "file://{out}",
        "local://{root}/../out",
        "/etc/passwd",
        "/",
        "{root}2",
        "{root}/cats/people.json?image=../../out",
        "{root}/cats/people.json?image=/etc",
        "{root}/cats/people.json?image=../..",
        "memory://bucket/database",
        "memory://bucket/data/../x",
        "memory://bucket/data/%2e%2e/x",
        "memory://bucket/data/..%2fx",
        "memory://bucket/data/x?image=../../y",
        "memory://bucket/{{data,other}}/x",
        "memory://user:secret@bucket/data/x",
        "s3://bucket/data/x",
        "http://169.254.169.254/latest/meta-data",
        "simplecache::memory://bucket/data/x",
        "memory://bucket/data/x::file:///etc",
        "zip://a.png::memory://bucket/data/x.zip",
        "{root}/a://b",
        "memory://bucket/data/x#y",
    ],
)
def test_what_lies_elsewhere_is_refused(pools: Pools, root: Path, uri: str) -> None:
    out = root.parent / "out"
    (root / "link").symlink_to(out)
    (root.parent / "root2").mkdir()
    (root / "cats/people.json").write_text("[]")
    status, told = refused(lambda: pools.put("x", uri.format(root=root, out=out)))
    assert status == 403, told
    assert "secret@" not in told and "user:" not in told


@pytest.mark.parametrize("uri", ["cats", "./cats", "~/cats", "", "\0", "a\nb", "{root}/c\0"])
def test_what_is_no_absolute_path_is_refused(pools: Pools, root: Path, uri: str) -> None:
    assert refused(lambda: pools.put("x", uri.format(root=root)))[0] == 422


def test_what_is_not_there_or_no_pool_is_told(pools: Pools, root: Path) -> None:
    (root / "notes.doc").write_text("x")
    for uri in (f"{root}/none", f"{root}/notes.doc", f"{root}/{{a", f"{root}/cats?colour=red"):
        assert refused(lambda uri=uri: pools.put("x", uri))[0] == 422


def test_a_prefix_of_urls_counts_by_whole_parts() -> None:
    roots = PoolRoots(["s3://bucket/data/"])
    for url in ("s3://bucket/data", "s3://bucket/data/a.tar", "s3://bucket/data/{0..3}.tar?id=x"):
        roots.check(url)
    assert refused(lambda: roots.check("s3://bucket/data2/a.tar"))[0] == 403


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../../etc", "a/b", "-a", ".hidden", "a b", "é", "a" * 101, "a\n", "\0"]
)
def test_bad_names(pools: Pools, root: Path, name: str) -> None:
    status, told = refused(lambda: pools.put(name, str(root / "cats")))
    assert status == 422 and "letters, digits" in told


def test_a_name_is_of_one_pool(pools: Pools, root: Path) -> None:
    pools.put("cats", str(root / "cats"))
    status, told = refused(lambda: pools.put("cats", str(root / "cats/sub")))
    assert status == 409 and "choose another name" in told


def test_a_pool_that_lies_under_no_root_any_more_is_not_opened(
    pools: Pools, catalog: Catalog, root: Path
) -> None:
    pools.put("cats", str(root / "cats"))
    other = ServeSettings(
        model=root / "m", data_dir=catalog.data_dir, pool_roots=(str(root / "cats/sub"),)
    )
    assert refused(lambda: Pools(other, catalog).get("cats").open())[0] == 403


def test_a_pool_that_is_exchanged_for_a_link_is_not_followed(pools: Pools, root: Path) -> None:
    pools.put("cats", str(root / "cats"))
    pools.get("cats").open()
    shutil.rmtree(root / "cats")
    (root / "cats").symlink_to(root.parent / "out")
    with pytest.raises(PoolError, match="leads outside"):
        list(pools.get("cats").open())
    assert refused(lambda: pools.reopen("cats"))[0] == 403


def test_images_are_found_by_id_and_no_path_is_made_of_one(pools: Pools, root: Path) -> None:
    pools.put("cats", str(root / "cats"))
    asked = ["sub/c.png", "../../out/secret.png", "/etc/passwd", "a.png", "\0", "\ud800", "a.png",
             "'; DROP TABLE pools; --", "x" * 100_000]  # fmt: skip
    found = pools.get("cats").items(asked)
    assert list(found) == ["sub/c.png", "a.png"]
    assert all(item.read()[:4] == b"\x89PNG" for item in found.values())


def test_a_link_in_a_pool_is_a_bad_image(pools: Pools, root: Path) -> None:
    (root / "cats/link.png").symlink_to(root.parent / "out/secret.png")
    pools.put("cats", str(root / "cats"))
    with pytest.raises(ImageError, match="leads outside"):
        pools.get("cats").items(["link.png"])["link.png"].read()


def scored(root: Path, out: Path, **changes: Any) -> Path:
    """A complete scores folder of ``root/cats``."""
    ids = list(open_pool(root / "cats").ids())[:2]
    columns = {"loss": np.arange(len(ids), dtype=np.float32)}
    run = {"model_sha256": "ab" * 32, "pool": str(root / "cats"), "pool_fingerprint": "",
           "excluded": 0}  # fmt: skip
    write_scores(out, ids, columns, [("sub/c.png", "broken")], **{**run, **changes})
    return out


def test_scores_of_the_command_line_are_taken_over(pools: Pools, root: Path) -> None:
    folder = scored(root, root / "scores")
    row = pools.put("cats", str(root / "cats"), str(folder))
    assert (row.scores, row.scored, row.skipped) == (folder, 2, 1)
    assert row.model_sha256 == "ab" * 32
    with pools.reading("cats") as (again, held):
        assert again == row and len(list(held.batches(["id"]))) == 1
    pools.remove("cats")
    assert (folder / "run.json").exists()  # they are not ours to remove


def test_scores_of_another_pool_or_of_no_end_are_refused(pools: Pools, root: Path) -> None:
    changes: list[dict[str, Any]] = [
        {"state": "running"},
        {"scored": 3},
        {"pool_fingerprint": "abc"},
        {"model_sha256": 5},
        {"shard": "1/2"},
        {"excluded": None},
        {"part_size": 0},
    ]
    for number, change in enumerate(changes):
        folder = scored(root, root / f"s{number}", **change)
        put = functools.partial(pools.put, "c", str(root / "cats"), str(folder))
        status, told = refused(put)
        assert status == 422 and str(folder) in told, told
    good = scored(root, root / "good")
    for uri in (root / "cats/sub", root.parent / "root"):
        assert refused(lambda uri=uri: pools.put("x", str(uri), str(good)))[0] == 422
    (root / "cats/d.png").write_bytes((root / "cats/a.png").read_bytes())
    status, told = refused(lambda: pools.put("cats", str(root / "cats"), str(good)))
    assert status == 422 and "'d.png' is not in both" in told


def test_scores_elsewhere_are_refused(pools: Pools, root: Path) -> None:
    folder = scored(root, root.parent / "out/scores")
    assert refused(lambda: pools.put("c", str(root / "cats"), str(folder)))[0] == 403
    (root / "linked").symlink_to(folder)
    assert refused(lambda: pools.put("c", str(root / "cats"), str(root / "linked")))[0] == 403
    inside = scored(root, root / "inside")
    (inside / "part-00000.parquet").unlink()
    (inside / "part-00000.parquet").symlink_to(folder / "part-00000.parquet")
    assert refused(lambda: pools.put("c", str(root / "cats"), str(inside)))[0] == 403


def test_scores_that_are_read_are_not_removed_before_the_reader_is_done(
    pools: Pools, catalog: Catalog, root: Path
) -> None:
    pools.put("cats", str(root / "cats"))

    def job() -> Path:
        row = catalog.jobs.submit("cats", "m", 8)
        catalog.jobs.begin(row.id, 8)
        scored(root, row.folder)
        assert catalog.jobs.finish(row.id, 2, 1)
        return row.folder

    first = job()
    with pools.reading("cats") as (_, held):
        second = job()
        pools.sweep()
        assert held.path == first and (first / "run.json").exists()
        with pools.reading("cats") as (_, newer):
            assert newer.path == second
    assert not first.exists() and (second / "run.json").exists()
    assert catalog.pools.trash() == []
    pools.remove("cats")
    assert not (catalog.data_dir / "pools/cats").exists()
    assert refused(lambda: pools.reading("cats").__enter__())[0] == 404


def test_scores_that_are_exchanged_before_they_are_held_are_not_missed(
    pools: Pools, catalog: Catalog, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = pools.put("cats", str(root / "cats"))
    scores = [PoolScores(scored(root, root / name), "m", 2, 1) for name in ("old", "new")]
    for one in scores:
        catalog.pools.put("cats", row.uri, one)
    real, seen = catalog.pools.row, []

    def pool(name: str) -> Any:
        """The first look is a moment too early: the old scores are gone since then."""
        seen.append(name)
        found = real(name)
        return found if len(seen) > 1 else dataclasses.replace(found, scores=root / "old")

    shutil.rmtree(root / "old")
    monkeypatch.setattr(catalog.pools, "row", pool)
    with pools.reading("cats") as (_, folder):
        assert folder.path == root / "new"


def test_braces_stand_for_no_more_than_can_be_looked_at(pools: Pools, root: Path) -> None:
    status, told = refused(lambda: pools.put("p", f"{root}/{{000000..999999}}.npy"))
    assert status == 422 and "more than 10,000 files" in told


def test_a_pool_whose_job_is_under_way_is_not_removed(
    pools: Pools, catalog: Catalog, root: Path
) -> None:
    pools.put("cats", str(root / "cats"))
    job = catalog.jobs.submit("cats", "m", 8)
    status, told = refused(lambda: pools.remove("cats"))
    assert status == 409 and f"DELETE /v1/jobs/{job.id}" in told
    catalog.jobs.cancel(job.id)
    pools.remove("cats")
    assert catalog.pools.rows() == [] and catalog.jobs.rows() == []


def test_jobs_that_are_under_way_and_the_newest_of_a_pool(catalog: Catalog) -> None:
    table = catalog.jobs
    for name in ("p", "q", "bare"):
        catalog.pools.put(name, f"/{name}")
    old = table.submit("p", "m", 8)
    table.cancel(old.id)
    new, other = table.submit("p", "m", 8), table.submit("q", "m", 8)
    table.begin(other.id, 8)
    assert [job.id for job in table.active()] == [other.id, new.id]
    table.cancel(new.id)
    assert [job.id for job in table.active()] == [other.id]
    newest = table.newest("p")
    assert newest is not None and newest.id == new.id
    assert table.newest("bare") is None and table.newest("none") is None


def test_a_pool_of_a_name_that_was_used_before_begins_anew(
    pools: Pools, catalog: Catalog, root: Path
) -> None:
    pools.put("cats", str(root / "cats"))
    catalog.images.label("cats", {"a.png": "cat"})
    pools.remove("cats")
    pools.put("cats", str(root / "cats/sub"))
    assert catalog.images.labels("cats") == {}
    assert list(pools.get("cats").open().ids()) == ["c.png"]


def test_the_catalog_moves_with_its_folder(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "one")
    catalog.pools.put("p", "/p")
    job = catalog.jobs.submit("p", "m", 8)
    catalog.jobs.begin(job.id, 8)
    catalog.jobs.finish(job.id, 1, 0)
    catalog.close()
    (tmp_path / "one").rename(tmp_path / "two")
    catalog = Catalog(tmp_path / "two")
    assert catalog.pools.row("p").scores == tmp_path / "two/pools/p/scores" / job.id
    catalog.pools.put("p", "/p", PoolScores(tmp_path / "elsewhere", "m", 1, 0))
    assert catalog.pools.row("p").scores == tmp_path / "elsewhere"
    assert catalog.pools.trash() == [tmp_path / "two/pools/p/scores" / job.id]
    catalog.close()


def test_json_of_the_run_is_not_believed(pools: Pools, root: Path) -> None:
    folder = scored(root, root / "s")
    (folder / "run.json").write_text(json.dumps(["complete"]))
    assert refused(lambda: pools.put("c", str(root / "cats"), str(folder)))[0] == 422
