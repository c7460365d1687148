"""Folders of image files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lloss.errors import ImageError, LlossError, PoolError
from lloss.pools import FolderPool, open_pool

from .pool_files import ids_of, write


def test_ids_are_paths_in_the_order_of_names_whatever_the_order_on_disk(tmp_path: Path) -> None:
    names = ["b.jpg", "a/z.jpg", "B.JPG", "a/10.Tiff", "a/9.jpg", "ä.jpg", "x.jpg/y.png"]
    for folder, order in ((tmp_path / "one", names), (tmp_path / "two", names[::-1])):
        for name in [*order, "notes.txt", "jpg", ".jpg", "a.jpg.part", "labels.csv"]:
            write(folder / name, name.encode())
        expected = ["B.JPG", "a/10.Tiff", "a/9.jpg", "a/z.jpg", "b.jpg", "x.jpg/y.png", "ä.jpg"]
        pool = open_pool(folder)
        assert [item.id for item in pool] == list(pool.ids()) == expected
        assert [item.read().decode() for item in pool] == expected  # type: ignore[union-attr]


def test_links_are_followed_and_loops_are_cut(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere/1.jpg")
    write(tmp_path / "pool/a/2.jpg")
    (tmp_path / "pool/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pool/a/up").symlink_to(tmp_path / "pool")
    (tmp_path / "pool/self").symlink_to("self")
    assert ids_of(tmp_path / "pool") == ["a/2.jpg", "link/1.jpg"]


def test_folders_are_left_out_by_any_path_to_them(tmp_path: Path) -> None:
    for name in ("a.png", "masks/a.png", "b/masks/b.png", "b/c.png"):
        write(tmp_path / name)
    (tmp_path / "again").symlink_to(tmp_path / "masks")
    leave_out = [tmp_path / "b/../masks", tmp_path / "gone", tmp_path]  # never the root itself
    pool = open_pool(tmp_path, leave_out=leave_out)
    assert list(pool.ids()) == ["a.png", "b/c.png", "b/masks/b.png"]
    assert [item.id for item in pool.find(["b/c.png"])] == ["b/c.png"]
    with pytest.raises(PoolError, match=r"'masks/a\.png' is not in the pool"):
        pool.find(["masks/a.png"])


def test_an_unreadable_file_is_one_bad_image(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.png")
    write(tmp_path / "vanished.jpg")
    items = list(open_pool(tmp_path))
    (tmp_path / "vanished.jpg").unlink()
    for item, reason in zip(items, ("No such file", "not a regular file", "No such file")):
        with pytest.raises(ImageError, match=reason):
            item.read()


def test_any_file_name_becomes_an_id_that_finds_it(tmp_path: Path) -> None:
    names = (b"two\nlines.jpg", b"caf\xe9.jpg")
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(name)
    pool = open_pool(tmp_path)
    assert list(pool.ids()) == ["caf\\xe9.jpg", "two\nlines.jpg"]
    for item in [*pool, *pool.find(list(pool.ids()))]:
        assert item.read() in names


def test_an_escaped_name_beside_its_escape_is_an_error(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")).write_bytes(b"byte")
    write(tmp_path / "\\xff.jpg")
    with pytest.raises(PoolError, match="two names read .* one of which is not UTF-8"):
        ids_of(tmp_path)


@pytest.mark.parametrize(
    "id",
    ["../secret.jpg", "sub/../../secret.jpg", "./a.jpg", "a.jpg/", "", "sub//b.jpg", "a\0.jpg",
     "notes.txt", "/etc/a.jpg", "x" * 5000, "\ud800"],
)  # fmt: skip
def test_find_refuses_what_the_listing_does_not_give(tmp_path: Path, id: str) -> None:
    for name in ("secret.jpg", "pool/a.jpg", "pool/sub/b.jpg", "pool/notes.txt"):
        write(tmp_path / name)
    with pytest.raises(PoolError, match="not in the pool"):
        open_pool(tmp_path / "pool").find([id])


def test_listing_reads_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.jpg")
    monkeypatch.setattr("builtins.open", lambda path, *_, **__: pytest.fail(f"read {path}"))
    assert [item.id for item in FolderPool(tmp_path)] == ["a.jpg"]


def test_a_folder_that_cannot_be_listed_is_a_pool_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.jpg")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(LlossError, match="cannot be listed: Permission denied"):
        list(FolderPool(tmp_path))
