"""Score images, embedded in a program."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from lloss.serve.scoring.batch.pipeline import READERS, Pipeline, Take
from lloss.serve.scoring.batch.slots import ComputeSlots
from lloss.serve.scoring.engine.engine import Engine
from lloss.serve.scoring.result import Scores, concatenate
from lloss.serve.scoring.telemetry import Telemetry

from lloss.errors import EngineError, PoolError, SettingsError
from lloss.images.decode import MAX_PIXELS
from lloss.manifest import Manifest
from lloss.pools import Chunk, Pool, open_pool
from lloss.pools.in_memory_pool import Images, pool_of
from lloss.runtime.cpu_count import usable_cores


class Scorer:
    """Scores images with an exported model.

    Several threads may use one scorer at a time; they share its engine. A scorer frees its threads
    and the device's memory at the end of its ``with`` block, with :meth:`close`, or at the end of
    the program. It pickles by its path, so that it can be sent to workers; a copy has a telemetry
    of its own.

    Args:
        model: path of ``model.onnx``.
        provider: ``auto`` (TensorRT, CUDA, CPU, in that order), or one of them by name, and for the
            former two the GPU's number: ``cuda:1``. For TensorRT the environment must have
            ``NVIDIA_TF32_OVERRIDE=0`` before the program starts, see :mod:`lloss.runtime.tf32`.
        batch_size: images per batch at most; 0 for what suits the provider and the images' size.
        threads: number of threads that decode and, on the CPU, compute; 0 for one per core.
        readers: number of threads that fetch images from remote pools.
        telemetry: metrics that several scorers share; by default new ones. The program that
            shares them names the model in them.
        slots: cores and GPU that several scorers share; by default its own.

    Attributes:
        engine: the model on its provider.
        telemetry: the metrics.

    Raises:
        ModelFileError: the file is not an exported model.
        EngineError: the provider cannot run it.
        SettingsError: a number is out of range.

    Example:
        >>> with Scorer("model.onnx") as scorer:
        ...     scorer.score(np.zeros((2, 32, 32, 3), np.uint8)).loss.shape
        (2,)
    """

    def __init__(
        self,
        model: str | Path,
        provider: str = "auto",
        batch_size: int = 0,
        threads: int = 0,
        readers: int = READERS,
        telemetry: Telemetry | None = None,
        slots: ComputeSlots | None = None,
    ) -> None:
        for name, value, least in (
            ("batch_size", batch_size, 0),
            ("threads", threads, 0),
            ("readers", readers, 1),
        ):
            if value < least:
                raise SettingsError(f"{name} = {value}: give at least {least}")
        self._arguments = (str(Path(model).absolute()), provider, batch_size, threads, readers)
        self.telemetry = telemetry or Telemetry()
        self.engine = Engine(model, provider, threads, batch_size, self.telemetry.halved)
        if telemetry is None:
            self.telemetry.model(self.engine.sha256, self.engine.device, self.manifest.precision)
        self.threads = threads or usable_cores()
        self.readers = readers
        self._slots = slots
        self._pipeline: Pipeline | None = None
        self._lock = threading.Lock()
        self._closed = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), self._arguments)

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End its threads and free the engine's memory; later calls do nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            pipeline = self._pipeline
        # Not under the lock: a batch under way may call this scorer, and is refused.
        if pipeline is not None:
            pipeline.close()
        self.engine.close()

    @property
    def manifest(self) -> Manifest:
        """The model's manifest."""
        return self.engine.manifest

    @property
    def batch_size(self) -> int:
        """Images per run of the engine at most."""
        return self.engine.batch_size

    def score(self, images: Images) -> Scores:
        """Score images in memory, or by their paths.

        Args:
            images: an array uint8 [N, H, W, 3] or [N, H, W] of any H and W; a sequence of encoded
                images (``bytes``), paths, or arrays uint8 [H, W, 3], also mixed; or a pool or the
                path of one. All are decoded and resized as in training. Give one image in a list.

        Returns:
            Scores of the images that can be read, in their order; the others are ``skipped``, with
            the reason. Ids are a pool's own, the path as given, or else the row number.

        Raises:
            PoolError: an array that is not uint8 or of another shape, one image instead of a batch,
                or an image of an unknown type.
            EngineError: the engine failed, or the scorer was closed.
        """
        return concatenate(list(self.stream(pool_of(images))), self.manifest)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Score a dict of arrays, as Ray Data, Hugging Face datasets and Spark pass it.

        Args:
            batch: ``image`` or ``images``: uint8 [N, H, W, 3], or a sequence of encoded images or
                of arrays of several sizes; all other columns pass through.

        Returns:
            The same columns without the images, and the model's outputs.

        Raises:
            PoolError: there are no images, or an image cannot be read: every row that comes in must
                come out.
        """
        key = next((name for name in ("image", "images") if name in batch), None)
        if key is None:
            raise PoolError(
                f"a batch with {sorted(batch)}: put the images under 'image' or 'images'"
            )
        scores = self.score(batch[key])
        if scores.skipped:
            row, reason = scores.skipped[0]
            raise PoolError(f"image {row} of the batch: {reason}; leave such rows out before")
        rest = {name: values for name, values in batch.items() if name != key}
        return {**rest, **scores.columns}

    def stream(self, pool: str | Path | Pool) -> Iterator[Scores]:
        """Score a pool in bounded memory, a batch at a time, in the pool's order.

        Raises:
            PoolError: the pool cannot be opened, or not be read to its end.
            EngineError: the engine failed, or the scorer was closed.
        """
        opened = pool if isinstance(pool, Pool) else open_pool(pool)
        size = self.batch_size
        ranges = (range(start, start + size) for start in itertools.count(0, size))
        yield from self.ranges(opened, ranges)

    def ranges(self, pool: Pool, ranges: Iterable[range]) -> Generator[Scores]:
        """Score the images at some positions of a pool, a range at a time.

        Args:
            pool: opened.
            ranges: ascending and disjoint, none longer than ``batch_size``; they may go beyond the
                end of the pool.
        """
        yield from self.chunks(pool.chunks(ranges), pool.remote)

    def chunks(self, chunks: Iterable[Chunk], remote: bool = False) -> Iterator[Scores]:
        """Score chunks of at most ``batch_size`` images; with ``remote``, fetch them ahead."""
        return self._started().run(chunks, remote)

    def when_free(self, take: Take, max_pixels: int = MAX_PIXELS) -> Future[Scores]:
        """Score a batch that is formed when the engine is free; see :meth:`.Pipeline.when_free`.

        Raises:
            EngineError: the scorer was closed.
        """
        return self._started().when_free(take, max_pixels)

    def _started(self) -> Pipeline:
        with self._lock:
            if self._closed:
                raise EngineError("the scorer was closed")
            if self._pipeline is None:
                self._pipeline = Pipeline(
                    self.engine, self.telemetry, self.threads, self.readers, self._slots
                )
            return self._pipeline
