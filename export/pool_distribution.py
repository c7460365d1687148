"""What the exported graph itself predicts for a pool, to know live traffic by."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lloss.export.fidelity import predict
from lloss.export.pool_sample import batches

from lloss.errors import PoolError
from lloss.images.decode import ImageSpec
from lloss.pools import Item, Pool
from lloss.selection.hashing import draw_ids
from lloss.statistics.loss_distribution import MIN_IMAGES, LossReference

IMAGES = 1000
"""With these, and half as many live images, the population stability index exceeds .1 by chance in
less than one window of a thousand (``benchmarks/drift_thresholds.py``)."""


@dataclass(frozen=True, kw_only=True)
class ReferenceSample:
    """Images whose predicted losses are what the artifact's live traffic is compared with.

    Attributes:
        pool: images as they will be scored.
        exclude: ids to leave out, such as those trained on, whose losses are lower.
        images: at most; drawn by a hash of their ids.
        required: whether a pool with too few images is an error; else there is no reference.
    """

    pool: Pool
    exclude: Set[str] = frozenset()
    images: int = IMAGES
    required: bool = True

    @cached_property
    def items(self) -> Sequence[Item]:
        """The images drawn.

        Raises:
            PoolError: there are too few, and a reference is required.
        """
        ids = draw_ids((id for id in self.pool.ids() if id not in self.exclude), self.images, 0)
        if self.required and len(ids) < MIN_IMAGES:
            raise PoolError(
                f"{self.pool.uri}: has {len(ids)} images; a reference needs {MIN_IMAGES}: give a "
                "larger pool to --reference, or leave it out"
            )
        return self.pool.find(ids)

    def measure(self, path: Path, spec: ImageSpec) -> LossReference | None:
        """Score the images with an exported graph, on the CPU.

        Args:
            path: the ONNX file.
            spec: of its input.

        Raises:
            PoolError: too few images can be scored, and a reference is required.
        """
        if len(self.items) < MIN_IMAGES:
            return None
        predicted = predict(path, batches(self.items, spec, "score the reference"))
        try:
            return LossReference.of(predicted.loss, self.pool.uri)
        except PoolError:
            if self.required:
                raise
            return None
