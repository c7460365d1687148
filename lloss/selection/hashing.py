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
