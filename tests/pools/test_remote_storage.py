"""Pools behind fsspec: every kind in memory, and on a real server that speaks S3."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lloss.errors import ImageError, LlossError, PoolError
from lloss.pools import Pool, image_files, open_pool

from ..waiting import PATIENCE

fsspec = pytest.importorskip("fsspec")

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "hush-hush"}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket's URL on a server process."""
    for package in ("s3fs", "moto", "flask", "flask_cors"):
        pytest.importorskip(package)
    port = _free_port()
    patch = pytest.MonkeyPatch()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    settings = {
        **KEYS,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in settings.items():
        patch.setenv(name, value)
    try:
        _wait_for(port, server)
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    finally:
        patch.undo()
        server.send_signal(signal.SIGTERM)
        server.wait(PATIENCE)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("the S3 server did not start")


@pytest.fixture(params=["memory", "s3"])
def root(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty folder."""
    bucket = "memory://bucket" if request.param == "memory" else request.getfixturevalue("s3")
    name = re.sub(r"\W", "-", request.node.name)
    yield f"{bucket}/{name}"
    files, path = fsspec.core.url_to_fs(f"{bucket}/{name}")
    if files.exists(path):
        files.rm(path, recursive=True)


def _put(root: str, name: str, content: bytes) -> str:
    with fsspec.open(f"{root}/{name}", "wb") as file:
        file.write(content)
    return f"{root}/{name}"


NAMES = ["B.jpg", "a/10.jpg", "a/9.jpg", "a/b/1.PNG", "b.jpg", "two words+%.jpg", "ä.jpg"]


def _folder(root: str) -> str:
    for name in [*NAMES[::-1], "notes.txt", "a/.jpg"]:
        _put(root, name, name.encode())
    return root


def test_a_remote_folder_has_the_ids_and_order_of_a_local_one(root: str, tmp_path: Path) -> None:
    for name in [*NAMES, "notes.txt", "a/.jpg"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    pool, local = open_pool(_folder(root)), open_pool(tmp_path)
    assert list(pool.ids()) == list(local.ids()) == NAMES
    assert [item.read() for item in pool] == [item.read() for item in local]
    assert (pool.remote, pool.unique, pool.count(), pool.uri) == (True, True, len(NAMES), root)


def test_remote_items_are_found_by_their_folders(root: str) -> None:
    pool = open_pool(_folder(root))
    assert [i.read() for i in pool.find(["b.jpg", "a/b/1.PNG"])] == [b"b.jpg", b"a/b/1.PNG"]
    for id in ("a/no.jpg", "no/9.jpg", "notes.txt", "../x.jpg", "a//9.jpg", "B.jpg/"):
        with pytest.raises(PoolError, match="not in the pool .*ids look like 'B.jpg'"):
            pool.find([id])


def _saved(array: Any, save: Callable[..., None]) -> bytes:
    buffer = io.BytesIO()
    save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
def test_a_remote_array_is_read_by_ranges(root: str, save: Any) -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 5, 6, 3), dtype=np.uint8)
    name = "a.npy" if save is np.save else "a.npz"
    pool = open_pool(_put(root, name, _saved(images, save)))
    assert pool.count() == 50
    assert np.array_equal(pool.find(["49"])[0].read(), images[49])
    out = np.zeros((8, 5, 6, 3), np.uint8)
    (chunk,) = pool.chunks([range(44, 52)])
    assert chunk.read_rows(out)
    assert np.array_equal(out[:6], images[44:])
    _put(root, name, _saved(images, save)[:-100])
    with pytest.raises(PoolError, match="not a readable array file"):
        open_pool(f"{root}/{name}")


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_remote_shards_are_streamed(root: str, suffix: str) -> None:
    for shard in (0, 1):
        buffer = io.BytesIO()
        mode: Any = "w" if suffix == "tar" else "w:gz"
        with tarfile.open(fileobj=buffer, mode=mode) as tar:
            for number in range(shard * 5, shard * 5 + 5):
                info = tarfile.TarInfo(f"{number}.jpg")
                info.size = 3
                tar.addfile(info, io.BytesIO(b"im%d" % number))
        _put(root, f"s-{shard}.{suffix}", buffer.getvalue())
    expected = [(str(n), b"im%d" % n) for n in range(10)]
    for uri in (f"{root}/s-{{0..1}}.{suffix}", f"{root}/s-*.{suffix}", root):
        pool = open_pool(uri)
        assert pool.streamed
        assert [(item.id, item.read()) for item in pool] == expected
    assert pool.find(["7"])[0].read() == b"im7"
    with pytest.raises(PoolError, match=rf"s-2\.{suffix}: no such bucket, folder or object"):
        list(open_pool(f"{root}/s-{{0..2}}.{suffix}"))
    _put(root, f"s-1.{suffix}", buffer.getvalue()[:2000] if suffix == "tar" else b"\x1f\x8b")
    with pytest.raises(PoolError, match="damaged"):
        list(open_pool(root))


def test_remote_tables(root: str) -> None:
    table = pa.table({"key": [f"k{n}" for n in range(30)], "jpg": [b"%d" % n for n in range(30)]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=7)
    _put(root, "t/0.parquet", buffer.getvalue())
    for uri in (f"{root}/t/0.parquet?id=key&image=jpg", f"{root}/t"):
        pool = open_pool(uri)
        assert list(pool.ids()) == [f"k{n}" for n in range(30)]
        assert [item.read() for item in pool] == [b"%d" % n for n in range(30)]
        assert pool.count() == 30
    for suffix, new in (("feather", pa.ipc.new_file), ("arrow", pa.ipc.new_stream)):
        buffer = io.BytesIO()
        with new(buffer, table.schema) as file:
            file.write_table(table, max_chunksize=7)
        pool = open_pool(_put(root, f"t.{suffix}", buffer.getvalue()))
        assert [c.ids for c in pool.chunks([range(20, 22)])] == [["k20", "k21"]]
        assert (pool.count(), pool.find(["k29"])[0].read()) == (30, b"29")


def test_remote_lists_and_table_paths_are_relative_to_their_folder(root: str) -> None:
    _put(root, "in/a.jpg", b"a")
    _put(root, "b.jpg", b"b")
    text = _put(root, "lists/l.txt", b"../in/a.jpg\n../b.jpg\ngone.jpg\n")
    found = list(open_pool(text))
    assert [item.read() for item in found[:2]] == [b"a", b"b"]
    with pytest.raises(ImageError, match="no such object"):
        found[2].read()
    csv = open_pool(_put(root, "l.csv", b"id,path\n1,in/a.jpg\n"))
    assert [(item.id, item.read()) for item in csv] == [("1", b"a")]
    buffer = io.BytesIO()
    pq.write_table(pa.table({"path": ["in/a.jpg", "b.jpg"]}), buffer)
    table = open_pool(_put(root, "p.parquet", buffer.getvalue()))
    assert [item.read() for item in table] == [b"a", b"b"]


def test_a_remote_saved_data_set(root: str, tmp_path: Path) -> None:
    hf = pytest.importorskip("datasets")
    images = [{"bytes": b"%d" % n, "path": None} for n in range(6)]
    data = hf.Dataset.from_dict({"image": images}, features=hf.Features({"image": hf.Image()}))
    hf.DatasetDict({"train": data}).save_to_disk(tmp_path / "d")
    for path in (tmp_path / "d").rglob("*.*"):
        _put(root, path.relative_to(tmp_path / "d").as_posix(), path.read_bytes())
    pool = open_pool(f"{root}?split=train")
    assert [(item.id, item.read()) for item in pool] == [(str(n), b"%d" % n) for n in range(6)]


def test_what_is_not_there_is_one_error(root: str) -> None:
    for name in ("nothing", "nothing.npy", "no/s-{0..3}.tar", "nothing.parquet?id=x"):
        with pytest.raises(PoolError, match="no such") as caught:
            list(open_pool(f"{root}/{name}"))
        assert "\n" not in str(caught.value)


def test_an_object_that_vanished_is_one_bad_image(root: str) -> None:
    pool = open_pool(_folder(root))
    items = list(pool)
    files, path = fsspec.core.url_to_fs(f"{root}/B.jpg")
    files.rm(path)
    with pytest.raises(ImageError, match="no such object"):
        items[0].read()
    assert items[1].read() == b"a/10.jpg"


def _fails(uri: str, **environment: str) -> str:
    """The last line that a process gives which opens this pool; it must be of our errors."""
    code = (
        "import sys\nfrom lloss.errors import LlossError\nfrom lloss.pools import open_pool\n"
        "try:\n    open_pool(sys.argv[1])\nexcept LlossError as error:\n    print(error)\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    settings = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_DEFAULT_REGION": "us-east-1"}
    done = subprocess.run(
        [sys.executable, "-c", code, uri],
        capture_output=True,
        text=True,
        env={**kept, **settings, **environment},
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1, done.stdout
    assert "hush" not in done.stdout + done.stderr
    return done.stdout


def test_no_bucket_no_credentials_and_no_server_are_one_line(s3: str) -> None:
    endpoint = {"AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"]}
    assert "no such" in _fails("s3://nobodys-bucket/pool", **endpoint, **KEYS)
    assert "AWS_ACCESS_KEY_ID" in _fails(f"{s3}/pool", **endpoint)
    down = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{_free_port()}"}
    assert "cannot be read" in _fails(f"{s3}/pool", **down, **KEYS)


def test_a_server_that_goes_down_stops_the_run_and_skips_no_image(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = open_pool(_folder(root))
    item = next(iter(pool))
    files, _ = fsspec.core.url_to_fs(root, use_listings_cache=False)

    def refuse(*_: Any, **__: Any) -> bytes:
        raise ConnectionError("the network is down")

    monkeypatch.setattr(files, "cat_file", refuse)
    with pytest.raises(PoolError, match="the network is down"):
        item.read()


def test_refused_for_one_object_or_for_all(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    item = next(iter(open_pool(_folder(root))))
    files, _ = fsspec.core.url_to_fs(root, use_listings_cache=False)
    for text, kind in (("Access Denied", ImageError), ("The token has expired.", PoolError)):

        def refuse(*_: Any, text: str = text, **__: Any) -> bytes:
            raise PermissionError(text)

        monkeypatch.setattr(files, "cat_file", refuse)
        with pytest.raises(kind, match="denied|expired"):
            item.read()


def test_an_unknown_kind_of_url_is_a_pool_error() -> None:
    with pytest.raises(PoolError, match="nonsense://x/y: .*not known"):
        open_pool("nonsense://me:hush@x/y")


def test_without_the_extra_the_remedy_is_told() -> None:
    for missing, uri in (("fsspec", "memory://x"), ("s3fs", "s3://bucket/x")):
        code = (
            f"import sys; sys.modules[{missing!r}] = None\n"
            "from lloss.errors import MissingExtraError\nfrom lloss.pools import open_pool\n"
            f"try:\n    open_pool({uri!r})\n"
            "except MissingExtraError as error:\n    print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert "pip install 'lloss[remote]'" in done.stdout, done.stderr
        assert f"the package '{missing}'" in done.stdout


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    pool: Pool = open_pool(f"file://{tmp_path}")
    assert not pool.remote
    assert [item.read() for item in pool] == [b"a"]
    assert issubclass(PoolError, LlossError)


def test_remote_files_are_told_by_size_and_tag(root: str) -> None:
    def write(last: bytes) -> str:
        for number, content in enumerate((b"first", last)):
            buffer = io.BytesIO()
            pq.write_table(pa.table({"jpg": [content]}), buffer)
            _put(root, f"{number}.parquet", buffer.getvalue())
        return open_pool(root).fingerprint()

    before = write(b"one")
    assert open_pool(root).fingerprint() == open_pool(f"{root}/{{0..1}}.parquet").fingerprint()
    assert write(b"two") != before != ""


def test_objects_that_are_empty_or_too_large(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "MAX_ENCODED", 5000)
    for name, size in (("a.jpg", 0), ("b.jpg", 5000), ("c.jpg", 7000)):
        _put(root, name, b"x" * size)
    _put(root, "l.txt", b"a.jpg\nb.jpg\nc.jpg\n")
    for uri in (root, f"{root}/l.txt"):
        empty, most, large = open_pool(uri)
        assert (empty.read(), len(most.read())) == (b"", 5000)
        with pytest.raises(ImageError, match="has 7000 bytes, over the limit of 5000"):
            large.read()


def test_a_count_that_asks_the_store_much_is_told_beforehand(root: str) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"jpg": [b"x"]}), buffer)
    _put(root, "t/0.parquet", buffer.getvalue())
    _put(root, "in/a.jpg", b"a")
    _put(root, "l.txt", b"in/a.jpg\n")
    _put(root, "a.npy", _saved(np.zeros((5, 6, 6), np.uint8), np.save))
    told = {name: open_pool(f"{root}/{name}").counted for name in ("t", "in", "l.txt", "a.npy")}
    assert told == {"t": False, "in": False, "l.txt": True, "a.npy": True}
