"""Score images: embedded in a program, or over a whole pool."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from lloss.serve.scoring.batch.pipeline import READERS, Pipeline, Take
from lloss.serve.scoring.batch.worker_pool import Team
from lloss.serve.scoring.engine.session import Engine
from lloss.serve.scoring.result import Scores, joined
from lloss.serve.scoring.telemetry import Telemetry
from numpy.typing import NDArray
from PIL import Image

from lloss.errors import EngineError, PoolError, SettingsError
from lloss.images.cpu_count import usable_cores
from lloss.images.decode import MAX_PIXELS
from lloss.manifest import Manifest
from lloss.pools import ArrayPool, Item, Pool, open_pool
from lloss.pools.image_files import read_file

Images: TypeAlias = "NDArray[np.uint8] | Sequence[bytes | str | Path | NDArray[np.uint8]] | Pool"
"""What :meth:`Scorer.score` takes."""


class Scorer:
    """Scores images with an artifact.

    Any number of threads may use one at a time; they share its engine. As a context manager, or
    with :meth:`close`, it lets go of its threads and of the device's memory; it also does so when
    the program ends.

    Args:
        model: path of ``model.onnx``.
        device: ``auto`` (TensorRT, CUDA, CPU, in that order), or one of them by name, and for the
            former two the GPU's number: ``cuda:1``. For TensorRT the environment must have
            ``NVIDIA_TF32_OVERRIDE=0`` before the program starts, see :mod:`lloss.runtime.tf32`.
        batch_size: images a batch at most; 0 for what suits the device and the images' size.
        threads: that decode and, on the CPU, compute; 0 for one a core.
        readers: threads that fetch, for pools behind a network.
        telemetry: to count in, such as one that several scorers share; by default one of its own.
            Which model serves is said by who shares it.
        team: of threads that several scorers share; by default it has its own.

    Attributes:
        engine: the artifact on its provider.
        telemetry: counters, histograms and the registry that holds them.

    It pickles by its path, so that it can be sent to workers; there it has a telemetry of its own.

    Raises:
        ArtifactError: the file is no artifact.
        EngineError: the device cannot run it.
        SettingsError: a number that cannot be.

    Example:
        >>> with Scorer("model.onnx") as scorer:
        ...     scorer.score(np.zeros((2, 32, 32, 3), np.uint8)).loss.shape
        (2,)
    """

    def __init__(
        self,
        model: str | Path,
        device: str = "auto",
        batch_size: int = 0,
        threads: int = 0,
        readers: int = READERS,
        telemetry: Telemetry | None = None,
        team: Team | None = None,
    ) -> None:
        for name, value, least in (
            ("batch_size", batch_size, 0),
            ("threads", threads, 0),
            ("readers", readers, 1),
        ):
            if value < least:
                raise SettingsError(f"{name} = {value}: give at least {least}")
        self._made_by = (str(Path(model).absolute()), device, batch_size, threads, readers)
        self.telemetry = telemetry or Telemetry()
        self.engine = Engine(model, device, threads, batch_size, self.telemetry.halved)
        if telemetry is None:
            self.telemetry.model(self.engine.sha256, self.engine.device, self.manifest.precision)
        self.threads = threads or usable_cores()
        self.readers = readers
        self._team = team
        self._pipeline: Pipeline | None = None
        self._lock = threading.Lock()
        self._closed = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), self._made_by)

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End its threads and free what the engine holds; calls after it do nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            pipeline = self._pipeline
        # Not under the lock: what is under way may ask this scorer for a lane, to be refused.
        if pipeline is not None:
            pipeline.close()
        self.engine.close()

    @property
    def manifest(self) -> Manifest:
        """What the artifact is."""
        return self.engine.manifest

    @property
    def batch_size(self) -> int:
        """Images a run of the engine at most."""
        return self.engine.batch_size

    def score(self, images: Images) -> Scores:
        """Score images at hand.

        Args:
            images: an array uint8 [N, H, W, 3] or [N, H, W] of any H and W; a sequence of encoded
                images (``bytes``), paths, or arrays uint8 [H, W, 3], also mixed; or a pool. All
                are decoded and resized as in training. One image goes in a list.

        Returns:
            Scores of the images that can be read, in their order; the others are ``skipped``, with
            the reason. Ids are a pool's own, the path as given, or else the row number.

        Raises:
            PoolError: an array that is not uint8 or of another shape, one image instead of a batch,
                or an image of no known kind.
            EngineError: the engine failed, or the scorer was closed.
        """
        if isinstance(images, np.ndarray) and self._is_one_batch(images):
            return self._one_batch(images)
        return joined(list(self.stream(_pool_of(images))), self.manifest)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Score a dict of arrays, as Ray Data, Hugging Face datasets and Spark hand them over.

        Args:
            batch: ``image`` or ``images``: uint8 [N, H, W, 3], or a sequence of encoded images or
                of arrays of several sizes; everything else passes through.

        Returns:
            The same columns without the images, and the artifact's outputs beside them.

        Raises:
            PoolError: there are no images, or one of them cannot be read: a row that came in must
                come out.
        """
        key = next((name for name in ("image", "images") if name in batch), None)
        if key is None:
            raise PoolError(f"a batch with {sorted(batch)}: images stand under 'image' or 'images'")
        scores = self.score(_unwrapped(batch[key]))
        if scores.skipped:
            row, reason = scores.skipped[0]
            raise PoolError(f"image {row} of the batch: {reason}; leave such rows out before")
        rest = {name: values for name, values in batch.items() if name != key}
        return {**rest, **scores.columns}

    def stream(self, pool: str | Path | Pool) -> Iterator[Scores]:
        """Score a pool in bounded memory, a batch at a time, in the pool's order.

        Raises:
            PoolError: the pool cannot be opened or read on.
            EngineError: the engine failed, or the scorer was closed.
        """
        opened = pool if isinstance(pool, Pool) else open_pool(pool)
        yield from self.ranges(opened, _all(self.batch_size))

    def ranges(self, pool: Pool, ranges: Iterable[range]) -> Generator[Scores]:
        """Score the images at some positions of a pool, a range at a time.

        Args:
            pool: opened.
            ranges: ascending and apart, none longer than ``batch_size``; there may be more of them
                than the pool has images.
        """
        yield from self._started().run(pool.chunks(ranges), pool.remote)

    def when_free(self, take: Take, max_pixels: int = MAX_PIXELS) -> Future[Scores]:
        """Score what is there once the engine is free for it; see :meth:`.Pipeline.when_free`.

        Raises:
            EngineError: the scorer was closed.
        """
        return self._started().when_free(take, max_pixels)

    def _started(self) -> Pipeline:
        with self._lock:
            self._check_open()
            if self._pipeline is None:
                self._pipeline = Pipeline(
                    self.engine, self.telemetry, self.threads, self.readers, self._team
                )
            return self._pipeline

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the scorer was closed")

    def _is_one_batch(self, images: NDArray[Any]) -> bool:
        image = self.manifest.image
        return (
            images.dtype == np.uint8
            and images.shape[1:] == (image.height, image.width, 3)
            and 0 < len(images) <= self.batch_size
        )

    def _one_batch(self, images: NDArray[np.uint8]) -> Scores:
        """In the caller's thread: for a few images the hand-over would cost more than it brings."""
        self._check_open()
        with self.telemetry.timed("infer"):
            columns = self.engine.run(images)
        self.telemetry.ran(columns["loss"], 0)
        return Scores([str(row) for row in range(len(images))], columns)


def _all(size: int) -> Iterator[range]:
    """Ranges of this size, without end."""
    start = 0
    while True:
        yield range(start, start + size)
        start += size


_CHANNELS = 4
"""A last side of an array that is not longer holds an image's channels, not grey pixels."""


class _GivenPool(Pool):
    """Images that the caller has at hand or names."""

    uri = "the images given"
    unique = True

    def __init__(self, images: Sequence[Any]) -> None:
        self.images = images

    def __iter__(self) -> Iterator[Item]:
        return (_given(row, image) for row, image in enumerate(self.images))


def _given(row: int, image: Any) -> Item:
    if isinstance(image, (str, Path)):
        return Item(str(image), lambda: read_file(Path(image)))
    if isinstance(image, (bytes, bytearray, memoryview)):
        return Item(str(row), lambda: bytes(image))
    if isinstance(image, np.ndarray):
        if image.ndim == 2 and image.shape[1] <= _CHANNELS:
            raise PoolError(
                f"image {row} is an array {list(image.shape)}, which looks like a row of pixels: "
                "give a list of images, each uint8 [H, W, 3]"
            )
        return Item(str(row), lambda: image)
    raise PoolError(
        f"image {row} is a {type(image).__name__}: give bytes, a path or an array uint8 [H, W, 3]"
    )


def _pool_of(images: Any) -> Pool:
    if isinstance(images, Pool):
        return images
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8 or images.ndim not in (3, 4):
            raise PoolError(
                f"images of {images.dtype} {list(images.shape)}: give uint8 [N, H, W, 3]"
            )
        if images.ndim == 3 and images.shape[2] <= _CHANNELS:
            raise PoolError(
                f"an array {list(images.shape)} is one image: give a batch of one, image[None]"
            )
        return ArrayPool(images, "the array given")
    if isinstance(images, (str, bytes, Path)):
        raise PoolError(
            f"one {type(images).__name__}: give a list of images, or use stream() for a pool"
        )
    return _GivenPool(_listed(images))


def _listed(images: Any) -> list[Any]:
    if isinstance(images, Mapping) or not isinstance(images, Iterable):
        raise PoolError(f"a {type(images).__name__}: give an array, a list of images, or a pool")
    return list(images)


def _unwrapped(images: Any) -> Any:
    """Object arrays (ragged images, or bytes) as a list; anything else that is array-like as is."""
    if isinstance(images, np.ndarray):
        return images if images.dtype != object else list(images)
    listed = _listed(images)
    first = listed[0] if listed else None
    # Pillow's would become arrays too, those with a palette of its indexes.
    if first is None or isinstance(first, (bytes, str, Path, Image.Image)):
        return listed
    try:
        array = np.asarray(images)
    except ValueError:  # of several shapes
        return listed
    return array if array.dtype != object else listed
