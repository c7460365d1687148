"""An encoded image over the limit is one bad image in every kind of pool, and is never read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lloss.errors import ImageError
from lloss.pools import image_files, open_pool

from .pool_files import write, write_table, write_tar

CAP = 5000
IMAGES = {"a.jpg": b"x" * CAP, "b.jpg": b"x" * (CAP + 1), "c.jpg": b"x" * CAP}
REFUSED = rf"has {CAP + 1} bytes, over the limit of {CAP} for an encoded image"


@pytest.fixture(autouse=True)
def cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "MAX_ENCODED", CAP)


KINDS: dict[str, Callable[[Path], object]] = {
    "": lambda root: None,  # the folder itself
    "l.txt": lambda path: write(path, "\n".join(IMAGES).encode()),
    "p.parquet": lambda path: write_table(path, {"path": list(IMAGES)}),
    "s.tar": lambda path: write_tar(path, IMAGES),
    "s.tar.gz": lambda path: write_tar(path, IMAGES),
    "t.parquet": lambda path: write_table(path, {"image": list(IMAGES.values())}),
    "u.parquet": lambda path: write_table(
        path, {"image": [{"bytes": image, "path": "x"} for image in IMAGES.values()]}
    ),
}
REMOTE = ("", "l.txt", "p.parquet", "s.tar", "t.parquet")


@pytest.mark.parametrize(
    ("name", "remote"), [*((name, False) for name in KINDS), *((name, True) for name in REMOTE)]
)
def test_an_image_over_the_limit_is_one_bad_image(tmp_path: Path, name: str, remote: bool) -> None:
    for image, content in IMAGES.items():
        write(tmp_path / image, content)
    KINDS[name](tmp_path / name)
    uri = f"{tmp_path}/{name}"
    if remote:
        files = pytest.importorskip("fsspec").filesystem("memory")
        for path in tmp_path.iterdir():
            files.pipe(f"/sizes/{tmp_path.name}/{path.name}", path.read_bytes())
        uri = f"memory://sizes/{tmp_path.name}{uri.removeprefix(str(tmp_path))}"
    pool = open_pool(uri.rstrip("/"))
    for items in (list(pool), pool.find(list(pool.ids()))):
        first, second, third = items
        assert len(first.read()) == len(third.read()) == CAP
        with pytest.raises(ImageError, match=REFUSED):
            second.read()


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs a file that grows")
def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("/proc/self/smaps")  # 0 bytes by its own account
    (item,) = open_pool(tmp_path)
    with pytest.raises(ImageError, match=f"over the limit of {CAP}"):
        item.read()


def test_two_hundred_gigabytes_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "huge.jpg").touch()
    try:
        os.truncate(tmp_path / "huge.jpg", 200 << 30)
    except OSError:
        pytest.skip("the file system has no files of that size")
    (item,) = open_pool(tmp_path)
    with pytest.raises(ImageError, match="has 214748364800 bytes, over the limit"):
        item.read()
