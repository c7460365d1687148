"""Random draws that an image's id and a seed decide, and nothing else.

The draw of an image is the XXH64 of its id's UTF-8 bytes, seeded. So a draw streams, does not
depend on the order or the number of the other images, and can be repeated in any language.
XXH64 is computed here over whole Arrow buffers, since a call per id costs more than reading it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Places = NDArray[np.int64]

# The primes, rotations and shifts of XXH64, https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)
_STRIPE = 32

_BLOCK = 16_384
"""Ids hashed at once: the dozen arrays of that length stay in a core's cache."""


def draw_hash(id: str, seed: int) -> int:
    """A uniform draw for an image from its id alone: 0 to 2**64 - 1.

    Args:
        id: of the image; bytes that were no UTF-8 count as what they were (``surrogateescape``).
        seed: any integer, taken modulo 2**64.
    """
    return int(draw_hashes(binary([id]), seed)[0])


def draw_ids(ids: Iterable[str], k: int, seed: int) -> list[str]:
    """K ids at random, by :func:`draw_hash`: what ``random`` selects."""
    return [id for _, id in heapq.nsmallest(k, _drawn(iter(ids), seed))]


def _drawn(ids: Iterator[str], seed: int) -> Iterator[tuple[int, str]]:
    while some := list(islice(ids, _BLOCK)):
        yield from zip(draw_hashes(binary(some), seed).tolist(), some)


def binary(ids: Iterable[str]) -> pa.Array:
    """Ids as the bytes that are hashed, large binary [N]."""
    return pa.array([id.encode("utf-8", "surrogateescape") for id in ids], pa.large_binary())


def draw_hashes(ids: pa.Array, seed: int) -> Words:
    """:func:`draw_hash` of every id.

    Args:
        ids: string or binary, their large kinds too, without nulls, [N].
        seed: any integer, taken modulo 2**64.

    Returns:
        uint64 [N].
    """
    wide = pa.types.is_large_string(ids.type) or pa.types.is_large_binary(ids.type)
    _, offsets, data = ids.buffers()
    drawn = np.empty(len(ids), np.uint64)
    if not len(ids):
        return drawn
    ends = np.frombuffer(offsets, np.int64 if wide else np.int32)[ids.offset :]
    text = np.frombuffer(data if data is not None else b"", np.uint8)
    key = np.uint64(seed % 2**64)
    for at in range(0, len(ids), _BLOCK):
        cuts = ends[at : min(at + _BLOCK, len(ids)) + 1].astype(np.int64)
        drawn[at : at + _BLOCK] = _xxh64(text[cuts[0] : cuts[-1]], cuts - cuts[0], key)
    return drawn


def _xxh64(text: NDArray[np.uint8], cuts: Places, key: np.uint64) -> Words:
    """XXH64 of ``text[cuts[i]:cuts[i + 1]]`` for every i."""
    words = _Words(text)
    start, length = cuts[:-1], np.diff(cuts)
    hashes = np.full(len(start), _add(key, _P5))
    long = np.flatnonzero(length >= _STRIPE)
    if len(long):
        hashes[long] = _stripes(words, start[long], length[long] // _STRIPE, key)
    hashes += length.astype(np.uint64)
    _tails(words, hashes, start + length // _STRIPE * _STRIPE, length % _STRIPE)
    hashes ^= hashes >> np.uint64(33)
    hashes *= _P2
    hashes ^= hashes >> np.uint64(29)
    hashes *= _P3
    hashes ^= hashes >> np.uint64(32)
    return hashes


class _Words:
    """Little-endian words at any places of a text, which need not be aligned."""

    def __init__(self, text: NDArray[np.uint8]) -> None:
        # Zeros behind the text, so that a word may begin at any place in it.
        padded = np.zeros(len(text) // 8 * 8 + 24, np.uint8)
        padded[: len(text)] = text
        self._words = padded.view("<u8").astype(np.uint64, copy=False)

    def at(self, places: Places) -> Words:
        """The words that begin at these bytes."""
        whole = places >> 3
        low = (places.astype(np.uint64) & np.uint64(7)) << np.uint64(3)
        word: Words = self._words[whole] >> low
        # Shifted in two steps: a shift by 64 is not defined.
        word |= (self._words[whole + 1] << np.uint64(1)) << (np.uint64(63) - low)
        return word


def _stripes(words: _Words, start: Places, count: Places, key: np.uint64) -> Words:
    """The four lanes of the ids that have at least one whole stripe, merged."""
    first = (_add(key, _P1, _P2), _add(key, _P2), key, _add(key, np.uint64(2**64 - int(_P1))))
    lanes = [np.full(len(start), value) for value in first]
    for stripe in range(int(count.max())):
        rows = _where(count > stripe)
        for number, lane in enumerate(lanes):
            place = start[rows] + (stripe * _STRIPE + number * 8)
            lane[rows] = _round(lane[rows], words.at(place))
    one, two, three, four = (_rotated(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18)))
    hashes = one + two + three + four
    for lane in lanes:
        hashes = (hashes ^ _round(np.uint64(0), lane)) * _P1 + _P4
    return hashes


def _tails(words: _Words, hashes: Words, place: Places, length: Places) -> None:
    """Mix in the last ``length`` < 32 bytes: whole words, then half a word, then bytes."""
    for number in range(_STRIPE // 8 - 1):
        rows = _where(length >= 8 * (number + 1))
        word = _round(np.uint64(0), words.at(place[rows] + 8 * number))
        hashes[rows] = _rotated(hashes[rows] ^ word, 27) * _P1 + _P4
    rest = words.at(place + length // 8 * 8)
    left = length % 8
    rows = _where(left >= 4)
    half = (rest[rows] & np.uint64(0xFFFFFFFF)) * _P1
    hashes[rows] = _rotated(hashes[rows] ^ half, 23) * _P2 + _P3
    rest[rows] >>= np.uint64(32)
    for number in range(3):
        rows = _where(left % 4 > number)
        byte = (rest[rows] >> np.uint64(8 * number)) & np.uint64(0xFF)
        hashes[rows] = _rotated(hashes[rows] ^ (byte * _P5), 11) * _P1


def _where(these: NDArray[np.bool_]) -> Places | slice:
    """Rows to index with; ids of one length, the usual case, are indexed without a copy."""
    return slice(None) if these.all() else np.flatnonzero(these)


def _round(lane: Words | np.uint64, word: Words) -> Words:
    return _rotated(lane + word * _P2, 31) * _P1


def _rotated(words: Words, by: int) -> Words:
    return (words << np.uint64(by)) | (words >> np.uint64(64 - by))


def _add(*terms: np.uint64) -> np.uint64:
    # Over Python's integers: NumPy warns when a scalar wraps.
    return np.uint64(sum(map(int, terms)) % 2**64)
