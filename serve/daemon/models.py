"""The artifact that scores now, and how it is exchanged for another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lloss.artifact import Manifest
from lloss.images import Raw

from ..scorer import Scorer
from .batcher import Answer
from .metrics import DaemonMetrics
from .settings import ServeSettings


@dataclass(frozen=True)
class Reloaded:
    """What a reload did.

    Attributes:
        before: sha256 of the model that served.
        now: sha256 of the one that serves.
    """

    before: str
    now: str


@dataclass(frozen=True)
class Scored:
    """An answer, and the model it is of."""

    answer: Answer
    sha256: str
    manifest: Manifest


class Models:
    """Serves one model; keeps a copy of each under ``data_dir/models/<sha256>.onnx``.

    The copies are what is really loaded, so that a file that is written over harms nothing, and
    what a job goes on with that was begun by an earlier model.
    """

    def __init__(self, settings: ServeSettings, metrics: DaemonMetrics) -> None:
        raise NotImplementedError

    def load(self) -> None:
        """Load ``settings.model``, the first time. Blocks."""
        raise NotImplementedError

    def reload(self) -> Reloaded:
        """Load ``settings.model`` again beside the one that serves, check it, swap. Blocks.

        No request fails: those under way end with the model they began with.

        Raises:
            LlossError: the new one is no artifact or fails its check; the old one goes on.
        """
        raise NotImplementedError

    def not_ready(self) -> str:
        """Why nothing can be scored; "" when it can."""
        raise NotImplementedError

    @property
    def sha256(self) -> str:
        """Of the model that serves; "" before the first is loaded."""
        raise NotImplementedError

    @property
    def manifest(self) -> Manifest:
        """Of the model that serves.

        Raises:
            RequestError: 503, none is loaded yet.
        """
        raise NotImplementedError

    @property
    def provider(self) -> str:
        """What computes it."""
        raise NotImplementedError

    async def score(self, images: NDArray[np.uint8] | Sequence[Raw], seconds: float) -> Scored:
        """Score with the model that serves; see :meth:`.batcher.Batcher.score`."""
        raise NotImplementedError

    @contextmanager
    def borrowed(self, sha256: str) -> Iterator[Scorer]:
        """A scorer of this very model, for a job: the one that serves, or one loaded for it.

        Raises:
            LlossError: its copy is gone.
        """
        raise NotImplementedError
        yield

    def prune(self, keep: set[str]) -> None:
        """Remove copies but those that serve, are borrowed, or are to be kept."""
        raise NotImplementedError

    def close(self) -> None:
        """Finish what is queued and free everything."""
        raise NotImplementedError
