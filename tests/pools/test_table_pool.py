"""Tables: which columns are ids and images, and what broken files and rows are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pytest

from lloss.errors import ImageError, PoolError
from lloss.pools import open_pool, table_files
from lloss.pools.storage import LocalPath
from lloss.pools.table_pool import TablePool

from .pool_files import ids_of, write, write_table

BYTES = [b"a", b"b"]
TEXTS = [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]


@pytest.mark.parametrize(
    ("columns", "ids"),
    [
        *(({"x": [1.0, 2.0], name: ["p", "q"]}, ["p", "q"]) for name in
          ("id", "image_id", "key", "__key__", "ID", "Image_ID", " id ")),
        ({}, ["0", "1"]),
        ({"file_name": ["x.jpg", "y.jpg"]}, ["x.jpg", "y.jpg"]),
        ({"ID": ["x", "y"], "id": ["p", "q"], "Image_Id": ["r", "s"]}, ["p", "q"]),  # exact wins
    ],
)  # fmt: skip
def test_the_id_is_known_by_its_name(tmp_path: Path, columns: Any, ids: list[str]) -> None:
    """Or row numbers would silently stand for ids."""
    pool = open_pool(write_table(tmp_path / "t.parquet", {**columns, "jpg": BYTES}))
    assert [item.id for item in pool] == list(pool.ids()) == ids
    assert [item.read() for item in pool] == BYTES


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint8(), *TEXTS], ids=str)
def test_ids_are_text_or_whole_numbers(tmp_path: Path, kind: Any) -> None:
    values = [7, 10] if pa.types.is_integer(kind) else ["7", "10"]
    path = write_table(tmp_path / "t.parquet", {"id": pa.array(values, kind), "jpg": BYTES})
    assert ids_of(path) == ["7", "10"] == list(open_pool(path).ids())


@pytest.mark.parametrize("kind", [pa.float64(), pa.timestamp("s"), pa.bool_()], ids=str)
def test_other_ids_are_refused(tmp_path: Path, kind: Any) -> None:
    ids = pa.array([0, 1]).cast(kind)
    path = write_table(tmp_path / "t.parquet", {"id": ids, "jpg": BYTES})
    with pytest.raises(PoolError, match="'id' of .* cannot be an id; .*[?]id=COLUMN"):
        open_pool(path)


@pytest.mark.parametrize(
    ("columns", "options", "reason"),
    [
        ({"left": BYTES, "right": BYTES, "id": [1, 2]}, "",
         r"left and in right .*id \(int64\).*[?]image=COLUMN"),
        ({"id": [1], "x": ["y"]}, "", "no column of images"),
        ({"left": BYTES, "id": [1, 2]}, "?image=up", "does not have one column 'up'"),
        ({"left": BYTES, "id": [1, 2]}, "?image=id", "'id' holds no images"),
        ({"ID": ["x", "y"], "Id": ["p", "q"], "jpg": BYTES}, "",
         r"ids in ID and in Id; name one with \?id=COLUMN"),
    ],
)  # fmt: skip
def test_ambiguous_columns_are_refused(
    tmp_path: Path, columns: Any, options: str, reason: str
) -> None:
    path = write_table(tmp_path / "t.parquet", columns)
    with pytest.raises(PoolError, match=reason):
        open_pool(f"{path}{options}")


def test_options_choose_columns(tmp_path: Path) -> None:
    columns = {"left": BYTES, "right": BYTES[::-1], "n": [1, 2]}
    path = write_table(tmp_path / "t.parquet", columns)
    assert [item.read() for item in open_pool(f"{path}?image=right")] == BYTES[::-1]
    assert ids_of(f"{path}?image=left&id=n") == ["1", "2"]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()], ids=str)
def test_bytes_of_any_arrow_type(tmp_path: Path, kind: Any) -> None:
    path = write_table(tmp_path / "t.feather", {"jpg": pa.array(BYTES, kind)})
    assert [item.read() for item in open_pool(path)] == BYTES


def test_a_struct_of_bytes_and_path_gives_either(tmp_path: Path) -> None:
    write(tmp_path / "b.jpg", b"from the file")
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = [{"bytes": b"here", "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}, None]
    path = write_table(tmp_path / "t.parquet", {"image": pa.array(rows, kind), "label": [0, 1, 2]})
    first, second, third = open_pool(path)
    assert (first.read(), second.read()) == (b"here", b"from the file")
    with pytest.raises(ImageError, match="the image is null"):
        third.read()


def test_paths_are_relative_to_the_files_folder(tmp_path: Path) -> None:
    write(tmp_path / "in/a.jpg", b"a")
    paths = ["in/a.jpg", "in/gone.jpg", "in/nul\0.jpg", None]
    columns = {"path": paths, "id": [1, 2, 3, 4]}
    found, gone, nul, null = open_pool(write_table(tmp_path / "t.parquet", columns))
    assert (found.id, found.read()) == ("1", b"a")
    for item, reason in ((gone, "cannot be read"), (nul, "cannot be read"), (null, "null")):
        with pytest.raises(ImageError, match=reason):
            item.read()


def test_a_null_image_is_one_bad_image(tmp_path: Path) -> None:
    columns = {"id": ["p", "q"], "jpg": [None, b"b"]}
    null, full = open_pool(write_table(tmp_path / "i.parquet", columns))
    assert full.read() == b"b"
    with pytest.raises(ImageError, match="the image is null"):
        null.read()


def test_a_folder_of_tables_is_one_pool_numbered_through(tmp_path: Path) -> None:
    write_table(tmp_path / "b.parquet", {"jpg": [b"3"]})
    write_table(tmp_path / "a.parquet", {"jpg": [b"0", b"1", b"2"]})
    items = list(open_pool(tmp_path))
    assert [(item.id, item.read()) for item in items] == [(str(n), b"%d" % n) for n in range(4)]
    write_table(tmp_path / "c.parquet", {"png": [b"4"]})
    with pytest.raises(PoolError, match=r"c\.parquet: has no column 'jpg'"):
        list(open_pool(tmp_path))


def test_a_table_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    columns = {"id": ["p", "q", "r"], "jpg": [b"a" * 999, b"b", b"c"]}
    write_table(tmp_path / "t.parquet", columns).rename(tmp_path / "t.feather")
    feather.write_feather(pa.table(columns), tmp_path / "u.parquet", chunksize=2)  # compressed
    for name in ("t.feather", "u.parquet"):
        pool = open_pool(tmp_path / name)
        assert [item.read() for item in pool] == columns["jpg"]
        assert list(pool.ids()) == columns["id"] and pool.count() == 3
    write(tmp_path / "v.feather", b"FEA1" + bytes(100) + b"FEA1")
    with pytest.raises(PoolError, match="Feather's version 1; write it with version 2"):
        open_pool(tmp_path / "v.feather")


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "feather"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"ARROW1\0\0", b"garbage" * 200])
def test_garbage_is_one_error(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = write(tmp_path / f"t.{suffix}", content)
    with pytest.raises(PoolError, match=rf"t\.{suffix}: not a readable {suffix} file") as caught:
        list(open_pool(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "feather"])
def test_a_truncated_table_is_an_error_wherever_it_was_cut(tmp_path: Path, suffix: str) -> None:
    columns = {"id": list(map(str, range(40))), "jpg": [b"x" * 50] * 40}
    path = write_table(tmp_path / f"t.{suffix}", columns, block=7)
    whole = path.read_bytes()
    for size in range(0, len(whole), max(len(whole) // 61, 1)):
        path.write_bytes(whole[:size])
        with pytest.raises(PoolError, match="not a readable"):
            list(open_pool(path))


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "feather"])
def test_a_table_without_rows_is_an_empty_pool(tmp_path: Path, suffix: str) -> None:
    columns = {"id": pa.array([], pa.string()), "jpg": pa.array([], pa.binary())}
    with pytest.raises(PoolError, match="holds no image"):
        open_pool(write_table(tmp_path / f"t.{suffix}", columns))


def test_listing_ids_reads_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = open_pool(write_table(tmp_path / "t.parquet", {"id": ["p", "q"], "jpg": BYTES}))
    asked, read = [], table_files._Parquet.batches

    def watched(self: Any, columns: Any, block: int = 0) -> Any:
        asked.append(list(columns))
        return read(self, columns, block)

    monkeypatch.setattr(table_files._Parquet, "batches", watched)
    assert list(pool.ids()) == ["p", "q"]
    assert pool.count() == 2
    assert asked == [["id"]]


def test_a_batch_is_bounded_in_bytes(tmp_path: Path) -> None:
    columns = {"jpg": [bytes(1 << 20)] * 40}
    path = write_table(
        tmp_path / "t.parquet", columns, block=40, compression="none", use_dictionary=False
    )
    batches = table_files.open_table(LocalPath(path)).batches(["jpg"])
    sizes = [batch.nbytes for _, batch in batches]
    assert sum(sizes) >= 40 << 20
    assert max(sizes) <= 17 << 20


def _text(values: list[bytes | None], kind: Any) -> Any:
    """A column of unchecked text."""
    raw = pa.array(values, pa.binary()).view(pa.string())
    return raw.dictionary_encode() if pa.types.is_dictionary(kind) else raw.cast(kind)


@pytest.mark.parametrize("kind", TEXTS, ids=str)
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize(
    ("id", "what"), [(b"caf\xe9", "not UTF-8"), (None, "null"), (b"", "empty")]
)
def test_a_broken_id_is_named_by_its_row(
    tmp_path: Path, kind: Any, suffix: str, id: bytes | None, what: str
) -> None:
    ids = _text([b"p", b"q", id, b"r"], kind)
    path = tmp_path / f"t.{suffix}"
    write_table(path, {"id": ids, "jpg": [b"1", b"2", b"3", b"4"]}, block=2)
    pool = TablePool([LocalPath(path)], "t", {})
    for listed in (pool, pool.ids()):
        with pytest.raises(PoolError, match=rf"t\.\w+: the id in row 2 \(from 0\) is {what}"):
            list(listed)


@pytest.mark.parametrize("kind", TEXTS, ids=str)
def test_a_path_that_is_not_utf8_is_one_bad_image(tmp_path: Path, kind: Any) -> None:
    write(tmp_path / "b.jpg", b"b")
    paths = _text([b"\xe9.jpg", b"b.jpg", None], kind)
    pool = open_pool(write_table(tmp_path / "t.parquet", {"id": [1, 2, 3], "path": paths}))
    for items in (list(pool), pool.find(["1", "2", "3"])):
        bad, good, null = items
        assert good.read() == b"b"
        with pytest.raises(ImageError, match=r"its path b'\\xe9\.jpg' is not UTF-8"):
            bad.read()
        with pytest.raises(ImageError, match="the image is null"):
            null.read()


def test_a_struct_with_a_path_that_is_not_utf8(tmp_path: Path) -> None:
    paths = _text([b"\xe9.jpg", b"\xe9.jpg"], pa.string())
    images = pa.StructArray.from_arrays([pa.array([b"here", None]), paths], ["bytes", "path"])
    pool = open_pool(write_table(tmp_path / "t.parquet", {"image": images}))
    for items in (list(pool), pool.find(["0", "1"])):
        assert items[0].read() == b"here"
        with pytest.raises(ImageError, match="is not UTF-8"):
            items[1].read()


@pytest.mark.parametrize("kind", TEXTS, ids=str)
def test_a_null_path_that_would_be_the_id_is_one_bad_image(tmp_path: Path, kind: Any) -> None:
    for name in ("a.jpg", "c.jpg"):
        write(tmp_path / name, name.encode())
    write_table(tmp_path / "0.parquet", {"path": _text([b"a.jpg", None], kind)})
    write_table(tmp_path / "1.parquet", {"path": _text([None, b"c.jpg"], kind)}, block=1)
    pool = open_pool(str(tmp_path / "*.parquet"))
    ids = ["a.jpg", "row 1", "row 2", "c.jpg"]
    assert [item.id for item in pool] == list(pool.ids()) == ids
    assert [chunk.ids for chunk in pool.chunks([range(2, 4)])] == [ids[2:]]
    assert not pool.unique  # a file may have such a name
    for items in (list(pool), pool.find(ids)):
        assert (items[0].read(), items[3].read()) == (b"a.jpg", b"c.jpg")
        for null in items[1:3]:
            with pytest.raises(ImageError, match="the image is null"):
                null.read()
