from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lloss.errors import PoolError
from lloss.pools import open_pool


def test_equal_hashes_of_other_ids_are_no_doubles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lloss.pools.path_list.hash", lambda id: 1, raising=False)
    (tmp_path / "l.txt").write_text("a.jpg\nb.jpg\nc.jpg\n")
    assert list(open_pool(tmp_path / "l.txt").ids()) == ["a.jpg", "b.jpg", "c.jpg"]
    (tmp_path / "m.txt").write_text("a.jpg\nb.jpg\nc.jpg\nb.jpg\n")
    with pytest.raises(PoolError, match=r"'b\.jpg' stands in line 2 and in line 4"):
        open_pool(tmp_path / "m.txt")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells memory by /proc")
def test_a_long_list_is_not_held(tmp_path: Path) -> None:
    with (tmp_path / "l.txt").open("w") as file:
        file.writelines(f"images/of/some/folder/{number:060d}.jpg\n" for number in range(300_000))
    code = f"""
from pathlib import Path
from lloss.pools import open_pool
(Path({str(tmp_path)!r}) / "m.txt").write_text("a.jpg")
held = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4096
small = open_pool({str(tmp_path / "m.txt")!r})
before = held()
pool = open_pool({str(tmp_path / "l.txt")!r})
most = max(held() for number, _ in enumerate(pool) if number % 10_000 == 0)
print(most - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 15e6  # the paths alone are 27 MB
