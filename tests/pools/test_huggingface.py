from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lloss.errors import ImageError, PoolError
from lloss.pools import open_pool


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
    patch.setenv("HF_HUB_OFFLINE", "1")
    yield pytest.importorskip("datasets")
    patch.undo()


def _png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _dataset(hf: Any, count: int = 10, start: int = 0) -> Any:
    rows = range(start, start + count)
    images = [{"bytes": _png(n), "path": None} for n in rows]
    columns = {"image": images, "label": [n % 2 for n in rows], "name": [f"n{n}" for n in rows]}
    features = hf.Features(
        {"image": hf.Image(), "label": hf.Value("int64"), "name": hf.Value("string")}
    )
    return hf.Dataset.from_dict(columns, features=features)


def test_a_saved_data_set_is_read_as_it_was(hf: Any, tmp_path: Path) -> None:
    _dataset(hf).save_to_disk(tmp_path / "d", num_shards=3)
    pool = open_pool(tmp_path / "d")
    assert [item.id for item in pool] == list(pool.ids()) == list(map(str, range(10)))
    assert [item.read() for item in pool] == [_png(n) for n in range(10)]
    assert pool.count() == 10
    named = open_pool(f"{tmp_path / 'd'}?id=name&image=image")
    assert list(named.ids()) == [f"n{n}" for n in range(10)]
    assert named.find(["n7"])[0].read() == _png(7)


def test_a_shuffled_and_filtered_data_set_keeps_its_order(hf: Any, tmp_path: Path) -> None:
    data = _dataset(hf).shuffle(seed=1).select(range(6))
    data.save_to_disk(tmp_path / "d")
    pool = open_pool(f"{tmp_path / 'd'}?id=name")
    assert list(pool.ids()) == data["name"][:]
    assert [item.read() for item in pool] == [_png(int(id[1:])) for id in pool.ids()]


def test_indices_that_older_versions_saved_are_honoured(hf: Any, tmp_path: Path) -> None:
    _dataset(hf).save_to_disk(tmp_path / "d", num_shards=2)
    rows = pa.table({"indices": pa.array([9, 0, 4], pa.uint64())})
    with pa.ipc.new_stream(tmp_path / "d" / "indices.arrow", rows.schema) as file:
        file.write_table(rows)
    state = tmp_path / "d" / "state.json"
    content = json.loads(state.read_text())
    state.write_text(
        json.dumps({**content, "_indices_data_files": [{"filename": "indices.arrow"}]})
    )
    pool = open_pool(f"{tmp_path / 'd'}?id=name")
    assert list(pool.ids()) == [item.id for item in pool] == ["n9", "n0", "n4"]
    assert [item.read() for item in pool] == [_png(9), _png(0), _png(4)]
    assert [c.ids for c in pool.chunks([range(1, 3)])] == [["n0", "n4"]]
    assert list(open_pool(tmp_path / "d").ids()) == ["0", "1", "2"]


def test_a_dict_of_data_sets_needs_a_split(hf: Any, tmp_path: Path) -> None:
    data = hf.DatasetDict({"train": _dataset(hf, 4), "test": _dataset(hf, 2, 4)})
    data.save_to_disk(tmp_path / "d")
    with pytest.raises(PoolError, match=r"choose with \?split= one of train, test"):
        open_pool(tmp_path / "d")
    with pytest.raises(PoolError, match="has no split 'valid'"):
        open_pool(f"{tmp_path / 'd'}?split=valid")
    pool = open_pool(f"{tmp_path / 'd'}?split=test&id=name")
    assert list(pool.ids()) == ["n4", "n5"]
    with pytest.raises(PoolError, match="without splits"):
        open_pool(f"{tmp_path / 'd' / 'test'}?split=test")


def test_images_that_are_paths_alone_are_followed(hf: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_png(3))
    images = [str(tmp_path / "a.png"), str(tmp_path / "gone.png"), None]
    data = hf.Dataset.from_dict({"image": images}, features=hf.Features({"image": hf.Image()}))
    kept = tmp_path / "d"
    data.cast_column("image", hf.Image(decode=False)).with_format("arrow")
    _save_paths(data, kept)
    found, gone, null = open_pool(kept)
    assert found.read() == _png(3)
    with pytest.raises(ImageError, match="cannot be read"):
        gone.read()
    with pytest.raises(ImageError, match="null"):
        null.read()


def _save_paths(data: Any, folder: Path) -> None:
    """Saving embeds the bytes nowadays; older versions wrote the table as it is."""
    folder.mkdir()
    with pa.ipc.new_stream(folder / "data.arrow", data.data.table.schema) as file:
        file.write_table(data.data.table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))


def test_damage_is_one_error(hf: Any, tmp_path: Path) -> None:
    _dataset(hf).save_to_disk(tmp_path / "d")
    (data,) = (tmp_path / "d").glob("*.arrow")
    whole = data.read_bytes()
    data.write_bytes(whole[:-100])
    with pytest.raises(PoolError, match=r"\.arrow: not a readable arrow file"):
        list(open_pool(tmp_path / "d"))
    data.unlink()
    with pytest.raises(PoolError, match=r"\.arrow: cannot be read: No such file"):
        open_pool(tmp_path / "d")
    (tmp_path / "d" / "state.json").write_text("{")
    with pytest.raises(PoolError, match=r"state\.json: not readable as JSON"):
        open_pool(tmp_path / "d")


def test_an_unrelated_state_file_does_not_hide_the_images(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"step": 3}')
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert [item.id for item in open_pool(tmp_path)] == ["a.jpg"]


def test_reading_needs_no_datasets_package(hf: Any, tmp_path: Path) -> None:
    import subprocess
    import sys

    _dataset(hf).save_to_disk(tmp_path / "d")
    code = (
        "import sys; sys.modules['datasets'] = sys.modules['torch'] = None\n"
        "from lloss.pools import open_pool\n"
        f"assert open_pool({str(tmp_path / 'd')!r}).count() == 10"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _kept(folder: Path, table: Any, rows: list[int]) -> Path:
    """A saved data set, written by hand, of which some rows are kept."""
    folder.mkdir()
    for name, content in (
        ("data.arrow", table),
        ("indices.arrow", pa.table({"indices": pa.array(rows, pa.uint64())})),
    ):
        with pa.ipc.new_stream(folder / name, content.schema) as file:
            file.write_table(content)
    files = {"_data_files": "data.arrow", "_indices_data_files": "indices.arrow"}
    state = {key: [{"filename": name}] for key, name in files.items()}
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def test_kept_rows_without_text_or_path(tmp_path: Path) -> None:
    text = pa.array([b"p", b"caf\xe9", b"q"], pa.binary()).view(pa.string())
    table = pa.table({"id": text, "jpg": [b"1", b"2", b"3"]})
    with pytest.raises(PoolError, match=r"the id in row 1 \(from 0\) is not UTF-8"):
        list(open_pool(_kept(tmp_path / "d", table, [2, 1])))
    (tmp_path / "e.jpg").write_bytes(b"e")
    paths = pa.table({"path": ["gone.jpg", None, "../e.jpg"]})
    found, null = open_pool(_kept(tmp_path / "e", paths, [2, 1]))
    assert (found.id, found.read(), null.id) == ("../e.jpg", b"e", "row 1")
    with pytest.raises(ImageError, match="the image is null"):
        null.read()


def test_a_data_set_of_which_a_filter_kept_nothing_is_empty(tmp_path: Path) -> None:
    """Its file of indices has a schema and no batch."""
    tables = {
        "data.arrow": pa.table({"image": [_png(0), _png(1)]}),
        "indices.arrow": pa.table({"indices": pa.array([], pa.uint64())}),
    }
    for name, table in tables.items():
        with pa.ipc.new_stream(str(tmp_path / name), table.schema) as file:
            file.write_table(table)
    names = {"_data_files": "data.arrow", "_indices_data_files": "indices.arrow"}
    state = {key: [{"filename": name}] for key, name in names.items()}
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(PoolError, match="the pool holds no image"):
        open_pool(tmp_path)
