"""An exported model, loaded on the provider that the caller asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from lloss.serve.scoring.engine.executor import Executor
from lloss.serve.scoring.engine.gpu_executor import RUNS, GpuExecutor
from lloss.serve.scoring.result import no_columns
from numpy.typing import NDArray

from lloss.errors import EngineError
from lloss.files import sha256_of
from lloss.manifest import Manifest, read_manifest
from lloss.runtime import cuda_driver, tf32
from lloss.runtime.batch_size import device_batch, host_batch
from lloss.runtime.cpu_count import usable_cores
from lloss.runtime.int8_support import saturates, weight_bits
from lloss.runtime.onnx_runtime import import_onnxruntime
from lloss.runtime.providers import (
    SessionSetup,
    candidates,
    open_session,
    parse_provider,
    why_unavailable,
)

log = logging.getLogger(__name__)

import_onnxruntime()  # where it is missing, that is the first error


class Engine:
    """One model on one provider.

    Args:
        model: path of the model.
        provider: ``auto`` takes the first that works of TensorRT, CUDA, CPU (int8 models are for
            CPUs); any other name is used or refused. ``cuda:1`` and ``tensorrt:1`` name a GPU.
        threads: number of runs at a time on the CPU; 0 for one per core.
        batch_size: images per batch at most; 0 for what suits the provider and the images' size. A
            GPU with too little memory runs a batch in pieces.
        on_halving: called each time that a GPU's memory did not hold a run and runs are halved.

    Attributes:
        manifest: of the model.
        sha256: of its file.
        provider: ``tensorrt``, ``cuda`` or ``cpu``: the one that runs.
        note: remarks on how it runs, or "".
        concurrency: number of threads that keep it busy.

    Raises:
        ModelFileError: the file is not an exported model.
        EngineError: the provider cannot run it.
    """

    def __init__(
        self,
        model: str | Path,
        provider: str = "auto",
        threads: int = 0,
        batch_size: int = 0,
        on_halving: Callable[[], None] = lambda: None,
    ) -> None:
        name, self.device_id = parse_provider(provider)
        self.path = Path(model)
        self.manifest: Manifest = read_manifest(self.path)
        self.sha256 = sha256_of(self.path)
        self._threads, self._fixed_batch_size = threads or usable_cores(), batch_size
        self._on_halving = on_halving
        self._choose_provider(candidates(name, self.manifest.precision))

    def _choose_provider(self, candidates: Sequence[str]) -> None:
        """Start the first candidate that works."""
        problems: list[str] = []
        for self.provider in candidates:
            problem = self._why_unavailable()
            if not problem:
                try:
                    self._open()
                except EngineError as error:
                    problem = str(error).removeprefix(f"{self.path}: ")
                else:
                    # Say why a GPU of this machine is not used, or not by TensorRT.
                    unused = problems if problems and _has_gpu() else []
                    self.note = "; ".join(filter(None, [self._note(), *unused]))
                    return
            problems.append(f"{self.provider}: {problem}")
        raise EngineError(f"{self.path}: cannot be run: {'; '.join(problems)}")

    def _why_unavailable(self) -> str:
        if self.provider == "tensorrt" and self.manifest.precision == "int8":
            # Its activations are uint8 with a zero point; TensorRT's quantization is symmetric.
            return "int8 is for CPUs; for TensorRT export with --precision fp16"
        return why_unavailable(self.provider, self.device_id)

    def _open(self) -> None:
        manifest = self.manifest
        default = host_batch if self.on_host else device_batch
        self.batch_size = self._fixed_batch_size or default(manifest.image)
        setup = SessionSetup(manifest, self.provider, self.batch_size, self.device_id)
        session = open_session(self.path, setup, self.sha256)
        self.executor: Executor
        if self.on_host:
            self.concurrency = self._threads
            self.executor = Executor(session, manifest, self.batch_size, self.concurrency)
        else:
            self.concurrency = RUNS
            self.executor = GpuExecutor(
                session, manifest, self.batch_size, self.device, self._halved
            )

    def _halved(self, size: int, smaller: int) -> None:
        message = "%s has too little memory for runs of %d images: runs of %d at most"
        log.warning(message, self.device, size, smaller)
        self._on_halving()

    @property
    def on_host(self) -> bool:
        """Whether it computes on the cores that decode."""
        return self.provider == "cpu"

    @property
    def device(self) -> str:
        """The provider, with the GPU's number: ``cuda:1``; or ``cpu``."""
        return self.provider if self.on_host else f"{self.provider}:{self.device_id}"

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Compute all outputs, float32 [N, ...], of uint8 [N, H, W, 3] of the manifest's size."""
        parts = [
            self._run_batch(images[start : start + self.batch_size])
            for start in range(0, len(images), self.batch_size)
        ]
        if len(parts) == 1:
            return parts[0]
        return {
            name: np.concatenate([empty, *(part[name] for part in parts)])
            for name, empty in no_columns(self.manifest).items()
        }

    def _run_batch(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
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
        allowed = "off" if tf32.forbidden() else "possible"
        return {"provider": self.provider, "tf32": allowed}

    def failure(self) -> str:
        """Return why the engine is unreliable now (a lost GPU, a run that just failed), or "".

        Nothing takes its place: a program that was given a GPU fails rather than to continue on the
        CPU.
        """
        return self.executor.failure()

    def close(self) -> None:
        """Free the session and its buffers."""
        self.executor.close()

    def _note(self) -> str:
        """Remark on a precision that this provider computes slowly, or in an unmeasured way."""
        manifest, measured = self.manifest, self.manifest.fidelity.get("fp32")
        if not self.on_host and measured:
            return (
                f"the fidelity of {manifest.precision} (Spearman {measured['spearman']:.5f}) was "
                f"measured on cpu, not on {self.provider}"
            )
        if self.on_host and manifest.precision == "fp16":
            return "a CPU computes fp16 slower than fp32; --precision int8 is for CPUs"
        if self.on_host and weight_bits(manifest) == 8 and saturates():
            return (
                "warning: made for CPUs with VNNI, and this one has none: exact but slower kernels "
                "compute it; for this CPU export with --reduce-range, or fp32"
            )
        return ""


def _has_gpu() -> bool:
    try:
        cuda_driver.check_gpu(0)
    except EngineError:
        return False
    return True
