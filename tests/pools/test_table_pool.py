"""Tables: which columns are ids and images, and what broken files and rows are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
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
          ("id", "image_id", "key", "__key__", "ID", " id ")),
        ({"x": ["p", "q"]}, ["0", "1"]),
        ({"file_name": ["x.jpg", "y.jpg"]}, ["x.jpg", "y.jpg"]),
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


@pytest.mark.parametrize(
    ("columns", "options", "reason"),
    [
        ({"left": BYTES, "right": BYTES, "id": [1, 2]}, "",
         r"left and in right .*id \(int64\).*[?]image=COLUMN"),
        ({"id": [1], "x": ["y"]}, "", "no column of images"),
        ({"left": BYTES, "id": [1, 2]}, "?image=up", "does not have one column 'up'"),
        ({"left": BYTES, "id": [1, 2]}, "?image=id", "'id' holds no images"),
        ({"ID": ["x", "y"], "image_id": ["p", "q"], "jpg": BYTES}, "",
         r"ids in ID and in image_id; name one with \?id=COLUMN"),
        ({"id": [0.5, 1.5], "jpg": BYTES}, "", "'id' of double cannot be an id; .*[?]id=COLUMN"),
    ],
)  # fmt: skip
def test_ambiguous_columns_are_refused(
    tmp_path: Path, columns: Any, options: str, reason: str
) -> None:
    path = write_table(tmp_path / "t.parquet", columns)
    with pytest.raises(PoolError, match=reason):
        open_pool(f"{path}{options}")


def test_options_choose_columns(tmp_path: Path) -> None:
    columns = {"left": BYTES, "right": pa.array(BYTES[::-1], pa.large_binary()), "n": [1, 2]}
    path = write_table(tmp_path / "t.parquet", columns)
    assert [item.read() for item in open_pool(f"{path}?image=right")] == BYTES[::-1]
    assert ids_of(f"{path}?image=left&id=n") == ["1", "2"]


def _text(values: list[bytes | None], kind: Any) -> Any:
    """A column of unchecked text."""
    raw = pa.array(values, pa.binary()).view(pa.string())
    return raw.dictionary_encode() if pa.types.is_dictionary(kind) else raw.cast(kind)


@pytest.mark.parametrize("kind", TEXTS, ids=str)
def test_an_image_is_bytes_a_path_or_a_struct_of_both(tmp_path: Path, kind: Any) -> None:
    """Relative to the file's folder; what cannot be read is one bad image."""
    write(tmp_path / "in/b.jpg", b"b")
    values = [b"in/b.jpg", b"in/gone.jpg", b"in/nul\0.jpg", b"\xe9.jpg", None]
    paths, plain = _text(values, kind), _text(values, pa.string())
    inner = pa.array([b"a", *[None] * 4])
    tables = {
        "paths": (paths, [b"b", "cannot be read", "cannot be read", "not UTF-8", "is null"]),
        "both": (pa.StructArray.from_arrays([inner, plain], ["bytes", "path"]),
                 [b"a", "cannot be read", "cannot be read", "not UTF-8", "is null"]),
        "bytes": (inner, [b"a", *["the image is null"] * 4]),
        "structs": (pa.array([{"bytes": b"a"}, *[None] * 4]), [b"a", *["is null"] * 4]),
    }  # fmt: skip
    for name, (images, outcomes) in tables.items():
        columns = {"id": range(5), "path" if name == "paths" else "image": images}
        pool = open_pool(write_table(tmp_path / f"{name}.parquet", columns))
        for items in (list(pool), pool.find(list(pool.ids()))):
            for item, outcome in zip(items, outcomes, strict=True):
                if isinstance(outcome, bytes):
                    assert item.read() == outcome
                    continue
                with pytest.raises(ImageError, match=outcome):
                    item.read()


@pytest.mark.parametrize("kind", TEXTS, ids=str)
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize(
    ("id", "what"),
    [
        (b"caf\xe9", r"an id in rows \d to 3 is not UTF-8"),
        (None, r"the id in row 2 \(from 0\) of 'id' is null or empty; choose another column"),
        (b"", r"the id in row 2 \(from 0\) of 'id' is null or empty"),
    ],
)
def test_a_broken_id_is_named_by_its_row(
    tmp_path: Path, kind: Any, suffix: str, id: bytes | None, what: str
) -> None:
    ids = _text([b"p", b"q", id, b"r"], kind)
    path = tmp_path / f"t.{suffix}"
    write_table(path, {"id": ids, "jpg": [b"1", b"2", b"3", b"4"]}, block=2)
    pool = TablePool([LocalPath(path)], "t", {})
    for listed in (pool, pool.ids()):
        with pytest.raises(PoolError, match=rf"t\.\w+: {what}"):
            list(listed)


def test_a_folder_of_tables_is_one_pool_numbered_through(tmp_path: Path) -> None:
    write_table(tmp_path / "b.parquet", {"jpg": [b"3"]})
    write_table(tmp_path / "a.parquet", {"jpg": [b"0", b"1", b"2"]})
    items = list(open_pool(tmp_path))
    assert [(item.id, item.read()) for item in items] == [(str(n), b"%d" % n) for n in range(4)]
    write_table(tmp_path / "c.parquet", {"png": [b"4"]})
    with pytest.raises(PoolError, match=r"c\.parquet: has no column 'jpg'"):
        list(open_pool(tmp_path))


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_damage_is_one_error_wherever_it_is(tmp_path: Path, suffix: str) -> None:
    columns = {"id": list(map(str, range(40))), "jpg": [b"x" * 50] * 40}
    path = write_table(tmp_path / f"t.{suffix}", columns, block=7)
    whole = path.read_bytes()
    cut = [whole[:size] for size in range(0, len(whole), max(len(whole) // 61, 1))]
    for content in [*cut, b"PAR1", b"ARROW1\0\0", b"garbage" * 200]:
        path.write_bytes(content)
        with pytest.raises(PoolError, match=rf"t\.{suffix}: not a readable {suffix}") as caught:
            list(open_pool(path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
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
