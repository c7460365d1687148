"""Freed memory between pieces that are held: does the system get it back?"""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, re
from lloss.serve.daemon.services.memory_trim import trim

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
trim()
print(kept - resident())
"""


ARENAS = """
import ctypes, threading
from lloss.serve.daemon.services.memory_trim import limit_arenas

limit_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
together = threading.Barrier(12)

def allocate():
    together.wait()
    libc.malloc(1000)
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.malloc_stats()
"""


def told(program: str) -> subprocess.CompletedProcess[str]:
    if subprocess.run(["getconf", "GNU_LIBC_VERSION"], capture_output=True).returncode:
        pytest.skip("another C library, which can do without")
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_freed_memory_goes_back() -> None:
    assert int(told(PROGRAM).stdout) > 80_000


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_all_threads_allocate_from_few_arenas() -> None:
    of_all = told(ARENAS.replace("\nlimit_arenas()\n", "\n")).stderr.count("Arena")
    assert told(ARENAS).stderr.count("Arena") <= 2 < of_all
