"""Lists of paths."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from lloss.errors import ImageError, PoolError
from lloss.pools import open_pool, refuse_duplicates

from .pool_files import ids_of, write


def test_a_text_list_is_relative_to_its_own_folder(tmp_path: Path) -> None:
    write(tmp_path / "lists/in/a.jpg", b"a")
    write(tmp_path / "b.dat", b"b")
    absolute = write(tmp_path / "c.jpg", b"c")
    text = f"in/a.jpg\r\n\n../b.dat\n{absolute}"
    pool = open_pool(write(tmp_path / "lists/l.txt", b"\xef\xbb\xbf" + text.encode()))
    assert list(pool.ids()) == ["in/a.jpg", "../b.dat", str(absolute)]
    assert [item.read() for item in pool] == [b"a", b"b", b"c"]
    assert pool.find(["../b.dat"])[0].read() == b"b"
    assert pool.count() == 3


def test_a_csv_list_takes_its_ids_from_the_column_id_or_the_path(tmp_path: Path) -> None:
    write(tmp_path / "in/a.jpg", b"a")
    path = write(tmp_path / "l.csv", b'size, Path ,ID\n3,in/a.jpg,"first, ""item"""\n')
    (item,) = open_pool(path)
    assert (item.id, item.read()) == ('first, "item"', b"a")
    long = "x" * 200_000  # more than Python's csv takes
    assert ids_of(write(tmp_path / "m.csv", f"path\na.jpg\n{long}\n".encode())) == ["a.jpg", long]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("l.csv", b"id,file\n1,a.jpg\n", r"column 'path' \(found: id, file\)"),
        ("l.csv", b"id,path\n7,a.jpg\n8,b.jpg\n7,c.jpg\n", "the id '7' comes twice"),
        ("l.csv", b"id,path\n,a.jpg\n", "line 2: an empty id or path"),
        ("l.csv", b"id,path\n1,\n", "line 2: an empty id or path"),
        ("l.csv", b"id,path\n1\n", "line 2"),
        ("l.csv", b"path\n", "no image"),
        ("l.txt", b"\n", "no image"),
        ("l.txt", b"caf\xe9.jpg\n", "UTF-8"),
        ("l.csv", b"path\ncaf\xe9.jpg\n", "UTF-8"),
        ("l.txt", b"a.jpg\na\0b.jpg\n", r"l\.txt, line 2: holds a NUL"),
        ("l.txt", b"\npath\na.jpg\n", "line 2: 'path' looks like the header of a CSV"),
    ],
)
def test_a_broken_list_is_one_error_with_its_line(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    with pytest.raises(PoolError, match=reason) as caught:
        refuse_duplicates(open_pool(write(tmp_path / name, content)))
    assert "\n" not in str(caught.value)


def test_a_path_without_a_file_is_one_bad_image(tmp_path: Path) -> None:
    long, folder = open_pool(write(tmp_path / "l.txt", b"a" * 5000 + b".jpg\n.\n"))
    with pytest.raises(ImageError, match="cannot be read"):
        long.read()
    with pytest.raises(ImageError, match="directory"):
        folder.read()


def test_a_long_list_is_not_held_in_memory(tmp_path: Path) -> None:
    lines = (f"images/of/some/folder/{number:060d}.jpg\n" for number in range(20_000))
    path = write(tmp_path / "l.txt", "".join(lines).encode())
    tracemalloc.start()
    pool = open_pool(path)
    assert sum(1 for _ in pool) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000 * 40  # a path alone has 90 characters
