"""ONNX Runtime with the provider that was asked for, and no other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from lloss.serve.scoring.engine.cpu_executor import HostExecutor, host_options, weight_bits
from lloss.serve.scoring.engine.gpu_startup import open_device
from lloss.serve.scoring.result import no_columns
from numpy.typing import NDArray

from lloss.errors import EngineError
from lloss.files import sha256_of
from lloss.images.cpu_count import usable_cores
from lloss.manifest import Manifest, read_manifest
from lloss.runtime import cuda_driver as cuda
from lloss.runtime import tf32
from lloss.runtime.batch_size import device_batch, fitting, host_batch
from lloss.runtime.int8_support import instructions, saturates
from lloss.runtime.providers import ORDER, missing, open_session, parse_device, setup_of

log = logging.getLogger(__name__)

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

    def trouble(self) -> str:
        """Why it cannot be relied on now; "" where it works."""

    def close(self) -> None:
        """Free what is held."""


class Engine:
    """One artifact, loaded on one provider.

    Args:
        model: path of the artifact.
        provider: ``auto`` takes the first that works of TensorRT, CUDA, CPU (int8 artifacts are for
            CPUs); a named one is used or refused. ``cuda:1`` and ``tensorrt:1`` name a GPU.
        threads: on the CPU, runs at a time; 0 for one a core.
        batch_size: images a batch at most; 0 for what suits the provider and the images' size. A
            GPU with too little memory for it runs it in pieces.
        halved: called each time that a GPU's memory did not hold a run and runs are halved.

    Attributes:
        manifest: of the artifact.
        sha256: of its file.
        provider: the one that really runs.
        device: it with the GPU's number, such as ``cuda:1``; ``cpu``.
        device_id: number of the GPU; 0 on the CPU.
        note: what there is to say about how it runs; often nothing.
        lanes: threads that keep it busy.
        batch_size: images a run at most.
        executor: fills and runs batches; see :class:`Executor`.

    Raises:
        ArtifactError: the file is no artifact.
        EngineError: the provider cannot run it.
    """

    def __init__(
        self,
        model: str | Path,
        provider: str = "auto",
        threads: int = 0,
        batch_size: int = 0,
        halved: Callable[[], None] = lambda: None,
    ) -> None:
        asked, self.device_id = parse_device(provider)
        self._count_halving = halved
        self.path = Path(model)
        self.manifest: Manifest = read_manifest(self.path)
        self.sha256 = sha256_of(self.path)
        self._threads, self._asked = threads or usable_cores(), batch_size
        problems: list[str] = []
        for name in self._order() if asked == "auto" else [asked]:
            problem = missing(name, ort.get_available_providers(), self.device_id)
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
        self.provider, self.note = name, ""
        image = self.manifest.image
        self.executor: Executor
        if name == "cpu":
            self.device = name
            self.batch_size = self._asked or host_batch(image)
            setup = setup_of(self.manifest, name, self.batch_size)
            opened = open_session(self.path, setup, self.sha256, host_options(self.manifest))
            notes = (_host_note(self.manifest), _measured_elsewhere(self.manifest, name))
            self.note, self.lanes = "; ".join(filter(None, notes)), self._threads
            self.executor = HostExecutor(
                opened.session, self.manifest, self.batch_size, buffers=self.lanes
            )
            return
        self.device, self.lanes = f"{name}:{self.device_id}", DEVICE_LANES
        self.batch_size = self._asked or device_batch(image)
        self.executor, note = open_device(
            self.path,
            self.manifest,
            self.sha256,
            setup_of(self.manifest, name, self.batch_size, self.device_id),
            DEVICE_LANES + 2,
            self._limit(),
            self._halved,
        )
        self.note = "; ".join(
            filter(None, [self.note, note, _measured_elsewhere(self.manifest, name)])
        )

    def _limit(self) -> int:
        """Images a run that the GPU's free memory holds, where no number was asked for."""
        if self._asked or self.provider != "cuda":  # an engine of TensorRT is built for a number
            return self.batch_size
        free = cuda.driver().free_memory(self.device_id)
        limit = fitting(self.manifest.image, self.batch_size, free)
        if limit < self.batch_size:
            self.note = f"runs of {limit} images: {free / 2**30:.1f} GiB are free on {self.device}"
        return limit

    def _halved(self, line: str) -> None:
        log.warning("%s", line)
        self._count_halving()

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

    def identity(self) -> dict[str, str]:
        """What computes, as far as the bytes of the scores depend on it."""
        if self.on_host:
            return {"provider": self.provider}
        return {
            "provider": self.provider,
            "tf32": "possible" if tf32.possible(self.device_id) else "off",
        }

    def trouble(self) -> str:
        """Why what computes cannot be relied on now: a lost GPU, a run that failed just before.

        Nothing else takes its place: a program that was given a GPU fails rather than to go on by
        the CPU.
        """
        return self.executor.trouble()

    def close(self) -> None:
        """Free the session and its buffers."""
        self.executor.close()


def _has_gpu() -> bool:
    try:
        cuda.driver().gpu(0)
    except EngineError:
        return False
    return True


def _measured_elsewhere(manifest: Manifest, provider: str) -> str:
    """What to know of a fidelity that another provider reached: kernels differ, as roundings do."""
    measured = manifest.fidelity.get("fp32")
    if not measured:
        return ""
    where = measured.get("provider", "cpu")
    if where == provider:
        return ""
    return (
        f"the fidelity of {manifest.precision} (Spearman {measured['spearman']:.5f}) was measured "
        f"on {where}, not on {provider}"
    )


def _host_note(manifest: Manifest) -> str:
    if manifest.precision == "fp16":
        return "a CPU computes fp16 slower than fp32; --precision int8 is for CPUs"
    if manifest.precision == "int8" and weight_bits(manifest) == 8 and saturates():
        return (
            f"warning: made for CPUs with VNNI, and this one ({instructions()}) has none: exact "
            "but slower kernels compute it; for this CPU export with --reduce-range, or fp32"
        )
    return ""
