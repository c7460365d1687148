from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from lloss.errors import ImageError, PoolError
from lloss.pools import open_pool
from lloss.pools import table_files as tablefiles
from lloss.pools.storage import LocalPath
from lloss.pools.table import TablePool


def _parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def _ids(uri: object) -> list[str]:
    return [item.id for item in open_pool(str(uri))]


BYTES = [b"a", b"b"]


@pytest.mark.parametrize("name", ["id", "image_id", "key", "__key__"])
def test_the_id_column_is_known_by_its_name(tmp_path: Path, name: str) -> None:
    path = _parquet(tmp_path / "t.parquet", {"x": [1.0, 2.0], name: ["p", "q"], "jpg": BYTES})
    items = list(open_pool(path))
    assert [item.id for item in items] == ["p", "q"]
    assert [item.read() for item in items] == BYTES


@pytest.mark.parametrize("name", ["ID", "Image_ID", " id "])
def test_the_id_column_is_known_in_any_case(tmp_path: Path, name: str) -> None:
    """Or row numbers would silently stand for ids."""
    assert _ids(_parquet(tmp_path / "t.parquet", {name: ["p", "q"], "jpg": BYTES})) == ["p", "q"]


def test_an_empty_id_is_a_bad_pool(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "t.parquet", {"id": ["p", ""], "jpg": BYTES})
    with pytest.raises(PoolError, match=r"t\.parquet: the id in row 1 \(from 0\) is empty"):
        _ids(path)


def test_an_exact_name_of_ids_wins_and_two_others_are_refused(tmp_path: Path) -> None:
    columns = {"ID": ["x", "y"], "id": ["p", "q"], "Image_Id": ["r", "s"], "jpg": BYTES}
    assert _ids(_parquet(tmp_path / "t.parquet", columns)) == ["p", "q"]
    columns = {"ID": ["x", "y"], "Id": ["p", "q"], "jpg": BYTES}
    with pytest.raises(PoolError, match=r"ids in ID and in Id; name one with \?id=COLUMN"):
        open_pool(_parquet(tmp_path / "u.parquet", columns))


def test_a_table_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    columns = {"id": ["p", "q"], "jpg": BYTES}
    _parquet(tmp_path / "t.feather", columns)
    feather.write_feather(pa.table(columns), tmp_path / "u.parquet")
    assert _ids(tmp_path / "t.feather") == _ids(tmp_path / "u.parquet") == ["p", "q"]
    (tmp_path / "v.feather").write_bytes(b"FEA1" + bytes(100) + b"FEA1")
    with pytest.raises(PoolError, match="Feather's version 1; write it with version 2"):
        open_pool(tmp_path / "v.feather")


def test_without_ids_the_path_or_the_row_number_is_it(tmp_path: Path) -> None:
    assert _ids(_parquet(tmp_path / "n.parquet", {"jpg": BYTES})) == ["0", "1"]
    columns = {"jpg": BYTES, "file_name": ["x.jpg", "y.jpg"]}
    assert _ids(_parquet(tmp_path / "p.parquet", columns)) == ["x.jpg", "y.jpg"]


@pytest.mark.parametrize(
    "kind",
    [
        pa.int64(),
        pa.uint8(),
        pa.string(),
        pa.large_string(),
        pa.dictionary(pa.int32(), pa.string()),
    ],
    ids=str,
)
def test_ids_are_text_or_whole_numbers(tmp_path: Path, kind: Any) -> None:
    values = [7, 10] if pa.types.is_integer(kind) else ["7", "10"]
    path = _parquet(tmp_path / "t.parquet", {"id": pa.array(values, kind), "jpg": BYTES})
    assert _ids(path) == ["7", "10"] == list(open_pool(path).ids())


@pytest.mark.parametrize("kind", [pa.float64(), pa.timestamp("s"), pa.bool_()], ids=str)
def test_other_ids_are_refused(tmp_path: Path, kind: Any) -> None:
    ids = pa.array([0, 1]).cast(kind)
    path = _parquet(tmp_path / "t.parquet", {"id": ids, "jpg": BYTES})
    with pytest.raises(PoolError, match="'id' of .* cannot be an id; .*[?]id=COLUMN"):
        open_pool(path)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()], ids=str)
def test_bytes_of_any_arrow_type(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "t.arrow"
    table = pa.table({"jpg": pa.array(BYTES, kind)})
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table)
    assert [item.read() for item in open_pool(path)] == BYTES


def test_a_struct_of_bytes_and_path_gives_either(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"from the file")
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = [{"bytes": b"here", "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}, None]
    path = _parquet(tmp_path / "t.parquet", {"image": pa.array(rows, kind), "label": [0, 1, 2]})
    first, second, third = open_pool(path)
    assert (first.read(), second.read()) == (b"here", b"from the file")
    with pytest.raises(ImageError, match="the image is null"):
        third.read()


def test_paths_are_relative_to_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"a")
    columns = {"path": ["in/a.jpg", "in/gone.jpg", "in/nul\0.jpg", None]}
    ids = {"id": [1, 2, 3, 4]}
    found, gone, nul, null = open_pool(_parquet(tmp_path / "t.parquet", {**columns, **ids}))
    assert (found.id, found.read()) == ("1", b"a")
    for item in (gone, nul):
        with pytest.raises(ImageError, match="cannot be read"):
            item.read()
    with pytest.raises(ImageError, match="null"):
        null.read()


def test_a_null_image_is_a_bad_row_and_a_null_id_a_bad_pool(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "i.parquet", {"id": ["p", "q"], "jpg": [None, b"b"]})
    null, full = open_pool(path)
    assert full.read() == b"b"
    with pytest.raises(ImageError, match="the image is null"):
        null.read()
    columns = {"id": ["p", "q", None], "jpg": [b"", b"", b""]}
    path = _parquet(tmp_path / "n.parquet", columns, row_group_size=2)
    with pytest.raises(PoolError, match=r"n\.parquet: the id in row 2 \(from 0\) is null"):
        list(open_pool(path))
    with pytest.raises(PoolError, match="row 2"):
        list(TablePool([LocalPath(path)], "n", {}).ids())


def test_columns_in_doubt_are_listed(tmp_path: Path) -> None:
    two = _parquet(tmp_path / "two.parquet", {"left": BYTES, "right": BYTES, "id": [1, 2]})
    with pytest.raises(PoolError, match=r"left and in right .*id \(int64\).*[?]image=COLUMN"):
        open_pool(two)
    assert [item.read() for item in open_pool(f"{two}?image=right")] == BYTES
    assert _ids(f"{two}?image=left&id=id") == ["1", "2"]
    with pytest.raises(PoolError, match="no column of images"):
        open_pool(_parquet(tmp_path / "none.parquet", {"id": [1], "x": ["y"]}))
    with pytest.raises(PoolError, match="one column 'up'"):
        open_pool(f"{two}?image=up")
    with pytest.raises(PoolError, match="'id' holds no images"):
        open_pool(f"{two}?image=id")


def test_a_folder_of_tables_is_one_pool_numbered_through(tmp_path: Path) -> None:
    _parquet(tmp_path / "b.parquet", {"jpg": [b"3"]})
    _parquet(tmp_path / "a.parquet", {"jpg": [b"0", b"1", b"2"]})
    items = list(open_pool(tmp_path))
    assert [(item.id, item.read()) for item in items] == [(str(n), b"%d" % n) for n in range(4)]
    _parquet(tmp_path / "c.parquet", {"png": [b"4"]})
    with pytest.raises(PoolError, match=r"c\.parquet: has no column 'jpg'"):
        list(open_pool(tmp_path))
    (tmp_path / "d.tar").write_bytes(b"")
    with pytest.raises(PoolError, match="files of two kinds"):
        open_pool(tmp_path)


def test_a_compressed_feather_file(tmp_path: Path) -> None:
    table = pa.table({"id": ["p", "q", "r"], "jpg": [b"a" * 999, b"b", b"c"]})
    feather.write_feather(table, tmp_path / "t.feather", chunksize=2)
    pool = open_pool(tmp_path / "t.feather")
    assert [(i.id, i.read()) for i in pool] == [("p", b"a" * 999), ("q", b"b"), ("r", b"c")]
    assert pool.count() == 3


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "feather"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"ARROW1\0\0", b"garbage" * 200])
def test_garbage_is_one_error(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(content)
    with pytest.raises(PoolError, match=rf"t\.{suffix}: not a readable {suffix} file") as caught:
        list(open_pool(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_a_truncated_table_is_an_error_wherever_it_was_cut(tmp_path: Path, kind: str) -> None:
    table = pa.table({"id": list(map(str, range(40))), "jpg": [b"x" * 50] * 40})
    path = tmp_path / ("t.parquet" if kind == "parquet" else "t.arrow")
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=7)
    else:
        new = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
        with new(path, table.schema) as file:
            file.write_table(table, max_chunksize=7)
    whole = path.read_bytes()
    for size in range(0, len(whole), max(len(whole) // 61, 1)):
        path.write_bytes(whole[:size])
        with pytest.raises(PoolError, match="not a readable"):
            list(open_pool(path))


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_a_table_without_rows_is_an_empty_pool(tmp_path: Path, suffix: str) -> None:
    table = pa.table({"id": pa.array([], pa.string()), "jpg": pa.array([], pa.binary())})
    path = tmp_path / f"t.{suffix}"
    (pq.write_table if suffix == "parquet" else feather.write_feather)(table, path)
    with pytest.raises(PoolError, match="holds no image"):
        open_pool(path)


def test_listing_ids_reads_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _parquet(tmp_path / "t.parquet", {"id": ["p", "q"], "jpg": BYTES})
    pool, asked = open_pool(path), []
    read = tablefiles._Parquet.batches

    def watched(self: Any, columns: Any, start: int = 0) -> Any:
        asked.append(list(columns))
        return read(self, columns, start)

    monkeypatch.setattr(tablefiles._Parquet, "batches", watched)
    assert list(pool.ids()) == ["p", "q"]
    assert pool.count() == 2
    assert asked == [["id"]]


def test_a_batch_is_bounded_in_bytes(tmp_path: Path) -> None:
    big = [bytes(1 << 20)] * 40
    path = _parquet(tmp_path / "t.parquet", {"jpg": big}, compression="none", use_dictionary=False)
    file = tablefiles.open_table(LocalPath(path))
    sizes = [batch.nbytes for _, batch in file.batches(["jpg"], 0)]
    assert sum(sizes) >= 40 << 20
    assert max(sizes) <= 17 << 20


def _text(values: list[bytes | None], kind: Any) -> Any:
    """A column of text whose bytes nobody checked."""
    raw = pa.array(values, pa.binary()).view(pa.string())
    return raw.dictionary_encode() if pa.types.is_dictionary(kind) else raw.cast(kind)


TEXTS = [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]


@pytest.mark.parametrize("kind", TEXTS, ids=str)
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_an_id_that_is_no_utf8_is_named_by_its_row(tmp_path: Path, kind: Any, suffix: str) -> None:
    ids = _text([b"p", b"q", b"caf\xe9", b"r"], kind)
    path = tmp_path / f"t.{suffix}"
    table = pa.table({"id": ids, "jpg": [b"1", b"2", b"3", b"4"]})
    if suffix == "parquet":
        pq.write_table(table, path, row_group_size=2)
    else:
        with pa.ipc.new_stream(path, table.schema) as file:
            file.write_table(table, max_chunksize=2)
    pool = TablePool([LocalPath(path)], "t", {})
    for listed in (pool, pool.ids()):
        with pytest.raises(PoolError, match=r"t\.\w+: the id in row 2 \(from 0\) is not UTF-8"):
            list(listed)


@pytest.mark.parametrize("kind", TEXTS, ids=str)
def test_a_path_that_is_no_utf8_is_one_bad_image(tmp_path: Path, kind: Any) -> None:
    (tmp_path / "b.jpg").write_bytes(b"b")
    paths = _text([b"\xe9.jpg", b"b.jpg", None], kind)
    pool = open_pool(_parquet(tmp_path / "t.parquet", {"id": [1, 2, 3], "path": paths}))
    for items in (list(pool), pool.find(["1", "2", "3"])):
        bad, good, null = items
        assert good.read() == b"b"
        with pytest.raises(ImageError, match=r"its path b'\\xe9\.jpg' is not UTF-8"):
            bad.read()
        with pytest.raises(ImageError, match="the image is null"):
            null.read()


def test_a_struct_with_a_path_that_is_no_utf8(tmp_path: Path) -> None:
    paths = _text([b"\xe9.jpg", b"\xe9.jpg"], pa.string())
    images = pa.StructArray.from_arrays([pa.array([b"here", None]), paths], ["bytes", "path"])
    pool = open_pool(_parquet(tmp_path / "t.parquet", {"image": images}))
    for items in (list(pool), pool.find(["0", "1"])):
        assert items[0].read() == b"here"
        with pytest.raises(ImageError, match="is not UTF-8"):
            items[1].read()


@pytest.mark.parametrize("kind", TEXTS, ids=str)
def test_a_null_path_that_would_be_the_id_is_one_bad_image(tmp_path: Path, kind: Any) -> None:
    for name in ("a.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    _parquet(tmp_path / "0.parquet", {"path": _text([b"a.jpg", None], kind)})
    _parquet(tmp_path / "1.parquet", {"path": _text([None, b"c.jpg"], kind)}, row_group_size=1)
    pool = open_pool(str(tmp_path / "*.parquet"))
    ids = ["a.jpg", "row 1", "row 2", "c.jpg"]
    assert [item.id for item in pool] == list(pool.ids()) == ids
    assert [chunk.ids for chunk in pool.chunks([range(2, 4)])] == [ids[2:]]
    assert not pool.unique  # a file may be called so: whoever scores looks
    for items in (list(pool), pool.find(ids)):
        assert (items[0].read(), items[3].read()) == (b"a.jpg", b"c.jpg")
        for null in items[1:3]:
            with pytest.raises(ImageError, match="the image is null"):
                null.read()
