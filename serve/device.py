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
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lloss.artifact import INPUT, Manifest
from lloss.errors import EngineError
from lloss.runtime.providers import ORT_NAMES, bucket_of, buckets, first_line

from .memory import Copy, CudaMemory, HostMemory, Memory

_ALIGNMENT = 256
_NO_GRAPH = -1
"""The graph id with which a run neither captures nor replays."""

Outputs = dict[str, NDArray[np.float32]]


class InputBuffer:
    """One of the rotating buffers.

    Attributes:
        pixels: uint8 [batch_size, H, W, 3], to be filled from row 0; pinned for a GPU.
        number: which of the buffers it is.
    """

    def __init__(self, number: int, layout: _Layout, memory: Memory) -> None:
        self.number = number
        self._layout = layout
        self._in = memory.host(layout.input_size)
        self._out = memory.host(layout.output_size)
        self._device_in = memory.device(layout.input_size)
        self._device_out = memory.device(layout.output_size)
        self.stream = memory.stream()
        self.pixels: NDArray[np.uint8] = self._in.reshape(layout.batch_size, *layout.image)

    def bind(self, session: Any, memory: Memory, bucket: int) -> Any:
        """An onnxruntime binding of this buffer's device memory as a batch of ``bucket``."""
        binding = session.io_binding()
        place = (memory.name, memory.device_id)
        shape = [bucket, *self._layout.image]
        binding.bind_input(INPUT, *place, np.uint8, shape, self._device_in)
        for name, (start, trailing) in self._layout.outputs.items():
            address = self._device_out + start
            binding.bind_output(name, *place, np.float32, [bucket, *trailing], address)
        return binding

    def uploads(self, count: int) -> list[Copy]:
        """The copies that bring ``count`` rows to the device."""
        size = count * self._layout.row_size
        return [Copy(self._in.ctypes.data, self._device_in, size)]

    def downloads(self, count: int) -> list[Copy]:
        """The copies that bring ``count`` rows of every output back."""
        host = self._out.ctypes.data
        return [
            Copy(host + start, self._device_out + start, count * _row_size(trailing))
            for start, trailing in self._layout.outputs.values()
        ]

    def outputs(self, count: int) -> Outputs:
        """What was downloaded, as arrays of their own."""
        found = {}
        for name, (start, trailing) in self._layout.outputs.items():
            stop = start + count * _row_size(trailing)
            rows = self._out[start:stop].view(np.float32).reshape(count, *trailing)
            found[name] = rows.copy()
        return found


class _Layout:
    """Where inputs and outputs lie in a buffer's two blocks."""

    def __init__(self, manifest: Manifest, batch_size: int) -> None:
        self.batch_size = batch_size
        self.image = (manifest.image.height, manifest.image.width, 3)
        self.row_size = int(np.prod(self.image))
        self.input_size = batch_size * self.row_size
        self.outputs: dict[str, tuple[int, tuple[int, ...]]] = {}
        start = 0
        for name, trailing in manifest.outputs.items():
            self.outputs[name] = (start, trailing)
            size = batch_size * _row_size(trailing)
            start += -(-size // _ALIGNMENT) * _ALIGNMENT
        self.output_size = start


class DeviceExecutor:
    """Runs one session on a device with preallocated, pinned and bound buffers.

    Two or three threads, the lanes, each take a buffer, fill it, run it and give it back::

        buffer = executor.buffer()
        try:
            buffer.pixels[:count] = images
            outputs = executor.run(buffer, count)
        finally:
            executor.release(buffer)

    A count is padded to one of a few batch sizes (:func:`lloss.runtime.providers.buckets`), all of
    which are run once at construction: no later batch starts a search for algorithms. Where the
    session captures CUDA graphs, one is captured for each buffer and bucket, and its replay is
    compared with a plain run; if it fails or differs, the executor goes on without graphs.
    Capturing fails while other threads use the same GPU: construct it before they start.

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

    Attributes:
        graphs: whether batches are replayed CUDA graphs.
        note: why not, where the session would have them.
        batch_size: as given.
        buckets: the batch sizes that are really run.

    Raises:
        EngineError: the device has not the memory, or the session fails on it.
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
    ) -> None:
        if batch_size < 1 or buffers < 1:
            raise EngineError(
                f"batch size {batch_size}, {buffers} buffers: give at least 1 of each"
            )
        self.batch_size = batch_size
        self.buckets = buckets(batch_size)
        self.graphs, self.note = _captures(session), ""
        self._session, self._device = session, device
        self._memory = memory or _memory(device, device_id)
        self._changed = threading.Condition()
        self._running, self._closed = 0, False
        self._count, self._kept = buffers, 0
        self._runner = ThreadPoolExecutor(1, "lloss-device")
        try:
            layout = _Layout(manifest, batch_size)
            self._free = [InputBuffer(n, layout, self._memory) for n in range(buffers)]
            self._held: set[int] = set()
            self._bindings = {
                (buffer.number, size): buffer.bind(session, self._memory, size)
                for buffer in self._free
                for size in self.buckets
            }
            # Graph id 0 is what a run without an id gets.
            self._options = {key: _run_options(id) for id, key in enumerate(self._bindings, 1)}
            self._plain = _run_options(_NO_GRAPH)
            self._runner.submit(self._warm_up).result()
        except Exception as error:
            self.close()
            raise self._failed(error) from error

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
            size = bucket_of(count, self.batch_size)
            buffer.pixels[count:size] = 0  # whatever a lane left there changes no result
            self._memory.upload(buffer.uploads(size), buffer.stream)
            self._runner.submit(self._compute, buffer.number, size).result()
            self._memory.download(buffer.downloads(count), buffer.stream)
            return buffer.outputs(count)
        except Exception as error:
            raise self._failed(error) from error
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

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
        self._runner.shutdown()
        self._bindings, self._session = {}, None
        self._memory.close()

    def __enter__(self) -> DeviceExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _compute(self, number: int, size: int) -> None:
        options = self._options[number, size] if self.graphs else self._plain
        self._session.run_with_iobinding(self._bindings[number, size], options)

    def _warm_up(self) -> None:
        """Run every bucket, in the runner's thread: captured graphs belong to it."""
        if self.graphs:
            try:
                self._capture()
                return
            except Exception as error:  # the runtime's own errors have no common public base
                self.graphs, self.note = False, f"no CUDA graphs: {first_line(error)}"
        for size in self.buckets:
            self._compute(self._free[0].number, size)

    def _capture(self) -> None:
        """Capture on one content of the buffers, and compare a replay on another."""
        noise = np.random.default_rng(0)
        for buffer in self._free:
            buffer.pixels[:] = 0
            self._memory.upload(buffer.uploads(self.batch_size), buffer.stream)
            for size in self.buckets:
                self._compute(buffer.number, size)
            buffer.pixels[:] = noise.integers(0, 256, buffer.pixels.shape, np.uint8)
            self._memory.upload(buffer.uploads(self.batch_size), buffer.stream)
            for size in self.buckets:
                self._compute(buffer.number, size)
                replayed = self._read(buffer, size)
                self._session.run_with_iobinding(self._bindings[buffer.number, size], self._plain)
                _compare(replayed, self._read(buffer, size), size)

    def _read(self, buffer: InputBuffer, count: int) -> Outputs:
        self._memory.download(buffer.downloads(count), buffer.stream)
        return buffer.outputs(count)

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the executor was closed")

    def _failed(self, error: Exception) -> EngineError:
        if isinstance(error, EngineError):
            return error
        return EngineError(f"failed on {self._device}: {first_line(error)}")


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


def _row_size(trailing: Sequence[int]) -> int:
    return 4 * int(np.prod(trailing, dtype=np.int64))
