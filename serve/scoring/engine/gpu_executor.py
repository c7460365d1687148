"""Run a session on a GPU: buffers at fixed addresses, copies beside the compute.

::

    thread 1   fill ─ upload ─ wait ········ download ─ fill ─ …
    thread 2          fill ─ upload ─ wait ·········· download ─ …
    runner                    [ run 1 ][ run 2 ][ run 1 ] …

Each calling thread copies in its own stream and without the interpreter lock, while the runner, the
only thread that calls onnxruntime, computes what another thread has uploaded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from lloss.serve.scoring.engine.buffers import InputBuffer, Outputs
from lloss.serve.scoring.engine.device_memory import CudaMemory
from numpy.typing import NDArray

from lloss.errors import CaptureError, DeviceLostError, DeviceMemoryError, EngineError
from lloss.manifest import Manifest
from lloss.runtime.batch_size import captured_sizes, halved
from lloss.runtime.graph_capture import CAPTURE_LOCK
from lloss.runtime.onnx_runtime import import_onnxruntime
from lloss.runtime.providers import ORT_NAMES, error_type, first_line

RECENT = 30.0
"""Seconds for which a failed run counts against the device, unless a later one succeeds."""

OnHalving = Callable[[int, int], None]
"""Called when the GPU's memory did not hold a run: its size, and the size of later runs."""

_NO_GRAPH = -1
"""The graph id of a run that neither captures nor replays."""


class GpuExecutor:
    """Runs one session on a GPU with preallocated, pinned and bound buffers.

    Two or three threads each take a buffer, fill it, run it and release it. On CUDA a count is
    padded to one of a few batch sizes (:func:`.captured_sizes`); TensorRT runs any size.
    The constructor runs the largest first: its memory serves the smaller ones, and a size that does
    not fit fails there. Where the session captures CUDA graphs, the constructor captures one for
    each buffer and size, and compares its replay with a plain run;
    :mod:`lloss.runtime.graph_capture` keeps every other GPU call out during a capture.

    A run for which the GPU has too little memory is halved, and later runs stay at that size.

    Attributes:
        graphs: whether batches are replayed CUDA graphs.
        limit: images that one run takes; a larger batch is run in pieces.
        sizes: the batch sizes that the constructor runs; on CUDA no others run.

    Raises:
        CaptureError: a CUDA graph cannot be captured or replays wrongly; the session is unusable.
        DeviceMemoryError: the GPU has too little memory.
        EngineError: the session fails on it.
    """

    def __init__(
        self,
        session: Any,
        manifest: Manifest,
        batch_size: int,
        buffers: int = 3,
        device_id: int = 0,
        limit: int = 0,
        on_halving: OnHalving = lambda size, smaller: None,
        memory: CudaMemory | None = None,
    ) -> None:
        self.batch_size, self.limit = batch_size, min(limit or batch_size, batch_size)
        self._padded = session.get_providers()[0] != ORT_NAMES["tensorrt"]
        self.sizes = captured_sizes(self.limit) if self._padded else tuple(sorted({1, self.limit}))
        self.graphs = _captures(session)
        self._session, self._on_halving = session, on_halving
        self._device = f"cuda:{device_id}"
        self._memory = memory or CudaMemory(device_id)
        self._changed = threading.Condition()
        self._running, self._closed = 0, False
        self._count, self._reserved = buffers, 0
        self._lost, self._failure = "", ("", 0.0)
        self._taken: set[int] = set()
        self._bindings: dict[tuple[int, int], Any] = {}
        self._runner = ThreadPoolExecutor(1, "lloss-runner")
        try:
            with CAPTURE_LOCK.shared():
                self._buffers = [
                    InputBuffer(number, manifest, batch_size, self.limit, self._memory)
                    for number in range(buffers)
                ]
            self._free = list(self._buffers)
            keys = [(number, size) for number in range(buffers) for size in self.sizes]
            # Graph id 0 is what a run without an id gets.
            self._options = {key: _run_options(id) for id, key in enumerate(keys, 1)}
            self._plain = _run_options(_NO_GRAPH)
            self._runner.submit(self._warm_up).result()
        except Exception as error:
            try:
                with CAPTURE_LOCK.shared():
                    raise self._explained(error) from error
            finally:
                self.close()

    def buffer(self, urgent: bool = False) -> InputBuffer:
        """Take a buffer to fill; wait until one is free."""
        with self._changed:
            if urgent:
                self._reserved = min(1, self._count - 1)
            self._changed.wait_for(
                lambda: len(self._free) > (0 if urgent else self._reserved) or self._closed
            )
            self._check_open()
            buffer = self._free.pop()
            self._taken.add(buffer.number)
            return buffer

    def run(self, buffer: InputBuffer, count: int) -> Outputs:
        """Run the first ``count`` rows of a buffer, and wait for the outputs.

        Returns:
            Each output by name, float32 [count, ...], as new arrays.
        """
        with self._changed:
            self._check_open()
            if buffer.number not in self._taken:
                raise EngineError(f"buffer {buffer.number} was given back: take one with buffer()")
            self._running += 1
        try:
            with CAPTURE_LOCK.shared():
                outputs = self._run_in_pieces(buffer, count)
            self._failure = ("", 0.0)
            return outputs
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def failure(self) -> str:
        """Return why the GPU is unreliable now: it was lost, or its last run failed; or ""."""
        reason, when = self._failure
        return self._lost or (reason if time.monotonic() - when < RECENT else "")

    def release(self, buffer: InputBuffer) -> None:
        """Give a buffer back; a second time does nothing."""
        with self._changed:
            if buffer.number in self._taken:
                self._taken.remove(buffer.number)
                self._free.append(buffer)
                self._changed.notify_all()  # the one that wakes up may have to leave it to another

    def close(self) -> None:
        """Wait for the running batches, then free the GPU's memory; later calls do nothing.

        Threads that wait for a buffer get an :class:`EngineError`.
        """
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._running)
        with CAPTURE_LOCK.shared():
            # In the runner, like every call of onnxruntime: it changes a thread's current device.
            self._runner.submit(self._release_session).result()
            self._memory.close()
        self._runner.shutdown()

    def __enter__(self) -> GpuExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run_in_pieces(self, buffer: InputBuffer, count: int) -> Outputs:
        parts: list[Outputs] = []
        start = 0
        while start < count:
            size = min(self.limit, count - start)
            try:
                parts.append(self._run_piece(buffer, start, size))
            except Exception as error:
                explained = self._explained(error)
                no_memory = isinstance(explained, DeviceMemoryError)
                if no_memory and self._halve(self._padded_size(size)):
                    continue
                self._failure = (str(explained), time.monotonic())
                raise explained from error
            start += size
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run_piece(self, buffer: InputBuffer, start: int, size: int) -> Outputs:
        if self._lost:
            raise DeviceLostError(self._lost)
        padded = self._padded_size(size)
        # Leftovers of an earlier batch change no result; only a batch's last piece is padded.
        buffer.pixels[start + size : start + padded] = 0
        buffer.upload(padded, start)
        self._runner.submit(self._compute, buffer.number, padded).result()
        return buffer.download(size)

    def _padded_size(self, size: int) -> int:
        """The batch size to which ``size`` images are padded."""
        return next(padded for padded in self.sizes if padded >= size) if self._padded else size

    def _halve(self, size: int) -> bool:
        """Halve the limit after a run of ``size`` did not fit; False when it cannot be halved."""
        with self._changed:
            if size == 1:
                return False
            smaller = halved(size)
            if smaller < self.limit:  # else another thread was faster
                self.limit = smaller
                self._on_halving(size, smaller)
            return True

    def _compute(self, number: int, size: int) -> None:
        options = self._options[number, size] if self.graphs else self._plain
        self._session.run_with_iobinding(self._binding(number, size), options)

    def _binding(self, number: int, size: int) -> Any:
        """Make a binding on first use, in the runner's thread."""
        key = (number, size)
        if key not in self._bindings:
            self._bindings[key] = self._buffers[number].bind(self._session, size)
        return self._bindings[key]

    def _warm_up(self) -> None:
        """Run every size, in the runner's thread: captured graphs belong to it."""
        shape = (self.limit, *self._buffers[0].pixels.shape[1:])
        noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        for size in reversed(self.sizes):
            with CAPTURE_LOCK.shared():
                self._session.run_with_iobinding(self._binding(0, size), self._plain)
            # All buffers of one size in a row: cuDNN plans again whenever the size changes.
            for buffer in self._buffers if self.graphs else ():
                try:
                    self._capture(buffer, noise[:size])
                except Exception as error:  # onnxruntime's errors have no common public base
                    if error_type(error) is DeviceMemoryError:
                        raise
                    raise CaptureError(first_line(error)) from error

    def _capture(self, buffer: InputBuffer, noise: NDArray[np.uint8]) -> None:
        """Capture on black images, and compare a replay on noise with a plain run."""
        size = len(noise)
        self._fill(buffer, np.zeros_like(noise))
        with CAPTURE_LOCK.exclusive():
            self._compute(buffer.number, size)
        self._fill(buffer, noise)
        with CAPTURE_LOCK.shared():
            self._compute(buffer.number, size)
            replayed = buffer.download(size)
            self._session.run_with_iobinding(self._binding(buffer.number, size), self._plain)
            _compare(replayed, buffer.download(size), size)

    def _fill(self, buffer: InputBuffer, pixels: NDArray[np.uint8]) -> None:
        buffer.pixels[: len(pixels)] = pixels
        with CAPTURE_LOCK.shared():
            buffer.upload(len(pixels))

    def _release_session(self) -> None:
        self._bindings, self._session = {}, None

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the executor was closed")

    def _explained(self, error: Exception) -> EngineError:
        """Turn any error into one of ours; ask the driver whether the GPU still works."""
        # After a failed capture, the driver may refuse every call until the session is gone.
        if isinstance(error, (CaptureError, DeviceMemoryError, DeviceLostError)):
            return error
        kind = error_type(error)
        if kind is not DeviceMemoryError and not self._lost and (why := self._memory.failure()):
            what = why if isinstance(error, EngineError) else f"{first_line(error)}; {why}"
            self._lost = (
                f"{self._device} was lost ({what}): nothing of this process runs on it any more. "
                "Look at nvidia-smi and the kernel's log, then start again"
            )
        if self._lost:
            return DeviceLostError(self._lost)
        if isinstance(error, EngineError):
            return error
        return kind(f"failed on {self._device}: {first_line(error)}")


def _captures(session: Any) -> bool:
    """Whether the session captures CUDA graphs."""
    name = ORT_NAMES["cuda"]
    options = session.get_provider_options().get(name, {})
    return bool(session.get_providers()[0] == name and options.get("enable_cuda_graph") == "1")


def _run_options(graph: int) -> Any:
    options = import_onnxruntime().RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph))
    return options


def _compare(replayed: Outputs, plain: Outputs, size: int) -> None:
    for name, values in plain.items():
        # A prediction is an index, which flips on a tie; the outputs behind it are compared.
        if name != "prediction" and not np.allclose(replayed[name], values, rtol=1e-3, atol=1e-3):
            difference = float(np.abs(replayed[name] - values).max())
            raise EngineError(
                f"the replay of a batch of {size} gives another {name} (by up to {difference:.1e})"
            )
