"""The shared libraries that a provider of onnxruntime needs, found where pip puts them."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

TENSORRT = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
"""TensorRT 10: what onnxruntime is built for. TensorRT 11 has other names and cannot stand in."""

_HOMES = ("nvidia", "tensorrt_libs")
"""Packages whose folders hold NVIDIA's libraries, outside of the loader's own paths."""


def cuda_libraries(major: str) -> tuple[str, ...]:
    """What the CUDA provider of an onnxruntime for CUDA ``major`` needs, dependencies first."""
    own = (f"lib{name}.so.{major}" for name in ("cudart", "cublasLt", "cublas"))
    return (*own, "libcurand.so.10", "libcudnn.so.9")


def first_missing(names: Sequence[str]) -> str | None:
    """Load libraries for the whole process, in order; the first that cannot be, or None."""
    return next((name for name in names if not load(name)), None)


def load(name: str) -> bool:
    """Load one library by name, or from the folder of the pip package that brought it.

    The provider's own file is linked to bare names, which the loader resolves to what is loaded
    already: loading by full path here saves everybody from setting LD_LIBRARY_PATH.
    """
    for path in (name, *map(str, _places(name))):
        try:
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return True
    return False


def tensorrt_elsewhere() -> str | None:
    """The version of an installed TensorRT package, whichever it is, or None."""
    for name in ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def tensorrt_version() -> str:
    """The version of the TensorRT library that is loaded, such as ``10.14.1``."""
    number: int = ctypes.CDLL(TENSORRT[0]).getInferLibVersion()
    return f"{number // 10_000}.{number % 10_000 // 100}.{number % 100}"


def _places(name: str) -> Iterator[Path]:
    for home in _HOMES:
        spec = importlib.util.find_spec(home)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            yield from sorted(Path(folder).glob(name))
            yield from sorted(Path(folder).glob(f"*/lib/{name}"))
