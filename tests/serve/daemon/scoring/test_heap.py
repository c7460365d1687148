"""Freed memory between pieces that are held: does the system get it back?"""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, re
from lloss.serve.daemon.scoring.heap import give_back

def resident():
    with open("/proc/self/status") as file:
        return int(re.search(r"VmRSS:\\s+(\\d+)", file.read())[1])

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
held = [libc.malloc(60_000) for _ in range(2000)]
for block in held:
    ctypes.memset(block, 1, 60_000)
for number, block in enumerate(held):
    if number % 20:
        libc.free(block)
kept = resident()
give_back()
print(kept - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_freed_memory_goes_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    if subprocess.run(["getconf", "GNU_LIBC_VERSION"], capture_output=True).returncode:
        pytest.skip("another C library, which can do without")
    assert int(done.stdout) > 80_000
