"""Data sets that Hugging Face ``datasets`` saved to disk."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lloss.errors import PoolError
from lloss.pools import open_pool

from .pool_files import write, write_table


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


def test_a_saved_data_set_is_read_without_the_package(hf: Any, tmp_path: Path) -> None:
    data = _dataset(hf).shuffle(seed=1).select(range(6))  # keeps its order
    data.save_to_disk(tmp_path / "d", num_shards=3)
    pool = open_pool(tmp_path / "d")
    assert [item.id for item in pool] == list(pool.ids()) == list(map(str, range(6)))
    named = open_pool(f"{tmp_path / 'd'}?id=name&image=image")
    assert list(named.ids()) == data["name"][:]
    assert [item.read() for item in named] == [_png(int(id[1:])) for id in named.ids()]
    code = (
        "import sys; sys.modules['datasets'] = sys.modules['torch'] = None\n"
        "from lloss.pools import open_pool\n"
        f"assert open_pool({str(tmp_path / 'd')!r}).count() == 6"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_of_a_dict_of_data_sets_one_is_given(hf: Any, tmp_path: Path) -> None:
    data = hf.DatasetDict({"train": _dataset(hf, 4), "test": _dataset(hf, 2, 4)})
    data.save_to_disk(tmp_path / "d")
    with pytest.raises(PoolError, match="several data sets; give one of .*/d/train, .*/d/test"):
        open_pool(tmp_path / "d")
    assert list(open_pool(f"{tmp_path / 'd/test'}?id=name").ids()) == ["n4", "n5"]


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (
            '{"_data_files": [{"filename": "data.arrow"}], "_indices_data_files": [1]}',
            "is of an ol",
        ),
        ('{"_data_files": []}', "has no rows"),
        ('{"_data_files": [{"filename": "gone.arrow"}]}', r"gone\.arrow: cannot be read: No such"),
        ("{", r"state\.json: not readable as JSON"),
    ],
)
def test_what_cannot_be_read_is_one_error(tmp_path: Path, state: str, reason: str) -> None:
    write_table(tmp_path / "data.arrow", {"jpg": [b"x"]})
    write(tmp_path / "state.json", state.encode())
    with pytest.raises(PoolError, match=reason):
        open_pool(tmp_path)


def test_an_unrelated_state_file_does_not_hide_the_images(tmp_path: Path) -> None:
    write(tmp_path / "state.json", b'{"step": 3}')
    write(tmp_path / "a.jpg")
    assert [item.id for item in open_pool(tmp_path)] == ["a.jpg"]
