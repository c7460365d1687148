"""The environment forbids TF32, where the process may set it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lloss.runtime import cuda_driver, tf32


@pytest.fixture(autouse=True)
def maps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A process without the variable and without NVIDIA's libraries; returns its memory map."""
    monkeypatch.setenv(tf32.VARIABLE, "")  # so that it is restored
    del os.environ[tf32.VARIABLE]
    path = tmp_path / "maps"
    path.write_text("7f00 r-xp /usr/lib/libc.so.6\n")
    monkeypatch.setattr(tf32, "_MAPS", path)
    return path


def test_it_is_set_for_all_libraries_of_the_process() -> None:
    tf32.forbid()
    assert tf32.forbidden() and not tf32.possible(0)
    code = "import ctypes; g = ctypes.CDLL(None).getenv; g.restype = ctypes.c_char_p; "
    code += f"from lloss.runtime import tf32; tf32.forbid(); print(g(b'{tf32.VARIABLE}'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "b'0'", "C reads it"


def test_the_users_value_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tf32.VARIABLE, "1")
    tf32.forbid()
    assert os.environ[tf32.VARIABLE] == "1" and not tf32.forbidden()


@pytest.mark.parametrize("library", ["libcublasLt.so.13", "libcudnn.so.9", "libnvinfer.so.10"])
def test_it_is_not_set_after_a_library_has_read_it(maps: Path, library: str) -> None:
    maps.write_text(maps.read_text() + f"7f01 r-xp /opt/nvidia/{library}\n")
    tf32.forbid()
    assert not tf32.forbidden()


def test_a_gpu_without_tf32_needs_nothing(fake_cuda: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = ctypes.CDLL(str(fake_cuda))
    library.fake_gpus(1)
    driver = cuda_driver.Driver(library)
    monkeypatch.setattr(cuda_driver, "driver", lambda: driver)
    assert tf32.possible(0)
    turing = cuda_driver.Gpu("Old", "7.5", "13.0", "")
    monkeypatch.setattr(driver, "gpu", lambda number: turing)
    assert not tf32.possible(0)
