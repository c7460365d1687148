"""Many images at once."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lloss.errors import ImageError, LabelError, LlossError
from lloss.images.decode import ImageSpec, decode, decode_into
from lloss.pools import Item, open_pool
from lloss.pools import decode_ahead as decoding
from lloss.pools.decode_ahead import decode_with, decoded

SPEC = ImageSpec(8, 8)


def row(number: int) -> Item:
    return Item(str(number), lambda: np.full((8, 8, 3), number % 256, np.uint8))


def test_order_is_kept_whatever_the_threads() -> None:
    found = list(decoded((row(n) for n in range(300)), SPEC, threads=5))
    assert [id for id, _ in found] == [str(n) for n in range(300)]
    assert all(np.all(pixels == int(id) % 256) for id, pixels in found)  # type: ignore[comparison-overlap]


def test_a_broken_image_is_a_reason_and_not_an_end() -> None:
    def broken() -> bytes:
        raise ImageError("cannot be read: made up")

    found = dict(decoded([row(0), Item("bad", broken), row(2)], SPEC))
    assert str(found["bad"]) == "cannot be read: made up"
    assert isinstance(found["2"], np.ndarray)


def test_an_endless_pool_is_read_no_further_than_asked() -> None:
    read = 0
    lock = threading.Lock()

    def endless() -> Iterator[Item]:
        nonlocal read
        while True:
            with lock:
                read += 1
            yield row(read)

    stream = decoded(endless(), SPEC, threads=2)
    for _ in range(40):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert read <= 40 + 2 * 2 * decoding._CHUNK + decoding._CHUNK


def test_of_large_images_fewer_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_CHUNK_BYTES", 2 * 8 * 8 * 3)
    read: list[int] = []

    def counted(number: int) -> Item:
        return Item(str(number), lambda: (read.append(number), np.zeros((8, 8), np.uint8))[1])

    stream = decoded((counted(n) for n in range(1000)), SPEC, threads=2)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert len(read) <= 2 * 2 * 2


def _all(items: list[Item], spec: ImageSpec, scratch: Path | None = None) -> NDArray[np.uint8]:
    """All images plainly decoded; the first that cannot be is raised, with its id."""

    def plainly(row: int, out: NDArray[np.uint8]) -> int:
        decode_into(items[row].read(), spec, out)
        return row

    def refuse(row: int, reason: Exception) -> None:
        raise LabelError(f"{items[row].id}: {reason}")

    images, rows = decode_with(plainly, refuse, items, spec, scratch)
    assert rows == list(range(len(items)))
    return images


def test_all_rows_are_those_of_one_at_a_time(photos: Path) -> None:
    items = list(open_pool(photos))
    spec = ImageSpec(5, 7)
    assert np.array_equal(
        _all(items, spec), np.stack([decode(item.read(), spec) for item in items])
    )


def test_the_first_of_several_broken_images_is_named() -> None:
    items = [row(n) for n in range(100)]
    for number in (90, 40):
        items[number] = Item(f"bad {number}", lambda: b"")
    with pytest.raises(LabelError, match="bad 40: an empty file"):
        _all(items, SPEC)


def test_past_the_memory_limit_the_array_lies_in_a_file(
    photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    items = list(open_pool(photos))
    held = _all(items, SPEC)
    monkeypatch.setattr(decoding, "_IN_MEMORY", 100)
    mapped = _all(items, SPEC, scratch=tmp_path)
    assert isinstance(mapped, np.memmap) and not isinstance(held, np.memmap)
    assert np.array_equal(held, mapped)
    assert not list(tmp_path.iterdir())  # the file has no name, so none is left behind


def test_there_are_as_many_threads_as_cores_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(decoding, "usable_cores", lambda: 2, raising=False)
    asked, make = [], decoding.ThreadPoolExecutor

    def watched(threads: int, name: str) -> ThreadPoolExecutor:
        asked.append(threads)
        return make(threads, name)

    monkeypatch.setattr(decoding, "ThreadPoolExecutor", watched)
    assert len(list(decoded((row(n) for n in range(70)), SPEC))) == 70
    assert len(list(decoded((row(n) for n in range(70)), SPEC, threads=5))) == 70
    assert asked == [2, 5]


@pytest.mark.parametrize("scratch", [True, False])
def test_a_full_disk_of_the_scratch_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scratch: bool
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(decoding, "_IN_MEMORY", 1)
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for name in ("run", "temporary"):
        (tmp_path / name).mkdir()
    folder = tmp_path / ("run" if scratch else "temporary")
    with pytest.raises(LlossError, match="the disk is full") as caught:
        decode_with(
            lambda row, out: None,
            lambda row, error: None,
            [row(0)],
            SPEC,
            tmp_path / "run" if scratch else None,
        )
    assert str(caught.value).startswith(f"{folder}: the disk is full")
    assert ("set TMPDIR" in str(caught.value)) != scratch
    assert not list(folder.iterdir())
    with pytest.raises(LlossError, match="none"):
        decode_with(lambda row, out: None, lambda row, error: None, [row(0)], SPEC, folder / "none")
