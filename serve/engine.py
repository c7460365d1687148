"""ONNX Runtime with the provider that was asked for, and no other."""

from __future__ import annotations

import ctypes
import importlib.metadata
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lloss.artifact import INPUT, Manifest, read_manifest
from lloss.errors import EngineError
from lloss.files import sha256_of

Provider = Literal["auto", "tensorrt", "cuda", "cpu"]

_ORT_NAMES = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
_LIBRARIES = {"tensorrt": ("libcuda.so.1", "libnvinfer.so.10"), "cuda": ("libcuda.so.1",)}
"""Without these a provider is in the wheel and cannot run; asking first spares a page of noise."""


class Engine:
    """One artifact, loaded on one provider.

    Args:
        model: path of the artifact.
        provider: ``auto`` takes the first that works of TensorRT, CUDA, CPU; a named one is used
            or refused.
        threads: of the CPU provider; 0 for one a core.

    Attributes:
        manifest: of the artifact.
        sha256: of its file.
        provider: the one that really runs.

    Raises:
        ArtifactError: the file is no artifact.
        EngineError: the provider cannot run it.
    """

    def __init__(self, model: str | Path, provider: str = "auto", threads: int = 0) -> None:
        if provider not in get_args(Provider):
            choices = ", ".join(get_args(Provider))
            raise EngineError(f"provider {provider!r}: choose one of {choices}")
        self.path = Path(model)
        self.manifest: Manifest = read_manifest(self.path)
        self.sha256 = sha256_of(self.path)
        asked = [provider] if provider != "auto" else ["tensorrt", "cuda", "cpu"]
        problems = []
        for name in asked:
            problem = _missing(name)
            if problem is None:
                session, problem = _session(self.path, name, threads)
                if session is not None:
                    self.provider, self._session = name, session
                    return
            problems.append(f"{name}: {problem}")
        raise EngineError(f"{self.path}: cannot be run: {'; '.join(problems)}")

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """All outputs of a batch.

        Args:
            images: uint8 [N, H, W, 3] of the manifest's size, N at least 1.

        Returns:
            Each output by name, float32 [N, ...].
        """
        names = list(self.manifest.outputs)
        try:
            values = self._session.run(names, {INPUT: images})
        except Exception as error:  # the runtime's own errors have no common public base
            raise EngineError(f"{self.path}: failed on {self.provider}: {error}") from error
        return dict(zip(names, values))


def _missing(provider: str) -> str | None:
    """Why a provider cannot run here at all, or None."""
    if _ORT_NAMES[provider] not in ort.get_available_providers():
        return f"is not in the installed onnxruntime{_clash()}"
    for library in _LIBRARIES.get(provider, ()):
        try:
            ctypes.CDLL(library)
        except OSError:
            extra = "lloss[trt]" if "nvinfer" in library else "lloss[cuda]"
            return f"{library} is not on this machine (an NVIDIA driver, pip install '{extra}')"
    return None


def _clash() -> str:
    """Both wheels share one folder; the one installed last wins, often the one without GPU."""
    held = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            held.append(importlib.metadata.distribution(name).metadata["Name"])
        except importlib.metadata.PackageNotFoundError:
            continue
    if len(held) < 2:
        return ""
    return (
        "; onnxruntime and onnxruntime-gpu are installed together and hide each other: "
        "pip uninstall both, then pip install onnxruntime-gpu"
    )


def _session(path: Path, provider: str, threads: int) -> tuple[Any, str]:
    """A session that really runs on ``provider``, or why there is none."""
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors; a provider's warnings are told by what comes below
    options.intra_op_num_threads = threads
    names = list(dict.fromkeys((_ORT_NAMES[provider], _ORT_NAMES["cpu"])))
    if provider != "cpu":
        ort.preload_dlls()
    try:
        session = ort.InferenceSession(str(path), options, providers=names)
    except Exception as error:  # the runtime's own errors have no common public base
        return None, str(error).splitlines()[0]
    session.disable_fallback()
    running = session.get_providers()[0]
    if running != names[0]:
        return None, f"could not be started, {running} ran in its place"
    return session, ""
