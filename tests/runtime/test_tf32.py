"""TF32 is kept out by the environment, where that is ours to set."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lloss.runtime import cuda_driver as cuda
from lloss.runtime import tf32


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No variable, and a process that has loaded nothing of NVIDIA's."""
    monkeypatch.setenv(tf32.VARIABLE, "")  # so that it is put back
    del os.environ[tf32.VARIABLE]
    maps = tmp_path / "maps"
    maps.write_text("7f00 r-xp /usr/lib/libc.so.6\n")
    monkeypatch.setattr(tf32, "_MAPS", maps)
    return maps


def test_it_is_set_for_all_libraries_of_the_process() -> None:
    tf32.forbid()
    assert tf32.forbidden() and not tf32.possible(0)
    code = "import ctypes; g = ctypes.CDLL(None).getenv; g.restype = ctypes.c_char_p; "
    code += f"from lloss.runtime import tf32; tf32.forbid(); print(g(b'{tf32.VARIABLE}'))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "b'0'", "C sees it"


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tf32.VARIABLE, "1")
    tf32.forbid()
    assert os.environ[tf32.VARIABLE] == "1" and not tf32.forbidden()


@pytest.mark.parametrize("library", ["libcublasLt.so.13", "libcudnn.so.9", "libnvinfer.so.10"])
def test_it_is_not_set_when_it_would_come_too_late(unset: Path, library: str) -> None:
    unset.write_text(unset.read_text() + f"7f01 r-xp /opt/nvidia/{library}\n")
    tf32.forbid()
    assert not tf32.forbidden()


def test_a_gpu_without_tf32_needs_nothing(fake_cuda: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = ctypes.CDLL(str(fake_cuda))
    library.fake_gpus(1)
    driver = cuda.Driver(library)
    monkeypatch.setattr(cuda, "driver", lambda: driver)
    assert tf32.possible(0)
    turing = cuda.Gpu("Old", "7.5", "13.0", "")
    monkeypatch.setattr(driver, "gpu", lambda number: turing)
    assert not tf32.possible(0)
