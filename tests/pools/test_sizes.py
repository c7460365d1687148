"""An encoded image over the limit is one bad image, wherever it lies, and is never read."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lloss.errors import ImageError
from lloss.pools import Item, image_files, open_pool

CAP = 5000
SMALL, BIG = b"x" * CAP, b"x" * (CAP + 1)
REFUSED = rf"has {CAP + 1} bytes, over the limit of {CAP} for an encoded image"


@pytest.fixture(autouse=True)
def cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "MAX_ENCODED", CAP)


def _files(root: Path) -> None:
    for name, size in (("a.jpg", CAP), ("b.jpg", CAP + 1), ("c.jpg", CAP)):
        (root / name).touch()
        os.truncate(root / name, size)


def _folder(root: Path) -> str:
    _files(root)
    return str(root)


def _list(root: Path) -> str:
    _files(root)
    (root / "l.txt").write_text("a.jpg\nb.jpg\nc.jpg\n")
    return str(root / "l.txt")


def _paths(root: Path) -> str:
    _files(root)
    pq.write_table(pa.table({"path": ["a.jpg", "b.jpg", "c.jpg"]}), root / "t.parquet")
    return str(root / "t.parquet")


def _tar(path: Path, mode: Any = "w") -> str:
    with tarfile.open(path, mode) as tar:
        for name, content in (("a.jpg", SMALL), ("b.jpg", BIG), ("c.jpg", SMALL)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def _shard(root: Path) -> str:
    return _tar(root / "s.tar")


def _gz(root: Path) -> str:
    return _tar(root / "s.tar.gz", "w:gz")


def _table(kind: Any) -> Any:
    images: list[Any] = [SMALL, BIG, SMALL]
    if pa.types.is_struct(kind):
        images = [{"bytes": image, "path": "x"} for image in images]
    return pa.table({"id": ["a", "b", "c"], "image": pa.array(images, kind)})


def _parquet(root: Path) -> str:
    pq.write_table(_table(pa.binary()), root / "t.parquet")
    return str(root / "t.parquet")


def _struct(root: Path) -> str:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    pq.write_table(_table(kind), root / "t.parquet")
    return str(root / "t.parquet")


def _arrow(root: Path) -> str:
    table = _table(pa.large_binary())
    with pa.ipc.new_file(root / "t.arrow", table.schema) as file:
        file.write_table(table)
    return str(root / "t.arrow")


def _remote(make: Callable[[Path], str]) -> Callable[[Path], str]:
    def copied(root: Path) -> str:
        fsspec = pytest.importorskip("fsspec")
        uri = Path(make(root))
        there = f"memory://sizes/{root.name}"
        for path in root.iterdir():
            with fsspec.open(f"{there}/{path.name}", "wb") as file:
                file.write(path.read_bytes())
        return there if uri == root else f"{there}/{uri.name}"

    copied.__name__ = f"_remote{make.__name__}"
    return copied


KINDS = [_folder, _list, _paths, _shard, _gz, _parquet, _struct, _arrow]
KINDS += [_remote(make) for make in (_folder, _list, _paths, _shard, _parquet)]


def _check(items: list[Item]) -> None:
    first, second, third = items
    assert len(first.read()) == len(third.read()) == CAP
    with pytest.raises(ImageError, match=REFUSED):
        second.read()


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__[1:])
def test_an_image_over_the_limit_is_one_bad_image(
    tmp_path: Path, make: Callable[[Path], str]
) -> None:
    pool = open_pool(make(tmp_path))
    _check(list(pool))
    _check(pool.find(list(pool.ids())))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="has no files that grow so")
def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("/proc/self/smaps")  # of 0 bytes by its own account
    (item,) = open_pool(tmp_path)
    with pytest.raises(ImageError, match=f"over the limit of {CAP}"):
        item.read()


def test_an_empty_object_is_read_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (item,) = open_pool(_remote(str)(tmp_path))
    assert item.read() == b""


@pytest.mark.skipif(sys.platform != "linux", reason="needs sparse files and a limit of memory")
def test_two_hundred_gigabytes_are_not_read(tmp_path: Path) -> None:
    """In a process of little memory; the file takes no room on the disk."""
    (tmp_path / "huge.jpg").touch()
    try:
        os.truncate(tmp_path / "huge.jpg", 200 << 30)
    except OSError:
        pytest.skip("the file system has no files of that size")
    code = f"""
import resource
from lloss.errors import ImageError
from lloss.pools import open_pool
(item,) = open_pool({str(tmp_path)!r})
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
try:
    item.read()
except ImageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    wanted = "has 214748364800 bytes, over the limit of 1073741824 for an encoded image\n"
    assert done.stdout == wanted, done.stderr
