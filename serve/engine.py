"""ONNX Runtime with the provider that was asked for, and no other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lloss.artifact import Manifest, read_manifest
from lloss.cores import usable_cores
from lloss.errors import EngineError
from lloss.files import sha256_of
from lloss.runtime import cuda
from lloss.runtime.integers import instructions, saturates
from lloss.runtime.providers import (
    DEVICE_BATCH,
    ORDER,
    Provider,
    host_batch,
    missing,
    open_session,
    setup_of,
)

from .device import DeviceExecutor
from .host import HostExecutor, host_options, weight_bits
from .result import no_columns

DEVICE_LANES = 2
"""Threads that fill and fetch for one device: while one of them computes, the other copies."""


class Buffer(Protocol):
    """A batch to fill: ``pixels`` is uint8 [batch_size, H, W, 3]."""

    pixels: NDArray[np.uint8]


class Executor(Protocol):
    """What :class:`HostExecutor` and :class:`DeviceExecutor` do."""

    batch_size: int

    def buffer(self, urgent: bool = False) -> Any:
        """A :class:`Buffer` to fill; blocks until one is free."""

    def run(self, buffer: Any, count: int) -> dict[str, NDArray[np.float32]]:
        """All outputs of its first ``count`` rows, fresh arrays."""

    def release(self, buffer: Any) -> None:
        """Give it back."""

    def close(self) -> None:
        """Free what is held."""


class Engine:
    """One artifact, loaded on one provider.

    Args:
        model: path of the artifact.
        provider: ``auto`` takes the first that works of TensorRT, CUDA, CPU (int8 artifacts are for
            CPUs); a named one is used or refused.
        threads: on the CPU, runs at a time; 0 for one a core.
        batch_size: images a run at most; 0 for what was measured best on the provider.

    Attributes:
        manifest: of the artifact.
        sha256: of its file.
        provider: the one that really runs.
        note: what there is to say about how it runs; often nothing.
        lanes: threads that keep it busy.
        batch_size: images a run at most.
        executor: fills and runs batches; see :class:`Executor`.

    Raises:
        ArtifactError: the file is no artifact.
        EngineError: the provider cannot run it.
    """

    def __init__(
        self, model: str | Path, provider: str = "auto", threads: int = 0, batch_size: int = 0
    ) -> None:
        if provider not in get_args(Provider):
            choices = ", ".join(get_args(Provider))
            raise EngineError(f"provider {provider!r}: choose one of {choices}")
        self.path = Path(model)
        self.manifest: Manifest = read_manifest(self.path)
        self.sha256 = sha256_of(self.path)
        self._threads, self._asked = threads or usable_cores(), batch_size
        problems: list[str] = []
        for name in self._order() if provider == "auto" else [provider]:
            problem = missing(name, ort.get_available_providers())
            if problem is None:
                try:
                    self._start(name)
                    self._tell(problems)
                    return
                except EngineError as error:
                    problem = str(error).removeprefix(f"{self.path}: ")
            problems.append(f"{name}: {problem}")
        raise EngineError(f"{self.path}: cannot be run: {'; '.join(problems)}")

    def _order(self) -> tuple[str, ...]:
        """What ``auto`` tries; int8 graphs are made for the instructions of CPUs."""
        return ("cpu",) if self.manifest.precision == "int8" else ORDER

    def _start(self, name: str) -> None:
        host = name == "cpu"
        self.batch_size = self._asked or (host_batch(self.manifest.image) if host else DEVICE_BATCH)
        setup = setup_of(self.manifest, name, self.batch_size)
        opened = open_session(
            self.path, setup, self.sha256, host_options(self.manifest) if host else None
        )
        self.provider, self.note = name, opened.note
        self.lanes = self._threads if host else DEVICE_LANES
        self.executor: Executor
        if host:
            self.note = _host_note(self.manifest)
            self.executor = HostExecutor(
                opened.session, self.manifest, self.batch_size, buffers=self.lanes
            )
            return
        device = DeviceExecutor(
            opened.session, self.manifest, self.batch_size, buffers=DEVICE_LANES + 2
        )
        self.executor, self.note = device, device.note or opened.note

    def _tell(self, problems: Sequence[str]) -> None:
        """Note why a GPU that is there is not used as it could be."""
        if problems and _has_gpu():
            self.note = "; ".join([*([self.note] if self.note else []), *problems])

    @property
    def on_host(self) -> bool:
        """Whether it computes on the very cores that decode."""
        return self.provider == "cpu"

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """All outputs of some images.

        Args:
            images: uint8 [N, H, W, 3] of the manifest's size.

        Returns:
            Each output by name, float32 [N, ...].
        """
        parts = [
            self._batch(images[start : start + self.batch_size])
            for start in range(0, len(images), self.batch_size)
        ]
        if len(parts) == 1:
            return parts[0]
        empty = no_columns(self.manifest)
        return {
            name: np.concatenate([part[name] for part in parts]) if parts else none
            for name, none in empty.items()
        }

    def _batch(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        buffer = self.executor.buffer()
        try:
            buffer.pixels[: len(images)] = images
            return self.executor.run(buffer, len(images))
        finally:
            self.executor.release(buffer)

    def close(self) -> None:
        """Free the session and its buffers."""
        self.executor.close()


def _has_gpu() -> bool:
    try:
        cuda.driver().gpu(0)
    except EngineError:
        return False
    return True


def _host_note(manifest: Manifest) -> str:
    if manifest.precision == "fp16":
        return "a CPU computes fp16 slower than fp32; --precision int8 is for CPUs"
    if manifest.precision == "int8" and weight_bits(manifest) == 8 and saturates():
        return (
            f"warning: made for CPUs with VNNI, and this one ({instructions()}) has none: exact "
            "but slower kernels compute it; for this CPU export with --reduce-range, or fp32"
        )
    return ""
