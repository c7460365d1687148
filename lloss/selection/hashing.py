"""Random draws that an image's id and a seed decide, and nothing else.

The draw of an image is the XXH64 of its id's UTF-8 bytes, seeded. So a draw streams, does not
depend on the order or the number of the other images, and can be repeated in any language.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from xxhash import xxh64_intdigest

_LOG_2 = 0.6931471805599453


def draw_hash(id: str, seed: int) -> int:
    """Draw a number for an image from its id: 0 to 2**64 - 1, uniform.

    Args:
        id: of the image; bytes that are not UTF-8 stand for themselves (``surrogateescape``).
        seed: any integer, taken modulo 2**64.
    """
    return xxh64_intdigest(id.encode("utf-8", "surrogateescape"), seed % 2**64)


def draw_ids(ids: Iterable[str], k: int, seed: int) -> list[str]:
    """Draw K ids by :func:`draw_hash`, as the strategy ``random`` does."""
    return [id for _, id in heapq.nsmallest(k, ((draw_hash(id, seed), id) for id in ids))]


def draw_hashes(ids: pa.Array, seed: int) -> NDArray[np.uint64]:
    """Compute :func:`draw_hash` of strings without nulls, [N]: uint64 [N]."""
    key, texts = seed % 2**64, ids.cast(pa.large_binary()).to_pylist()
    return np.fromiter((xxh64_intdigest(text, key) for text in texts), np.uint64, len(texts))


def draw_shares(ids: pa.Array, seed: int) -> NDArray[np.float64]:
    """Draw a number above 0 and up to 1 for each id, [N], by :func:`draw_hash`: float64 [N]."""
    whole = (draw_hashes(ids, seed) >> np.uint64(11)).astype(np.float64)  # 53 bits: exact
    return (whole + 1) * 2.0**-53


def draw_exponentials(ids: pa.Array, seed: int) -> NDArray[np.float64]:
    """Draw an exponential variable with mean 1 for each id, [N]: float64 [N].

    It is ``-log`` of :func:`draw_shares`, from operations that are the same on any machine, as a
    logarithm is not.
    """
    # log(m 2**e) = log 2 (e + ...) with m near 1, and log m = 2 artanh((m - 1) / (m + 1)).
    mantissa, exponent = np.frexp(draw_shares(ids, seed))
    half = mantissa < np.sqrt(0.5)
    mantissa, exponent = np.where(half, 2 * mantissa, mantissa), exponent - half
    ratio = (mantissa - 1) / (mantissa + 1)
    square, series = ratio * ratio, np.zeros(len(ratio))
    for power in range(21, 0, -2):
        series = series * square + 1 / power
    logarithm: NDArray[np.float64] = 2 * ratio * series + exponent * _LOG_2
    return np.maximum(-logarithm, 0)
