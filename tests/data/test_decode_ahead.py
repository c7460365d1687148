"""Decode many images in threads."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lloss.data import decode_ahead
from lloss.data.decode_ahead import decode_with, decoded
from lloss.errors import ImageError, LabelError, LlossError
from lloss.images.decode import ImageSpec, decode, decode_into
from lloss.pools import Item, open_pool

SPEC = ImageSpec(8, 8)


def row(number: int) -> Item:
    return Item(str(number), lambda: np.full((8, 8, 3), number % 256, np.uint8))


def test_order_is_kept_and_a_broken_image_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> bytes:
        raise ImageError("cannot be read: made up")

    monkeypatch.setattr(decode_ahead, "usable_cores", lambda: 2)
    for threads in (0, 5):
        items = [*(row(n) for n in range(300)), Item("bad", broken)]
        *found, (last, reason) = decoded(items, SPEC, threads)
        assert [id for id, _ in found] == [str(n) for n in range(300)]
        assert all(np.all(pixels == int(id) % 256) for id, pixels in found)  # type: ignore[comparison-overlap]
        assert (last, str(reason)) == ("bad", "cannot be read: made up")


@pytest.mark.parametrize(("chunk_bytes", "ahead"), [(1 << 24, 2 * 2 * 32 + 32), (400, 2 * 2 * 2)])
def test_an_endless_pool_is_read_no_further_than_asked(
    monkeypatch: pytest.MonkeyPatch, chunk_bytes: int, ahead: int
) -> None:
    monkeypatch.setattr(decode_ahead, "_CHUNK_BYTES", chunk_bytes)
    read, lock = 0, threading.Lock()

    def endless() -> Iterator[Item]:
        nonlocal read
        while True:
            with lock:
                read += 1
            yield row(read)

    stream = decoded(endless(), SPEC, threads=2)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert read <= 1 + ahead


def _all(items: list[Item], spec: ImageSpec, scratch: Path | None = None) -> NDArray[np.uint8]:
    """All images; the first that cannot be decoded is raised, with its id."""

    def plainly(row: int, out: NDArray[np.uint8]) -> int:
        decode_into(items[row].read(), spec, out)
        return row

    def refuse(row: int, reason: Exception) -> None:
        raise LabelError(f"{items[row].id}: {reason}")

    images, rows = decode_with(plainly, refuse, items, spec, scratch)
    assert rows == list(range(len(items)))
    return images


def test_all_rows_are_those_of_one_at_a_time_in_memory_or_in_a_file(
    photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    items = list(open_pool(photos))
    expected = np.stack([decode(item.read(), SPEC) for item in items])
    in_memory = _all(items, SPEC)
    monkeypatch.setattr(decode_ahead, "_IN_MEMORY", 100)
    mapped = _all(items, SPEC, scratch=tmp_path)
    assert isinstance(mapped, np.memmap) and not isinstance(in_memory, np.memmap)
    assert np.array_equal(in_memory, expected) and np.array_equal(mapped, expected)
    assert not list(tmp_path.iterdir())  # the file has no name, so none is left behind


def test_the_first_of_several_broken_images_is_named() -> None:
    items = [row(n) for n in range(100)]
    for number in (90, 40):
        items[number] = Item(f"bad {number}", lambda: b"")
    with pytest.raises(LabelError, match="bad 40: an empty file"):
        _all(items, SPEC)


@pytest.mark.parametrize("scratch", [True, False])
def test_a_full_disk_of_the_scratch_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scratch: bool
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(decode_ahead, "_IN_MEMORY", 1)
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(LlossError, match=f"^{tmp_path}: the disk is full") as caught:
        _all([row(0)], SPEC, tmp_path if scratch else None)
    assert ("set TMPDIR" in str(caught.value)) != scratch
    assert not list(tmp_path.iterdir())
    with pytest.raises(LlossError, match="none"):
        _all([row(0)], SPEC, tmp_path / "none")
