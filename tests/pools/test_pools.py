from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lloss.errors import ImageError, LlossError, PoolError
from lloss.pools import FolderPool, SubsetPool, load_array, open_pool
from lloss.pools.arrays import FileRows


def _ids(uri: Path) -> list[str]:
    return [item.id for item in open_pool(uri)]


def _arrays(uri: Path) -> NDArray[Any]:
    return np.stack([np.asarray(item.read()) for item in open_pool(uri)])


def _write(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _images(count: int = 4) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 5, 6, 3), dtype=np.uint8)


def test_the_id_of_a_file_is_its_path_below_the_folder(tmp_path: Path) -> None:
    _write(tmp_path / "b" / "c" / "2.jpg", b"two")
    _write(tmp_path / "a.png", b"one")
    items = list(open_pool(tmp_path))
    assert [item.id for item in items] == ["a.png", "b/c/2.jpg"]
    assert [item.read() for item in items] == [b"one", b"two"]


def test_the_order_is_that_of_the_names_whatever_the_order_on_disk(tmp_path: Path) -> None:
    names = ["b.jpg", "a/z.jpg", "B.jpg", "a/10.jpg", "a/9.jpg", "ä.jpg"]
    for folder, order in ((tmp_path / "one", names), (tmp_path / "two", names[::-1])):
        for name in order:
            _write(folder / name)
    expected = ["B.jpg", "a/10.jpg", "a/9.jpg", "a/z.jpg", "b.jpg", "ä.jpg"]
    assert _ids(tmp_path / "one") == expected
    assert _ids(tmp_path / "two") == expected


def test_an_upper_case_suffix_counts(tmp_path: Path) -> None:
    _write(tmp_path / "A.JPG")
    _write(tmp_path / "b.Tiff")
    assert _ids(tmp_path) == ["A.JPG", "b.Tiff"]


def test_files_that_are_no_images_are_ignored(tmp_path: Path) -> None:
    for name in ("a.jpg", "notes.txt", "jpg", ".jpg", "a.jpg.part", "labels.csv"):
        _write(tmp_path / name)
    assert _ids(tmp_path) == ["a.jpg"]


def test_a_folder_with_an_images_name_is_a_folder(tmp_path: Path) -> None:
    _write(tmp_path / "x.jpg" / "y.png")
    assert _ids(tmp_path) == ["x.jpg/y.png"]


def test_a_symbolic_link_back_up_is_followed_once_at_most(tmp_path: Path) -> None:
    _write(tmp_path / "a" / "1.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert _ids(tmp_path) == ["a/1.jpg"]


def test_a_symbolic_link_to_itself_does_not_stop_the_listing(tmp_path: Path) -> None:
    _write(tmp_path / "a.jpg")
    (tmp_path / "self").symlink_to("self")
    assert _ids(tmp_path) == ["a.jpg"]


def test_a_linked_folder_is_listed(tmp_path: Path) -> None:
    _write(tmp_path / "elsewhere" / "1.jpg")
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "link").symlink_to(tmp_path / "elsewhere")
    assert _ids(tmp_path / "pool") == ["link/1.jpg"]


def test_folders_can_be_left_out_by_whatever_path_the_walk_reaches_them(tmp_path: Path) -> None:
    for name in ("a.png", "masks/a.png", "b/masks/b.png", "b/c.png"):
        _write(tmp_path / name)
    (tmp_path / "again").symlink_to(tmp_path / "masks")
    pool = open_pool(tmp_path, leave_out=[tmp_path / "b" / ".." / "masks", tmp_path / "gone"])
    assert list(pool.ids()) == ["a.png", "b/c.png", "b/masks/b.png"]
    assert [item.id for item in pool.find(["b/c.png"])] == ["b/c.png"]
    with pytest.raises(PoolError, match=r"'masks/a\.png' is not in the pool"):
        pool.find(["masks/a.png"])


def test_the_root_itself_is_never_left_out(tmp_path: Path) -> None:
    _write(tmp_path / "a.png")
    assert list(open_pool(tmp_path, leave_out=[tmp_path]).ids()) == ["a.png"]


def test_a_broken_link_is_an_image_error_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    (item,) = open_pool(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        item.read()


def test_a_file_that_vanished_is_an_image_error_when_it_is_read(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jpg")
    (item,) = open_pool(tmp_path)
    path.unlink()
    with pytest.raises(ImageError, match="No such file"):
        item.read()


def test_a_newline_in_a_file_name_survives(tmp_path: Path) -> None:
    _write(tmp_path / "two\nlines.jpg", b"found")
    pool = open_pool(tmp_path)
    assert [item.id for item in pool] == ["two\nlines.jpg"]
    assert pool.find(["two\nlines.jpg"])[0].read() == b"found"


def test_a_file_name_that_is_not_utf8_gets_an_id_that_is(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(b"found")
    pool = open_pool(tmp_path)
    (item,) = pool
    assert item.id.encode("utf-8").decode("utf-8") == item.id
    assert item.read() == b"found"
    assert pool.find([item.id])[0].read() == b"found"


def test_an_escaped_name_and_a_file_really_called_so_are_not_one_id(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")).write_bytes(b"byte")
    _write(tmp_path / "\\xff.jpg", b"backslash")
    try:
        items = list(open_pool(tmp_path))
    except PoolError:  # an error that names both would do as well
        return
    assert len({item.id for item in items}) == 2
    found = open_pool(tmp_path).find([item.id for item in items])
    assert [item.read() for item in found] == [item.read() for item in items]


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    _write(tmp_path / "notes.txt")
    with pytest.raises(PoolError, match=r"no image \(looked for .*\.jpg"):
        open_pool(tmp_path)


def test_an_unknown_uri_is_an_error_that_tells_the_kinds(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"no such pool; give a folder, \.npy"):
        open_pool(tmp_path / "nothing")
    with pytest.raises(PoolError, match="no known kind"):
        open_pool(_write(tmp_path / "pool.zip"))


def test_an_unknown_uri_of_any_length_is_a_pool_error() -> None:
    with pytest.raises(PoolError):
        open_pool("x" * 5000)


def test_find_keeps_the_order_given(tmp_path: Path) -> None:
    for name in ("a.jpg", "b/c.jpg", "d.jpg"):
        _write(tmp_path / name, name.encode())
    wanted = ["d.jpg", "a.jpg", "b/c.jpg"]
    found = open_pool(tmp_path).find(wanted)
    assert [item.id for item in found] == wanted
    assert [item.read().decode() for item in found] == wanted  # type: ignore[union-attr]


def test_an_unknown_id_is_named_beside_an_example(tmp_path: Path) -> None:
    _write(tmp_path / "real.jpg")
    _write(tmp_path / "list.txt", b"real.jpg\n")
    np.save(tmp_path / "array.npy", _images())
    for uri, example in (("", "real.jpg"), ("list.txt", "real.jpg"), ("array.npy", "0")):
        with pytest.raises(PoolError, match=f"'unreal.jpg'.*ids look like '{example}'"):
            open_pool(tmp_path / uri).find(["unreal.jpg"])


@pytest.mark.parametrize(
    "id",
    ["../secret.jpg", "sub/../../secret.jpg", "./a.jpg", "a.jpg/", "", "sub//b.jpg", "a\0.jpg"],
)
def test_find_never_leaves_the_folder_nor_takes_a_second_spelling(tmp_path: Path, id: str) -> None:
    _write(tmp_path / "secret.jpg")
    _write(tmp_path / "pool" / "a.jpg")
    _write(tmp_path / "pool" / "sub" / "b.jpg")
    with pytest.raises(PoolError, match="not in the pool"):
        open_pool(tmp_path / "pool").find([id])


def test_find_takes_no_absolute_path(tmp_path: Path) -> None:
    secret = _write(tmp_path / "secret.jpg")
    _write(tmp_path / "pool" / "a.jpg")
    with pytest.raises(PoolError, match="not in the pool"):
        open_pool(tmp_path / "pool").find([str(secret)])


def test_find_takes_no_file_that_is_not_listed(tmp_path: Path) -> None:
    _write(tmp_path / "a.jpg")
    _write(tmp_path / "notes.txt")
    with pytest.raises(PoolError, match=r"notes\.txt"):
        open_pool(tmp_path).find(["notes.txt"])


@pytest.mark.parametrize("id", ["x" * 5000, "9" * 5000, "\ud800", "-1", "01", "4", "٣"])
def test_a_strange_id_is_unknown_and_nothing_worse(tmp_path: Path, id: str) -> None:
    _write(tmp_path / "folder" / "a.jpg")
    np.save(tmp_path / "array.npy", _images(4))
    for uri in ("folder", "array.npy"):
        with pytest.raises(PoolError, match="not in the pool"):
            open_pool(tmp_path / uri).find([id])


def test_the_ids_of_an_npy_are_row_numbers(tmp_path: Path) -> None:
    images = _images()
    np.save(tmp_path / "a.npy", images)
    pool = open_pool(tmp_path / "a.npy")
    assert [item.id for item in pool] == ["0", "1", "2", "3"]
    assert pool.count() == 4
    assert np.array_equal(pool.find(["2"])[0].read(), images[2])


@pytest.mark.parametrize("with_labels", [False, True])
def test_a_stored_npz_is_read_by_its_name(tmp_path: Path, with_labels: bool) -> None:
    images, path = _images(), tmp_path / "a.npz"
    arrays = {"labels": np.arange(4), "images": images} if with_labels else {"anything": images}
    np.savez(path, **arrays)
    assert isinstance(open_pool(path).rows, FileRows)  # type: ignore[attr-defined]
    assert np.array_equal(load_array(path, "images"), images)
    assert np.array_equal(_arrays(path), images)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_compressed_npz_gives_the_same_as_a_stored_one(tmp_path: Path, order: Any) -> None:
    images = np.asarray(_images(), order=order)
    np.savez_compressed(tmp_path / "small.npz", images=images)
    np.savez(tmp_path / "large.npz", images=images)
    for name in ("small.npz", "large.npz"):
        assert np.array_equal(_arrays(tmp_path / name), images)


def test_a_grey_array_is_a_pool(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 5, 6), np.uint8))
    assert _ids(tmp_path / "a.npy") == ["0", "1", "2", "3"]


def test_an_array_of_another_kind_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 5, 6, 3), np.float32))
    with pytest.raises(PoolError, match="float32"):
        open_pool(tmp_path / "a.npy")


@pytest.mark.parametrize("shape", [(), (5,), (5, 6), (2, 5, 6, 4), (2, 3, 5, 6), (1, 2, 5, 6, 3)])
def test_an_array_of_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(PoolError, match="shape"):
        open_pool(tmp_path / "a.npy")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_an_array_file_without_images_is_an_empty_pool(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    save = np.save if suffix == ".npy" else np.savez
    save(path, _images()[:0])
    with pytest.raises(PoolError, match="no image"):
        open_pool(path)


def test_an_npz_without_the_array_names_those_it_has(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=_images(), y=np.arange(4))
    with pytest.raises(PoolError, match=r"no array 'images' \(it has x, y\)"):
        open_pool(tmp_path / "a.npz")


def test_an_array_that_needs_pickle_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", images=np.array([{}], object), allow_pickle=True)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(PoolError):
            open_pool(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"junk that is no array", b"PK\3\4 junk", b"\x93NUMPY"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_damaged_array_file_is_a_pool_error(tmp_path: Path, content: bytes, suffix: str) -> None:
    with pytest.raises(PoolError, match="not a readable array file"):
        open_pool(_write(tmp_path / f"a{suffix}", content))


@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
def test_a_truncated_array_file_is_a_pool_error(tmp_path: Path, save: Any) -> None:
    path = tmp_path / ("a.npy" if save is np.save else "a.npz")
    save(path, _images())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PoolError, match="not a readable array file"):
        open_pool(path)


def test_an_array_file_with_the_others_suffix_is_a_pool_error(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, _images())
    with (tmp_path / "a.npy").open("wb") as file:
        np.savez(file, images=_images())
    for name in ("a.npz", "a.npy"):
        with pytest.raises(PoolError):
            open_pool(tmp_path / name)


def test_a_zip_of_other_files_called_npz_is_a_pool_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images", "no array")
    with pytest.raises(PoolError):
        open_pool(tmp_path / "a.npz")


def test_a_text_list_is_relative_to_its_own_folder(tmp_path: Path) -> None:
    _write(tmp_path / "lists" / "in" / "a.jpg", b"a")
    _write(tmp_path / "b.dat", b"b")
    absolute = _write(tmp_path / "c.jpg", b"c")
    text = f"in/a.jpg\r\n\n../b.dat\n{absolute}"
    path = _write(tmp_path / "lists" / "l.txt", b"\xef\xbb\xbf" + text.encode())
    pool = open_pool(path)
    assert _ids(path) == ["in/a.jpg", "../b.dat", str(absolute)]
    assert [item.read() for item in pool] == [b"a", b"b", b"c"]
    assert pool.find(["../b.dat"])[0].read() == b"b"
    assert pool.count() == 3


def test_a_csv_list_takes_its_ids_from_the_column_id(tmp_path: Path) -> None:
    _write(tmp_path / "in" / "a.jpg", b"a")
    path = _write(tmp_path / "l.csv", b'size, Path ,ID\n3,in/a.jpg,"first, ""item"""\n')
    (item,) = open_pool(path)
    assert item.id == 'first, "item"'
    assert item.read() == b"a"


def test_a_csv_list_without_ids_takes_its_paths(tmp_path: Path) -> None:
    path = _write(tmp_path / "l.csv", b"path\na.jpg\nb.jpg\n")
    assert _ids(path) == ["a.jpg", "b.jpg"]


def test_a_csv_list_without_paths_names_the_columns_it_has(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"column 'path' \(found: id, file\)"):
        open_pool(_write(tmp_path / "l.csv", b"id,file\n1,a.jpg\n"))


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("l.txt", b"a.jpg\n\nb.jpg\na.jpg\n", (1, 4)),
        ("l.csv", b"id,path\n7,a.jpg\n8,b.jpg\n7,c.jpg\n", (2, 4)),
    ],
)
def test_a_doubled_id_names_both_lines(
    tmp_path: Path, name: str, content: bytes, lines: tuple[int, int]
) -> None:
    with pytest.raises(PoolError, match=f"line {lines[0]} and in line {lines[1]}"):
        open_pool(_write(tmp_path / name, content))


@pytest.mark.parametrize("content", [b"id,path\n,a.jpg\n", b"id,path\n1,\n", b"id,path\n1\n"])
def test_an_empty_field_of_a_csv_list_names_its_line(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(PoolError, match="line 2"):
        open_pool(_write(tmp_path / "l.csv", content))


@pytest.mark.parametrize("name", ["l.txt", "l.csv"])
def test_an_empty_list_is_an_empty_pool(tmp_path: Path, name: str) -> None:
    with pytest.raises(PoolError, match="no image"):
        open_pool(_write(tmp_path / name, b"path\n" if name == "l.csv" else b"\n"))


@pytest.mark.parametrize("name", ["l.txt", "l.csv"])
def test_a_list_that_is_not_utf8_is_a_pool_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(PoolError, match="UTF-8"):
        open_pool(_write(tmp_path / name, b"path\ncaf\xe9.jpg\n"[5 * (name == "l.txt") :]))


def test_a_long_line_of_a_csv_list_is_one_row(tmp_path: Path) -> None:
    name = "x" * 200_000  # more than Python's csv takes
    assert _ids(_write(tmp_path / "l.csv", f"path\n{name}\n".encode())) == [name]


def test_a_listed_path_that_no_file_can_have_is_an_image_error(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"l\.txt, line 2: holds a NUL"):
        open_pool(_write(tmp_path / "l.txt", b"a.jpg\na\0b.jpg\n"))
    (long,) = open_pool(_write(tmp_path / "l.txt", b"a" * 5000 + b".jpg\n"))
    with pytest.raises(ImageError):
        long.read()
    (folder,) = open_pool(_write(tmp_path / "m.txt", b".\n"))
    with pytest.raises(ImageError, match="directory"):
        folder.read()


def test_the_rest_is_the_pool_without_some_ids(tmp_path: Path) -> None:
    for name in "abcd":
        _write(tmp_path / f"{name}.jpg")
    rest = SubsetPool(open_pool(tmp_path), ["b.jpg", "d.jpg", "unknown"])
    assert [item.id for item in rest] == ["a.jpg", "c.jpg"]
    assert rest.count() == 2
    with pytest.raises(PoolError, match=r"'b\.jpg'"):
        rest.find(["b.jpg"])


def test_listing_a_folder_reads_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "a.jpg")
    monkeypatch.setattr("builtins.open", lambda path, *_, **__: pytest.fail(f"read {path}"))
    assert [item.id for item in FolderPool(tmp_path)] == ["a.jpg"]


def test_a_folder_that_cannot_be_listed_is_a_pool_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path / "a.jpg")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(LlossError, match="cannot be listed: Permission denied"):
        list(FolderPool(tmp_path))


def test_a_pipe_by_an_images_name_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (item,) = FolderPool(tmp_path)
    with pytest.raises(ImageError, match="not a regular file"):
        item.read()
