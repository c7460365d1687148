from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from scipy import stats

from lloss.selection.hashing import draw_hash, draw_hashes, draw_ids

P1, P2, P3, P4, P5 = (
    11400714785074694791,
    14029467366897019727,
    1609587929392839161,
    9650029242287828579,
    2870177450012600261,
)


def _xxh64(data: bytes, seed: int) -> int:
    """The specification, a byte string at a time in Python's integers."""
    whole = 2**64 - 1

    def rotated(x: int, by: int) -> int:
        return (x << by | x >> (64 - by)) & whole

    def mixed(lane: int, word: int) -> int:
        return rotated((lane + word * P2) & whole, 31) * P1 & whole

    size = len(data)
    if size >= 32:
        lanes = [(seed + P1 + P2) & whole, (seed + P2) & whole, seed, (seed - P1) & whole]
        while len(data) >= 32:
            words = struct.unpack("<4Q", data[:32])
            lanes = [mixed(lane, word) for lane, word in zip(lanes, words, strict=True)]
            data = data[32:]
        turns = zip(lanes, (1, 7, 12, 18), strict=True)
        x = sum(rotated(lane, by) for lane, by in turns) & whole
        for lane in lanes:
            x = ((x ^ mixed(0, lane)) * P1 + P4) & whole
    else:
        x = (seed + P5) & whole
    x = (x + size) & whole
    while len(data) >= 8:
        x = (rotated(x ^ mixed(0, struct.unpack("<Q", data[:8])[0]), 27) * P1 + P4) & whole
        data = data[8:]
    if len(data) >= 4:
        x = (rotated(x ^ struct.unpack("<I", data[:4])[0] * P1 & whole, 23) * P2 + P3) & whole
        data = data[4:]
    for byte in data:
        x = rotated(x ^ byte * P5 & whole, 11) * P1 & whole
    x = (x ^ x >> 33) * P2 & whole
    x = (x ^ x >> 29) * P3 & whole
    return x ^ x >> 32


@pytest.mark.parametrize("seed", [0, 1, -1, 2**64 - 1, 2**64 + 7, 12345678901234567890])
def test_draws_equal_xxh64_as_its_specification_has_it(seed: int) -> None:
    random = np.random.default_rng(0)
    texts = [random.bytes(size) for size in [*range(101), 1000, 0, 5]]
    mixed = [texts[row] for row in random.permutation(len(texts))]
    expected = [_xxh64(text, seed % 2**64) for text in mixed]
    assert draw_hashes(pa.array(mixed, pa.binary()), seed).tolist() == expected


def test_draws_equal_the_published_values() -> None:
    """XXH64 of these, as xxhsum prints them."""
    known = {"": 0xEF46DB3751D8E999, "a": 0xD24EC4F1A98C6E5B, "abc": 0x44BC2CF5AD770999}
    assert {text: draw_hash(text, 0) for text in known} == known


def test_a_draw_is_the_same_in_every_release() -> None:
    """Selections are promised to repeat; whoever changes these numbers breaks that promise."""
    assert draw_hash("a/b.jpg", 0) == 17825120046846419552
    assert draw_hash("ü", 12345678901234567890) == 15901412720225309496
    assert draw_hash("n01440764/img_00012345_of_a_longer_name.jpg", 1) == 11895622376031715248
    assert draw_ids([f"{n}.png" for n in range(100)], 4, 7) == [
        "44.png",
        "81.png",
        "73.png",
        "46.png",
    ]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_neither_type_nor_slice_nor_company_changes_a_draw(kind: pa.DataType) -> None:
    ids = ["", "é", "a" * 40, "b.jpg", "", "\U0001f431" * 9, "x" * 8] * 3000
    alone = {id: draw_hash(id, 5) for id in set(ids)}
    array = pa.array(ids, kind)
    for start, size in ((0, len(ids)), (1, 20_000), (7, 0), (len(ids) - 1, 1)):
        some = draw_hashes(array.slice(start, size), 5).tolist()
        assert some == [alone[id] for id in ids[start : start + size]]


def _draws(ids: Sequence[str], seed: int) -> NDArray[np.uint64]:
    return draw_hashes(pa.array(ids, pa.string()), seed)


NAMES = {
    "numbers": [str(row) for row in range(100_000)],
    "paths": [f"n{row // 1300:08d}/img_{row:08d}.jpg" for row in range(100_000)],
    "long paths": [f"train/of/a/pool/n{row // 1300:08d}/{row:08d}.JPEG" for row in range(100_000)],
}


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_draws_are_uniform(names: str, seed: int) -> None:
    draws = _draws(NAMES[names], seed)
    assert len(np.unique(draws)) == len(draws)
    for byte in range(8):
        counts = np.bincount((draws >> np.uint64(8 * byte)).astype(np.uint8), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-4
    assert stats.kstest(draws / 2.0**64, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("names", NAMES)
def test_draws_of_two_seeds_and_of_neighbours_are_independent(names: str) -> None:
    one, other = (_draws(NAMES[names], seed) >> np.uint64(60) for seed in (0, 1))
    for first, second in ((one, other), (one[:-1], one[1:])):
        cells = np.bincount((first * np.uint64(16) + second).astype(np.int64), minlength=256)
        assert stats.chi2_contingency(cells.reshape(16, 16)).pvalue > 1e-4


@pytest.mark.parametrize("size", [3, 9, 29, 45])
def test_every_bit_of_an_id_turns_every_bit_of_its_draw_half_the_time(size: int) -> None:
    random = np.random.default_rng(size)
    texts = random.integers(0, 256, (2000, size), np.uint8)
    before = _bits(texts)
    for bit in range(8 * size):
        changed = texts.copy()
        changed[:, bit // 8] ^= np.uint8(1 << bit % 8)
        turned = (before != _bits(changed)).mean(0)
        assert abs(turned - 0.5).max() < 0.06  # over five standard deviations


def _bits(texts: NDArray[np.uint8]) -> NDArray[np.uint8]:
    draws = draw_hashes(pa.array([text.tobytes() for text in texts], pa.binary()), 0)
    return np.unpackbits(draws.view(np.uint8).reshape(-1, 8), axis=1)


def test_drawn_ids_are_those_of_the_smallest_hashes() -> None:
    ids = [f"{row}.jpg" for row in range(40_000)]
    hashes = _draws(ids, 3)
    expected = [ids[row] for row in np.argsort(hashes)[:50]]
    assert draw_ids(iter(ids), 50, 3) == expected
    assert draw_ids(reversed(ids), 50, 3) == expected
    assert draw_ids(ids[:5], 9, 3) == [id for id in draw_ids(ids, 40_000, 3) if id in ids[:5]]


def test_ids_that_are_no_unicode_are_drawn_by_their_bytes() -> None:
    odd = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    assert draw_hash(odd, 0) == _xxh64(b"caf\xe9.jpg", 0)
    assert sorted(draw_ids([odd, "b"], 2, 0)) == sorted([odd, "b"])
