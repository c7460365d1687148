"""Which failures stop a run, and which skip one image."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lloss.errors import ImageError, PoolError
from lloss.pools import Pool, open_pool

from .pool_files import write, write_table


def _folder(root: Path) -> Pool:
    return open_pool(root)


def _list(root: Path) -> Pool:
    return open_pool(write(root / "l.txt", b"a.jpg\nb.jpg\n"))


def _table(root: Path) -> Pool:
    return open_pool(write_table(root / "t.parquet", {"path": ["a.jpg", "b.jpg"]}))


@pytest.fixture(params=[_folder, _list, _table], ids=lambda make: make.__name__[1:])
def make(request: pytest.FixtureRequest) -> Callable[[Path], Pool]:
    return request.param  # type: ignore[no-any-return]


def _root(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg"):
        write(tmp_path / "pool" / name)
    return tmp_path / "pool"


def test_a_missing_image_is_skipped_and_a_missing_pool_stops_the_run(
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


def test_a_pool_whose_disk_was_removed_stops_the_run(
    tmp_path: Path, make: Callable[[Path], Pool]
) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    with tempfile.TemporaryDirectory(dir=shm) as disk:
        mounted = tmp_path / "mounted"
        mounted.symlink_to(_root(Path(disk) / "x"))
        items = list(make(mounted))
        assert [item.read() for item in items] == [b"x", b"x"]
        mounted.unlink()
        mounted.mkdir()  # the mount point, empty
        with pytest.raises(PoolError, match="mounted: the pool is gone"):
            items[0].read()


OF_THE_POOL = ["EIO", "ESTALE", "ENOTCONN", "ENODEV", "EMFILE", "ENFILE", "ETIMEDOUT", "EHOSTDOWN"]
OF_THE_IMAGE = ["EACCES", "ELOOP", "ENAMETOOLONG", "ENOENT"]


@pytest.mark.parametrize("name", [*OF_THE_POOL, *OF_THE_IMAGE])
@pytest.mark.parametrize("call", ["open", "read"])
def test_failures_of_a_disk_a_network_or_the_process_stop_the_run(
    tmp_path: Path, name: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = getattr(errno, name)
    kind = PoolError if name in OF_THE_POOL else ImageError

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    root = _root(tmp_path)
    for item in [next(iter(make(root))) for make in (_folder, _list, _table)]:
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            with pytest.raises(kind) as caught:
                item.read()
        assert os.strerror(number) in str(caught.value)
        for part in ("a.jpg", "run the same command again"):
            assert (part in str(caught.value)) == (kind is PoolError)


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
