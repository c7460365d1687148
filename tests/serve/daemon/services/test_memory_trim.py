"""Freed memory goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEADER = """
import ctypes, re, threading
from lloss.serve.daemon.services.memory_trim import limit_arenas, trim
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
"""

FRAGMENTS = """
def resident():
    with open("/proc/self/status") as file:
        return int(re.search(r"VmRSS:\\s+(\\d+)", file.read())[1])

blocks = [libc.malloc(60_000) for _ in range(2000)]
for block in blocks:
    ctypes.memset(block, 1, 60_000)
for number, block in enumerate(blocks):
    if number % 20:
        libc.free(block)
before = resident()
trim()
assert before - resident() > 80_000
"""

ARENAS = """
limit_arenas()
together = threading.Barrier(12)
threads = [
    threading.Thread(target=lambda: (together.wait(), libc.malloc(1000), together.wait()))
    for _ in range(12)
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.malloc_stats()
"""


def test_memory_goes_back_and_threads_share_two_arenas() -> None:
    if subprocess.run(["getconf", "GNU_LIBC_VERSION"], capture_output=True).returncode:
        pytest.skip("needs glibc")
    for program in (FRAGMENTS, ARENAS):
        command = [sys.executable, "-c", HEADER + program]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.count("Arena") <= 2
