"""What stops a run, and what is one image skipped."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lloss.errors import ImageError, LlossError, PoolError
from lloss.pools import Pool, open_pool


def _folder(root: Path) -> Pool:
    return open_pool(root)


def _list(root: Path) -> Pool:
    (root / "l.txt").write_text("a.jpg\nb.jpg\n")
    return open_pool(root / "l.txt")


def _table(root: Path) -> Pool:
    pq.write_table(pa.table({"path": ["a.jpg", "b.jpg"]}), root / "t.parquet")
    return open_pool(root / "t.parquet")


@pytest.fixture(params=[_folder, _list, _table], ids=lambda make: make.__name__[1:])
def make(request: pytest.FixtureRequest) -> Callable[[Path], Pool]:
    return request.param  # type: ignore[no-any-return]


def _root(tmp_path: Path) -> Path:
    root = tmp_path / "pool"
    root.mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        (root / name).write_bytes(b"x")
    return root


def test_an_image_that_is_gone_is_skipped_and_a_pool_that_is_stops_the_run(
    tmp_path: Path, make: Callable[[Path], Pool]
) -> None:
    root = _root(tmp_path)
    pool = make(root)
    items = [*pool, *pool.find(["b.jpg"])]
    (root / "b.jpg").unlink()
    assert items[0].read() == b"x"
    for item in items[1:]:
        with pytest.raises(ImageError, match="cannot be read: No such file"):
            item.read()
    shutil.rmtree(root)
    for item in items:
        with pytest.raises(PoolError, match=r"pool: the pool is gone; .*same command again"):
            item.read()


def test_a_pool_whose_disk_was_taken_away_stops_the_run(
    tmp_path: Path, make: Callable[[Path], Pool]
) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    with tempfile.TemporaryDirectory(dir=shm) as disk:
        mounted = tmp_path / "mounted"
        mounted.symlink_to(_root(Path(disk) / "x"))
        items = list(make(mounted))
        assert [item.read() for item in items] == [b"x", b"x"]
        mounted.unlink()
        mounted.mkdir()  # the mount point, empty
        with pytest.raises(PoolError, match="mounted: the pool is gone"):
            items[0].read()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        *((n, PoolError) for n in (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV)),
        *((n, PoolError) for n in (errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT)),
        (errno.EHOSTDOWN, PoolError),
        *((n, ImageError) for n in (errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT)),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
@pytest.mark.parametrize("call", ["open", "read"])
def test_what_a_disk_or_a_network_suffers_from_stops_the_run(
    tmp_path: Path,
    make: Callable[[Path], Pool],
    number: int,
    kind: type[LlossError],
    call: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    item = next(iter(make(_root(tmp_path))))

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(kind) as caught:
        item.read()
    monkeypatch.undo()
    assert os.strerror(number) in str(caught.value)
    assert ("a.jpg" in str(caught.value)) == (kind is PoolError)
    assert ("run the same command again" in str(caught.value)) == (kind is PoolError)


def test_rows_of_a_failing_disk_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 4, 3), np.uint8))
    item = next(iter(open_pool(tmp_path / "a.npy")))

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(PoolError, match=r"a\.npy: cannot be read: Input/output error; repair it"):
        item.read()


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_a_process_out_of_files_stops_and_skips_nothing(tmp_path: Path) -> None:
    code = f"""
import os, resource
from lloss.errors import PoolError
from lloss.pools import open_pool
items = list(open_pool({str(_root(tmp_path))!r}))
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
held = []
try:
    while True:
        held.append(os.open("/", os.O_RDONLY))
except OSError:
    pass
try:
    items[0].read()
except PoolError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Too many open files; repair it and run the same command again" in done.stdout
