"""The environment forbids TF32."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lloss.runtime import tf32


def test_it_is_set_for_all_libraries_of_the_process() -> None:
    code = "import ctypes; g = ctypes.CDLL(None).getenv; g.restype = ctypes.c_char_p; "
    code += f"from lloss.runtime import tf32; tf32.forbid(); print(g(b'{tf32.VARIABLE}'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "b'0'", "C reads it"


def test_the_users_value_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tf32.VARIABLE, "1")
    tf32.forbid()
    assert not tf32.forbidden()
    monkeypatch.setenv(tf32.VARIABLE, "0")
    assert tf32.forbidden()
