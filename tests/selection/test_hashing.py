from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from lloss.selection.hashing import draw_hash, draw_hashes, draw_ids


def test_draws_equal_the_published_values_of_xxh64() -> None:
    published = {"": 0xEF46DB3751D8E999, "a": 0xD24EC4F1A98C6E5B, "abc": 0x44BC2CF5AD770999}
    assert {text: draw_hash(text, 0) for text in published} == published


def test_draws_are_the_same_in_every_release() -> None:
    """Selections are promised to repeat: a change of these numbers breaks that promise."""
    assert draw_hash("a/b.jpg", 0) == 17825120046846419552
    assert draw_hash("ü", 12345678901234567890) == 15901412720225309496
    assert draw_hash("n01440764/img_00012345_of_a_longer_name.jpg", 1) == 11895622376031715248
    assert draw_hash("a", -1) == draw_hash("a", 2**64 - 1) != draw_hash("a", 2**64)
    ids = [f"{n}.png" for n in range(100)]
    assert draw_ids(ids, 4, 7) == ["44.png", "81.png", "73.png", "46.png"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.large_binary()])
def test_hashes_of_a_column_are_those_of_its_ids(kind: pa.DataType) -> None:
    ids = ["", "é", "a" * 40, "b.jpg", "\U0001f431" * 9]
    hashes = draw_hashes(pa.array(["x", *ids]).cast(kind).slice(1), 5)
    assert hashes.dtype == np.uint64
    assert hashes.tolist() == [draw_hash(id, 5) for id in ids]


def test_drawn_ids_have_the_smallest_hashes_in_any_order() -> None:
    ids = [f"{row}.jpg" for row in range(4000)]
    expected = sorted(ids, key=lambda id: draw_hash(id, 3))[:50]
    assert draw_ids(iter(ids), 50, 3) == draw_ids(reversed(ids), 50, 3) == expected


def test_ids_that_are_not_unicode_are_drawn_by_their_bytes() -> None:
    odd = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    assert draw_hash(odd, 0) == draw_hashes(pa.array([b"caf\xe9.jpg"]), 0)[0]
    assert sorted(draw_ids([odd, "b"], 2, 0)) == sorted([odd, "b"])
