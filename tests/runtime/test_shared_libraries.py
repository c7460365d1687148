"""Libraries of pip packages are found without LD_LIBRARY_PATH."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lloss.runtime import shared_libraries as libraries


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site-packages folder with NVIDIA's packages in it, empty."""
    for folder in ("nvidia/cu13/lib", "nvidia/cudnn/lib", "tensorrt_libs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tensorrt_libs" / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in ("nvidia", "tensorrt_libs"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()
    return tmp_path


def compiled(path: Path, source: str, *options: str) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(path), *options]
    subprocess.run(command, input=source, text=True, check=True)


@pytest.mark.parametrize("folder", ["nvidia/cu13/lib", "nvidia/cudnn/lib", "tensorrt_libs"])
def test_a_library_of_a_package_is_loaded_for_all(home: Path, folder: str) -> None:
    name = f"lib_lloss_{Path(folder).parts[-2:][0]}.so.9"
    symbol = f"lloss_test_{len(folder)}"
    assert not libraries.load(name)
    compiled(home / folder / name, f"int {symbol}(void) {{ return 42; }}", f"-Wl,-soname,{name}")
    assert libraries.load(name)
    assert getattr(ctypes.CDLL(None), symbol)() == 42, "visible to whatever is loaded later"
    assert ctypes.CDLL(name), "and found by its bare name, as the provider's own file asks for it"


def test_the_first_that_is_missing_is_named(home: Path) -> None:
    compiled(home / "nvidia/cu13/lib/liblloss_one.so.1", "int lloss_one;")
    assert libraries.first_missing(["liblloss_one.so.1"]) is None
    names = ["liblloss_one.so.1", "liblloss_two.so.1", "liblloss_three.so.1"]
    assert libraries.first_missing(names) == "liblloss_two.so.1"


def test_a_damaged_library_is_as_good_as_none(home: Path) -> None:
    (home / "tensorrt_libs" / "liblloss_bad.so.1").write_bytes(b"no ELF")
    assert not libraries.load("liblloss_bad.so.1")


def test_tensorrt_tells_its_version(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home / "tensorrt_libs" / "libnvinfer_lloss.so.10"
    compiled(path, "int getInferLibVersion(void) { return 101401; }")
    monkeypatch.setattr(libraries, "TENSORRT", (str(path),))
    assert libraries.tensorrt_version() == "10.14.1"


def test_both_cuda_majors_name_their_files() -> None:
    for major in ("12", "13"):
        names = libraries.cuda_libraries(major)
        assert names.index(f"libcublasLt.so.{major}") < names.index(f"libcublas.so.{major}")
        assert f"libcudart.so.{major}" in names and "libcudnn.so.9" in names


@pytest.mark.skipif(not importlib.util.find_spec("nvidia"), reason="needs NVIDIA's pip packages")
def test_the_real_packages_are_found() -> None:
    if not list(libraries._places("libcublasLt.so.13")):
        pytest.skip("needs the CUDA 13 packages")
    # In a process of its own: half a gigabyte of libraries stays mapped.
    code = (
        "from lloss.runtime import shared_libraries as l; names = l.cuda_libraries('13'); "
        "print(l.first_missing(names))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"
