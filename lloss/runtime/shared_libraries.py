"""The shared libraries that onnxruntime's GPU providers need, in the folders of pip packages."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

TENSORRT = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
"""TensorRT 10, which onnxruntime is built for. TensorRT 11 has other names and does not work."""

_PACKAGES = ("nvidia", "tensorrt_libs")
"""Packages whose folders hold NVIDIA's libraries, outside of the loader's own paths."""


def cuda_libraries(major: str) -> tuple[str, ...]:
    """What the provider of an onnxruntime for CUDA ``major`` needs, dependencies first."""
    own = (f"lib{name}.so.{major}" for name in ("cudart", "cublasLt", "cublas"))
    return (*own, "libcurand.so.10", "libcudnn.so.9")


def first_missing(names: Sequence[str]) -> str | None:
    """Load libraries for the whole process, in order; return the first that cannot be loaded.

    The provider's own file is linked to bare names, which the loader resolves to loaded libraries:
    loading by full path here makes LD_LIBRARY_PATH unnecessary.
    """
    return next((name for name in names if not load(name)), None)


def load(name: str) -> bool:
    """Load one library by name, or from the folder of a pip package."""
    for path in (name, *map(str, _packaged(name))):
        try:
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return True
    return False


def tensorrt_version() -> str:
    """The version of the loaded TensorRT library, such as ``101401``."""
    return str(ctypes.CDLL(TENSORRT[0]).getInferLibVersion())


def _packaged(name: str) -> Iterator[Path]:
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            yield from sorted(Path(folder).glob(name))
            yield from sorted(Path(folder).glob(f"*/lib/{name}"))
