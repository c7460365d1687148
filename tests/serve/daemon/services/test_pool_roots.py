"""What is inside the roots of ``--pool-root``, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from lloss.serve.daemon.services.pool_roots import PoolRoots

from .conftest import refused


@pytest.fixture
def roots(root: Path) -> PoolRoots:
    (root / "link").symlink_to(root.parent / "out")
    (root.parent / "root2").mkdir()
    (root / "cats/people.json").write_text("[]")
    return PoolRoots([str(root), "memory://bucket/data", "s3://bucket/data/"])


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
        "s3://other/data/x",
        "s3://bucket/data2/a.tar",
        "http://169.254.169.254/latest/meta-data",
        "simplecache::memory://bucket/data/x",
        "memory://bucket/data/x::file:///etc",
        "zip://a.png::memory://bucket/data/x.zip",
        "{root}/a://b",
        "memory://bucket/data/x#y",
    ],
)
def test_outside(roots: PoolRoots, root: Path, uri: str) -> None:
    uri = uri.format(root=root, out=root.parent / "out")
    message = refused(lambda: roots.check(uri), 403)
    assert "secret@" not in message and "user:" not in message


@pytest.mark.parametrize(
    "uri", ["s3://bucket/data", "s3://bucket/data/{0..3}.tar?id=x", "{root}/cats", "file://{root}"]
)
def test_inside(roots: PoolRoots, root: Path, uri: str) -> None:
    roots.check(uri.replace("{root}", str(root)))


@pytest.mark.parametrize("uri", ["cats", "./cats", "~/cats", "", "\0", "a\nb", "{root}/c\0"])
def test_neither_an_absolute_path_nor_a_url(roots: PoolRoots, root: Path, uri: str) -> None:
    refused(lambda: roots.check(uri.format(root=root)), 422)


def test_patterns_of_too_many_files(roots: PoolRoots, root: Path) -> None:
    message = refused(lambda: roots.check(f"{root}/{{000000..999999}}.npy"), 422)
    assert "10,000 files" in message


def test_no_root() -> None:
    assert "--pool-root" in refused(lambda: PoolRoots([]).check("/"), 403)
