"""Run a session on a device: buffers at fixed addresses, copies beside the compute.

::

    lane 1   fill ─ upload ─ wait ········ download ─ fill ─ …
    lane 2          fill ─ upload ─ wait ·········· download ─ …
    runner                  [ run 1 ][ run 2 ][ run 1 ] …

Each lane (a thread of the caller's) copies in its own stream and without the interpreter lock,
while the runner, the only thread that calls onnxruntime, computes what another lane has uploaded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime as ort
from lloss.serve.scoring.engine.buffers import InputBuffer, Layout, Outputs
from lloss.serve.scoring.engine.device_memory import CudaMemory, HostMemory, Memory
from numpy.typing import NDArray

from lloss.errors import CaptureError, DeviceLostError, DeviceMemoryError, EngineError
from lloss.manifest import Manifest
from lloss.runtime.batch_size import buckets, halved
from lloss.runtime.graph_capture import DEVICES
from lloss.runtime.providers import ORT_NAMES, first_line, kind_of

RECENT = 30.0
"""Seconds for which a failed run counts against the device, unless a later one succeeds."""

_NO_GRAPH = -1
"""The graph id with which a run neither captures nor replays."""


class DeviceExecutor:
    """Runs one session on a device with preallocated, pinned and bound buffers.

    Two or three threads, the lanes, each take a buffer, fill it, run it and give it back::

        buffer = executor.buffer()
        try:
            buffer.pixels[:count] = images
            outputs = executor.run(buffer, count)
        finally:
            executor.release(buffer)

    On CUDA a count is padded to one of a few batch sizes (:func:`.buckets`);
    TensorRT runs any from 1 to the largest. The largest is run first, at construction: memory that
    it took serves the smaller ones, and what does not fit is known. Where the session captures CUDA
    graphs, one is captured for each buffer and bucket, and its replay is compared with a plain run.
    While one is captured nothing else of this process uses a GPU, see :mod:`.graph_capture`.
    :func:`.opening.open_device` makes session and executor again where graphs cannot be captured or
    the memory is too small.

    A run for which the device has too little memory is halved, and later runs stay at that size.

    What it does not do: onnxruntime waits for the end of a run before it returns, so between two
    runs the GPU idles for as long as Python takes to start the next, some tens of microseconds;
    large batches hide it.

    Args:
        session: an ``onnxruntime.InferenceSession`` on the CUDA, TensorRT or CPU provider.
        manifest: of its artifact.
        batch_size: the largest batch.
        buffers: how many rotate; one more than lanes lets a reader fill ahead.
        device: ``cuda`` (also for TensorRT), or ``cpu``.
        device_id: number of the GPU.
        memory: by default that of the device.
        limit: images a run at most, a larger batch is run in pieces; 0 for the batch size.
        tell: receives a line each time that runs are halved.

    Attributes:
        graphs: whether batches are replayed CUDA graphs.
        batch_size: as given.
        limit: images a run at most, as it is now.
        buckets: the batch sizes that are run at construction, and on CUDA no others.

    Raises:
        CaptureError: a CUDA graph cannot be captured or replays wrongly; this session is not to be
            used further.
        DeviceMemoryError: the device has not the memory.
        EngineError: the session fails on it.
    """

    def __init__(
        self,
        session: Any,
        manifest: Manifest,
        batch_size: int,
        buffers: int = 3,
        device: str = "cuda",
        device_id: int = 0,
        memory: Memory | None = None,
        limit: int = 0,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        if batch_size < 1 or buffers < 1:
            raise EngineError(
                f"batch size {batch_size}, {buffers} buffers: give at least 1 of each"
            )
        self.batch_size, self.limit = batch_size, min(limit or batch_size, batch_size)
        self._padded = session.get_providers()[0] != ORT_NAMES["tensorrt"]
        self.buckets = buckets(self.limit) if self._padded else tuple(sorted({1, self.limit}))
        self.graphs = _captures(session)
        self._session, self._tell = session, tell
        self._place = device if device == "cpu" else f"{device}:{device_id}"
        self._memory = memory or _memory(device, device_id)
        self._changed = threading.Condition()
        self._running, self._closed = 0, False
        self._count, self._kept = buffers, 0
        self._lost, self._failure = "", ("", 0.0)
        self._held: set[int] = set()
        self._bindings: dict[tuple[int, int], Any] = {}
        self._runner = ThreadPoolExecutor(1, "lloss-device")
        try:
            layout = Layout(manifest, batch_size, self.limit)
            with DEVICES.shared():
                self._buffers = [InputBuffer(n, layout, self._memory) for n in range(buffers)]
            self._free = list(self._buffers)
            keys = [(n, size) for n in range(buffers) for size in self.buckets]
            # Graph id 0 is what a run without an id gets.
            self._options = {key: _run_options(id) for id, key in enumerate(keys, 1)}
            self._plain = _run_options(_NO_GRAPH)
            self._runner.submit(self._warm_up).result()
        except Exception as error:
            try:
                with DEVICES.shared():
                    raise self._failed(error) from error
            finally:
                self.close()

    def buffer(self, urgent: bool = False) -> InputBuffer:
        """A buffer to fill; blocks until one is free.

        Args:
            urgent: before all who are not. From the first time on one buffer is kept for such
                calls, so that they need not wait until a pool's batch is decoded.

        Raises:
            EngineError: the executor was closed.
        """
        with self._changed:
            if urgent:
                self._kept = min(1, self._count - 1)
            self._changed.wait_for(
                lambda: len(self._free) > (0 if urgent else self._kept) or self._closed
            )
            self._check_open()
            taken = self._free.pop()
            self._held.add(taken.number)
            return taken

    def run(self, buffer: InputBuffer, count: int) -> Outputs:
        """Run the first ``count`` rows of a buffer, and wait for what comes out.

        Args:
            buffer: held by the caller, who still holds it afterwards.
            count: 1 to ``batch_size``; what lies in later rows is overwritten.

        Returns:
            Each output by name, float32 [count, ...], fresh arrays.

        Raises:
            DeviceLostError: nothing runs on the device any more.
            EngineError: the session failed, the executor was closed, or the count or the buffer
                is not of this executor.
        """
        if not 1 <= count <= self.batch_size:
            raise EngineError(f"{count} images in a batch: give 1 to {self.batch_size}")
        with self._changed:
            self._check_open()
            if buffer.number not in self._held:
                raise EngineError(f"buffer {buffer.number} was given back: take one with buffer()")
            self._running += 1
        try:
            with DEVICES.shared():
                outputs = self._computed(buffer, count)
            self._failure = ("", 0.0)
            return outputs
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def trouble(self) -> str:
        """Why the device cannot be relied on now: it was lost, or the last run failed lately."""
        reason, when = self._failure
        return self._lost or (reason if time.monotonic() - when < RECENT else "")

    def release(self, buffer: InputBuffer) -> None:
        """Give a buffer back; giving it back twice does nothing."""
        with self._changed:
            if buffer.number in self._held:
                self._held.remove(buffer.number)
                self._free.append(buffer)
                self._changed.notify_all()  # one of them may have to leave it to another

    def close(self) -> None:
        """Wait for the batches that run, then free the device's memory; later calls do nothing.

        Threads that wait for a buffer get an :class:`EngineError`.
        """
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._running)
        with DEVICES.shared():
            # In its own thread, as all that the runtime does: it changes a thread's current device.
            self._runner.submit(self._let_go).result()
            self._memory.close()
        self._runner.shutdown()

    def __enter__(self) -> DeviceExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _computed(self, buffer: InputBuffer, count: int) -> Outputs:
        """All pieces of a batch, one after another, each as large as the device's memory lets."""
        parts: list[Outputs] = []
        start = 0
        while start < count:
            size = min(self.limit, count - start)
            try:
                parts.append(self._piece(buffer, start, size))
            except Exception as error:
                failed = self._failed(error)
                if isinstance(failed, DeviceMemoryError) and self._halved(self._bucket(size)):
                    continue
                self._failure = (str(failed), time.monotonic())
                raise failed from error
            start += size
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _piece(self, buffer: InputBuffer, start: int, size: int) -> Outputs:
        if self._lost:
            raise DeviceLostError(self._lost)
        bucket = self._bucket(size)
        # Whatever a lane left there changes no result; only a batch's last piece is padded.
        buffer.pixels[start + size : start + bucket] = 0
        self._memory.upload(buffer.uploads(bucket, start), buffer.stream)
        self._runner.submit(self._compute, buffer.number, bucket).result()
        return self._read(buffer, size)

    def _bucket(self, size: int) -> int:
        """What ``size`` images are padded to."""
        return next(b for b in self.buckets if b >= size) if self._padded else size

    def _halved(self, size: int) -> bool:
        """Whether the next try is smaller than the one of ``size`` that did not fit."""
        with self._changed:
            if size == 1:
                return False
            smaller = halved(size)
            if smaller < self.limit:  # else another lane was sooner
                self.limit = smaller
                self._tell(
                    f"{self._place} has too little memory for a run of {size} images: runs of "
                    f"{smaller} at most from now on"
                )
            return True

    def _compute(self, number: int, size: int) -> None:
        options = self._options[number, size] if self.graphs else self._plain
        self._session.run_with_iobinding(self._binding(number, size), options)

    def _binding(self, number: int, size: int) -> Any:
        """Made when it is first used, in the runner's thread alone."""
        key = (number, size)
        if key not in self._bindings:
            self._bindings[key] = self._buffers[number].bind(self._session, self._memory, size)
        return self._bindings[key]

    def _warm_up(self) -> None:
        """Run every bucket, in the runner's thread: captured graphs belong to it."""
        shape = (self.limit, *self._buffers[0].pixels.shape[1:])
        noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        for size in reversed(self.buckets):
            with DEVICES.shared():
                self._session.run_with_iobinding(self._binding(0, size), self._plain)
            # All of one size after another: each change of it has cuDNN plan anew.
            for buffer in self._buffers if self.graphs else ():
                try:
                    self._capture(buffer, noise[:size])
                except Exception as error:  # the runtime's own errors have no common public base
                    if kind_of(error) is DeviceMemoryError:
                        raise
                    raise CaptureError(first_line(error)) from error

    def _capture(self, buffer: InputBuffer, noise: NDArray[np.uint8]) -> None:
        """Capture on black images, and compare a replay on noise with a plain run."""
        size = len(noise)
        self._fill(buffer, np.zeros_like(noise))
        with DEVICES.exclusive():
            self._compute(buffer.number, size)
        self._fill(buffer, noise)
        with DEVICES.shared():
            self._compute(buffer.number, size)
            replayed = self._read(buffer, size)
            self._session.run_with_iobinding(self._binding(buffer.number, size), self._plain)
            plain = self._read(buffer, size)
        _compare(replayed, plain, size)

    def _fill(self, buffer: InputBuffer, pixels: NDArray[np.uint8]) -> None:
        buffer.pixels[: len(pixels)] = pixels
        with DEVICES.shared():
            self._memory.upload(buffer.uploads(len(pixels)), buffer.stream)

    def _read(self, buffer: InputBuffer, count: int) -> Outputs:
        self._memory.download(buffer.downloads(count), buffer.stream)
        return buffer.outputs(count)

    def _let_go(self) -> None:
        self._bindings, self._session = {}, None

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the executor was closed")

    def _failed(self, error: Exception) -> EngineError:
        """What an error is here; whether the device still works is asked."""
        # After a capture that failed the driver may refuse everything until its session is gone.
        if isinstance(error, (CaptureError, DeviceMemoryError, DeviceLostError)):
            return error
        kind = kind_of(error)
        if kind is not DeviceMemoryError and not self._lost and (why := self._memory.trouble()):
            what = why if isinstance(error, EngineError) else f"{first_line(error)}; {why}"
            self._lost = (
                f"{self._place} was lost ({what}): nothing of this process runs on it any more. "
                "Look at nvidia-smi and the kernel's log, then start again"
            )
        if self._lost:
            return DeviceLostError(self._lost)
        if isinstance(error, EngineError):
            return error
        return kind(f"failed on {self._place}: {first_line(error)}")


def _memory(device: str, device_id: int) -> Memory:
    if device == "cpu":
        return HostMemory()
    if device == "cuda":
        return CudaMemory(device_id)
    raise EngineError(f"device {device!r}: choose cuda or cpu")


def _captures(session: Any) -> bool:
    """Whether a session was made to capture CUDA graphs, and by the provider that can."""
    given: Mapping[str, Mapping[str, str]] = session.get_provider_options()
    name = ORT_NAMES["cuda"]
    return session.get_providers()[0] == name and given[name].get("enable_cuda_graph") == "1"


def _run_options(graph: int) -> Any:
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph))
    return options


def _compare(replayed: Outputs, plain: Outputs, size: int) -> None:
    for name, values in plain.items():
        # A prediction is an index: it flips on a tie. What it comes from is compared beside it.
        if name != "prediction" and not np.allclose(replayed[name], values, rtol=1e-3, atol=1e-3):
            difference = float(np.abs(replayed[name] - values).max())
            raise EngineError(
                f"the replay of a batch of {size} gives another {name} (by up to {difference:.1e})"
            )
