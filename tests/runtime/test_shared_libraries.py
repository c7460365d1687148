"""Libraries of pip packages are found without LD_LIBRARY_PATH."""

from __future__ import annotations

import ctypes
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lloss.runtime import shared_libraries


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site-packages folder with NVIDIA's packages in it, empty."""
    for folder in ("nvidia/cu13/lib", "nvidia/cudnn/lib", "tensorrt_libs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tensorrt_libs" / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in ("nvidia", "tensorrt_libs"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()
    return tmp_path


def compiled(path: Path, source: str) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{path.name}", "-x", "c", "-", "-o", path]
    subprocess.run(command, input=source, text=True, check=True)


@pytest.mark.parametrize("folder", ["nvidia/cu13/lib", "tensorrt_libs"])
def test_a_library_of_a_package_is_loaded_for_the_process(packages: Path, folder: str) -> None:
    name, symbol = f"liblloss_{len(folder)}.so.9", f"lloss_test_{len(folder)}"
    (packages / "nvidia/cudnn/lib/liblloss_bad.so.1").write_bytes(b"no ELF")
    assert shared_libraries.first_missing([name]) == name
    compiled(packages / folder / name, f"int {symbol}(void) {{ return 42; }}")
    assert shared_libraries.first_missing([name]) is None
    assert shared_libraries.first_missing([name, "liblloss_bad.so.1"]) == "liblloss_bad.so.1"
    assert getattr(ctypes.CDLL(None), symbol)() == 42, "libraries loaded later see it"
    assert ctypes.CDLL(name), "the provider's file asks for the bare name"


def test_the_version_of_tensorrt(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packages / "tensorrt_libs" / "libnvinfer_lloss.so.10"
    compiled(path, "int getInferLibVersion(void) { return 101401; }")
    monkeypatch.setattr(shared_libraries, "TENSORRT", (str(path),))
    assert shared_libraries.tensorrt_version() == "101401"


def test_the_real_packages_are_found() -> None:
    if not list(shared_libraries._packaged("libcublasLt.so.13")):
        pytest.skip("needs NVIDIA's pip packages for CUDA 13")
    # In a process of its own: half a gigabyte of libraries stays mapped.
    code = (
        "from lloss.runtime.shared_libraries import cuda_libraries, first_missing\n"
        "print(first_missing(cuda_libraries('13')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"
