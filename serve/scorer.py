"""Score images: embedded in a pipeline, or over a whole pool."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lloss.artifact import Manifest
from lloss.decoding import Decoded, decoded
from lloss.errors import ImageError, PoolError
from lloss.images import Pixels, decode
from lloss.pools import Item, Pool, open_pool
from lloss.scores import scores_table

from .engine import Engine

BATCH = 64


@dataclass(frozen=True)
class Scores:
    """Scores of some images.

    Attributes:
        ids: of the N images that could be read.
        columns: the artifact's outputs by name, each float32 [N, ...].
        skipped: ids and reasons of those that could not.
    """

    ids: Sequence[str]
    columns: Mapping[str, NDArray[np.float32]]
    skipped: Sequence[tuple[str, str]] = field(default=())

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def loss(self) -> NDArray[np.float32]:
        """Predicted loss, float32 [N]: a score to rank by, in no unit."""
        return self.columns["loss"]

    def table(self) -> pa.Table:
        """One row an image: ``id`` and the outputs."""
        return scores_table(self.ids, self.columns)


class Scorer:
    """Scores images with an artifact.

    Args:
        model: path of ``model.onnx``.
        device: ``auto`` (TensorRT, CUDA, CPU, in that order), or one of them by name.
        batch_size: images a run of the engine.
        threads: for decoding and for the CPU provider; 0 for one a core.

    It pickles by its path, so that it can be sent to workers.

    Raises:
        ArtifactError: the file is no artifact.
        EngineError: the device cannot run it.

    Example:
        >>> scorer = Scorer("model.onnx")
        >>> scorer.score(np.zeros((2, 32, 32, 3), np.uint8)).loss.shape
        (2,)
    """

    def __init__(
        self, model: str | Path, device: str = "auto", batch_size: int = BATCH, threads: int = 0
    ) -> None:
        self._made_by = (str(Path(model).absolute()), device, batch_size, threads)
        self.engine = Engine(model, device, threads)
        self.batch_size = batch_size
        self.threads = threads

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), self._made_by)

    @property
    def manifest(self) -> Manifest:
        """What the artifact is."""
        return self.engine.manifest

    def score(self, images: NDArray[np.uint8]) -> Scores:
        """Score images at hand.

        Args:
            images: uint8 [N, H, W, 3] or [N, H, W], of any size; resized as in training.

        Returns:
            N scores; the ids are the row numbers.

        Raises:
            PoolError: the array is not uint8, or of another shape.
        """
        if images.dtype != np.uint8 or images.ndim not in (3, 4):
            raise PoolError(
                f"images of {images.dtype} {list(images.shape)}: give uint8 [N, H, W, 3]"
            )
        try:
            pixels = [
                (str(row), decode(image, self.manifest.image)) for row, image in enumerate(images)
            ]
        except ImageError as error:
            raise PoolError(str(error)) from error
        return joined(list(self.batches(iter(pixels))), self.manifest)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Score a dict of arrays, as Ray Data, Hugging Face datasets and Spark hand them over.

        Args:
            batch: ``image`` or ``images``, uint8 [N, H, W, 3]; everything else passes through.

        Returns:
            The same columns without the images, and the artifact's outputs beside them.
        """
        key = next((name for name in ("image", "images") if name in batch), None)
        if key is None:
            raise PoolError(f"a batch with {sorted(batch)}: images stand under 'image' or 'images'")
        scores = self.score(np.asarray(batch[key]))
        rest = {name: values for name, values in batch.items() if name != key}
        return {**rest, **scores.columns}

    def stream(self, pool: str | Path | Pool) -> Iterator[Scores]:
        """Score a pool in bounded memory, a batch at a time, in the pool's order."""
        opened = pool if isinstance(pool, Pool) else open_pool(pool)
        yield from self.items(opened)

    def items(self, items: Iterable[Item]) -> Iterator[Scores]:
        """Score items of a pool, a batch at a time; those that cannot be read are told with it."""
        yield from self.batches(decoded(items, self.manifest.image, self.threads))

    def batches(self, images: Iterator[Decoded]) -> Iterator[Scores]:
        """Score decoded images, a full batch at a time."""
        ids: list[str] = []
        pixels: list[Pixels] = []
        skipped: list[tuple[str, str]] = []
        for id, image in images:
            if isinstance(image, ImageError):
                skipped.append((id, str(image)))
                continue
            ids.append(id)
            pixels.append(image)
            if len(ids) == self.batch_size:
                yield Scores(ids, self.engine.run(np.stack(pixels)), skipped)
                ids, pixels, skipped = [], [], []
        if ids:
            yield Scores(ids, self.engine.run(np.stack(pixels)), skipped)
        elif skipped:
            yield Scores([], _no_columns(self.manifest), skipped)


def joined(parts: Sequence[Scores], manifest: Manifest) -> Scores:
    """Scores of several batches as one."""
    columns = {
        name: np.concatenate([part.columns[name] for part in parts]) if parts else empty
        for name, empty in _no_columns(manifest).items()
    }
    return Scores(
        [id for part in parts for id in part.ids],
        columns,
        [row for part in parts for row in part.skipped],
    )


def _no_columns(manifest: Manifest) -> dict[str, NDArray[np.float32]]:
    return {name: np.empty((0, *shape), np.float32) for name, shape in manifest.outputs.items()}
