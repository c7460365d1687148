"""Pools behind fsspec: every kind in memory, and on a real server that speaks S3."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lloss.errors import ImageError, MissingExtraError, PoolError
from lloss.pools import ArrayPool, image_files, open_pool

from ..object_store import KEYS
from .pool_files import (
    COUNT,
    KINDS,
    contents,
    gz_pool,
    npy_pool,
    npz_pool,
    parquet_pool,
    stream_pool,
    tar_pool,
    write,
    write_table,
)

fsspec = pytest.importorskip("fsspec")

NAMES = ["B.jpg", "a/10.jpg", "a/9.jpg", "a/b/1.PNG", "b.jpg", "two words+%.jpg", "ä.jpg"]


def _new_folder(request: pytest.FixtureRequest, bucket: str) -> Iterator[str]:
    root = f"{bucket}/{re.sub(r'[^a-z0-9]', '-', request.node.name)}"
    yield root
    files, path = fsspec.core.url_to_fs(root)
    if files.exists(path):
        files.rm(path, recursive=True)


@pytest.fixture(params=["memory", "s3"])
def root(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty folder, in memory and on the server."""
    memory = request.param == "memory"
    bucket = "memory://bucket" if memory else request.getfixturevalue("s3")
    yield from _new_folder(request, bucket)


@pytest.fixture
def memory(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty folder in memory, for what does not depend on the store."""
    yield from _new_folder(request, "memory://bucket")


def _put(root: str, name: str, content: bytes) -> str:
    with fsspec.open(f"{root}/{name}", "wb") as file:
        file.write(content)
    return f"{root}/{name}"


def _folder(root: str) -> str:
    for name in [*NAMES[::-1], "notes.txt", "a/.jpg"]:
        _put(root, name, name.encode())
    return root


def test_a_remote_folder_has_the_ids_and_order_of_a_local_one(root: str, tmp_path: Path) -> None:
    for name in [*NAMES, "notes.txt", "a/.jpg"]:
        write(tmp_path / name, name.encode())
    pool, local = open_pool(_folder(root)), open_pool(tmp_path)
    assert list(pool.ids()) == list(local.ids()) == NAMES
    assert [item.read() for item in pool] == [item.read() for item in local]
    assert (pool.remote, pool.unique, pool.count(), pool.uri) == (True, True, len(NAMES), root)
    assert [i.read() for i in pool.find(["b.jpg", "a/b/1.PNG"])] == [b"b.jpg", b"a/b/1.PNG"]
    for id in ("a/no.jpg", "no/9.jpg", "notes.txt", "../x.jpg", "a//9.jpg", "B.jpg/"):
        with pytest.raises(PoolError, match="not in the pool .*ids look like 'B.jpg'"):
            pool.find([id])


@pytest.mark.parametrize(
    ("make", "root"),
    [*((make, "memory") for make in KINDS if make is not stream_pool),
     *((make, "s3") for make in (npy_pool, tar_pool, parquet_pool))],
    indirect=["root"],
)  # fmt: skip
def test_every_kind_is_read_as_on_this_machine(
    root: str, tmp_path: Path, make: Callable[[Path], str]
) -> None:
    name = make(tmp_path)
    for path in tmp_path.rglob("*.*"):
        _put(root, path.relative_to(tmp_path).as_posix(), path.read_bytes())
    local, pool = open_pool(tmp_path / name), open_pool(f"{root}/{name}")
    assert (pool.unique, pool.indexed) == (local.unique, local.indexed)
    assert pool.remote == (make is not npz_pool)  # that one is in memory
    assert pool.streamed == (".tar" in name)
    ids = list(local.ids())
    assert list(pool.ids()) == [item.id for item in pool] == ids and pool.count() == COUNT
    assert contents(pool) == contents(local)
    assert contents(pool.find(ids[21:3:-7])) == contents(local.find(ids[21:3:-7]))
    (chunk,) = pool.chunks([range(20, 30)])
    assert chunk.ids == ids[20:]
    if isinstance(pool, ArrayPool):
        out = np.zeros((8, 5, 6, 3), np.uint8)
        assert chunk.read_rows(out)
        assert np.array_equal(out[:3], [item.read() for item in chunk.items])


@pytest.mark.parametrize("make", [npy_pool, tar_pool, gz_pool, parquet_pool])
def test_a_damaged_file_is_one_error(
    memory: str, tmp_path: Path, make: Callable[[Path], str]
) -> None:
    make(tmp_path)
    files = sorted(path for path in tmp_path.rglob("*.*") if path.is_file())
    for path in files:
        _put(memory, path.name, path.read_bytes())
    pattern = f"{memory}/*{files[-1].suffix}"
    assert open_pool(pattern).count() == COUNT
    content = files[-1].read_bytes()
    _put(memory, files[-1].name, content[: len(content) * 2 // 3])
    with pytest.raises(PoolError, match="damaged|not a readable"):
        list(open_pool(pattern))


def test_a_remote_arrow_file_is_refused(memory: str, tmp_path: Path) -> None:
    path = write_table(tmp_path / "data.arrow", {"image": [b"x"]})
    with pytest.raises(PoolError, match="only read on this machine; copy it here, or save it as P"):
        open_pool(_put(memory, "data.arrow", path.read_bytes()))


def test_a_missing_pool_is_one_error(root: str) -> None:
    for name in ("nothing", "nothing.npy", "no/s-{0..3}.tar", "nothing.parquet?id=x"):
        with pytest.raises(PoolError, match="no such") as caught:
            list(open_pool(f"{root}/{name}"))
        assert "\n" not in str(caught.value)


def test_an_object_that_vanished_is_one_bad_image(root: str) -> None:
    items = list(open_pool(_folder(root)))
    files, path = fsspec.core.url_to_fs(f"{root}/B.jpg")
    files.rm(path)
    with pytest.raises(ImageError, match="no such object"):
        items[0].read()
    assert items[1].read() == b"a/10.jpg"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionError("the network is down"), PoolError),
        (PermissionError("Access Denied"), ImageError),
        (PermissionError("The token has expired."), PoolError),
    ],
)
def test_a_store_that_fails_stops_the_run_and_skips_no_image(
    memory: str, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception]
) -> None:
    item = next(iter(open_pool(_folder(memory))))
    files, _ = fsspec.core.url_to_fs(memory, use_listings_cache=False)

    def refuse(*_: Any, **__: Any) -> bytes:
        raise error

    monkeypatch.setattr(files, "cat_file", refuse)
    with pytest.raises(kind, match=r"(?i)network is down|denied|expired"):
        item.read()


def _error(uri: str) -> str:
    """The line that opening a pool gives to a process without connections."""
    store = fsspec.get_filesystem_class("s3")
    store.clear_instance_cache()
    with pytest.raises(PoolError) as caught:
        open_pool(uri)
    store.clear_instance_cache()
    assert "\n" not in str(caught.value) and "hush" not in str(caught.value)
    return str(caught.value)


def test_no_bucket_no_credentials_and_no_server_are_one_line(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fsspec.get_filesystem_class("s3"), "retries", 1)
    assert "no such" in _error("s3://nobodys-bucket/pool")
    with monkeypatch.context() as patch:
        for name in KEYS:
            patch.delenv(name)
        assert "AWS_ACCESS_KEY_ID" in _error(f"{s3}/pool")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "cannot be read" in _error(f"{s3}/pool")


@pytest.mark.parametrize(
    ("module", "package", "uri"),
    [("fsspec.core", "fsspec", "memory://x"), ("s3fs", "s3fs", "s3://bucket/x")],
)
def test_without_the_extra_the_remedy_is_named(
    module: str, package: str, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("s3fs")
    fsspec.get_filesystem_class("s3")
    monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, "s3")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError) as caught:
        open_pool(uri)
    line = str(caught.value)
    assert "pip install 'lloss[remote]'" in line and f"the package '{package}'" in line


def test_an_unknown_kind_of_url_is_a_pool_error() -> None:
    with pytest.raises(PoolError, match="nonsense://x/y: .*not known"):
        open_pool("nonsense://me:hush@x/y")


def test_fingerprints_of_remote_files_are_of_size_and_tag(root: str, tmp_path: Path) -> None:
    def put(last: bytes) -> str:
        for number, content in enumerate((b"first", last)):
            path = write_table(tmp_path / "t.parquet", {"jpg": [content]})
            _put(root, f"{number}.parquet", path.read_bytes())
        return open_pool(root).fingerprint()

    before = put(b"one")
    assert open_pool(f"{root}/{{0..1}}.parquet").fingerprint() == before
    assert put(b"two") != before != ""


def test_objects_that_are_empty_or_too_large(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "MAX_ENCODED", 5000)
    for name, size in (("a.jpg", 0), ("b.jpg", 5000), ("c.jpg", 7000)):
        _put(root, name, b"x" * size)
    empty, most, large = open_pool(root)
    assert (empty.read(), len(most.read())) == (b"", 5000)
    with pytest.raises(ImageError, match="has 7000 bytes, over the limit of 5000"):
        large.read()
