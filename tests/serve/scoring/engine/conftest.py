"""Quick garbage collections for tests of what it frees."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def frozen_objects() -> Iterator[None]:
    """Leave out of each collection what is alive now, such as torch: it takes over a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
