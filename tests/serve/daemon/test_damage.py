"""Damage that the real process survives: to its catalog, the journal, and parts of scores."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from ...waiting import PATIENCE
from .processes import Process

Start = Callable[..., Process]


def test_a_damaged_catalog_is_one_line_and_stays_as_it_is(start: Start) -> None:
    daemon = start().ready()
    assert daemon.end() == 0
    path = daemon.data / "catalog.sqlite"
    noise = random.Random(0).randbytes(path.stat().st_size - 4096)
    path.write_bytes(path.read_bytes()[:4096] + noise)
    before = path.read_bytes()
    broken = start()
    assert broken.process.wait(PATIENCE) == 2
    line = broken.log_text().splitlines()[-1]
    assert line.startswith("lloss: ") and "catalog.sqlite" in line
    assert path.read_bytes() == before


def test_a_damaged_journal_loses_its_own_content_only(start: Start, folder: Path) -> None:
    daemon = start().ready()
    assert daemon.scored("p", folder / "photos")["state"] == "done"
    assert daemon.end() == 0  # all is in the file itself
    daemon = start().ready()
    assert daemon.ask("POST", "/v1/pools/p/select", {"k": 3})[0] == 200
    assert daemon.end(signal.SIGKILL) == -signal.SIGKILL
    wal = daemon.data / "catalog.sqlite-wal"
    wal.write_bytes(random.Random(0).randbytes(wal.stat().st_size))
    again = start().ready()
    assert again.ask("GET", "/v1/pools/p")[1]["scores"]["scored"] == 60
    assert again.ask("POST", "/v1/pools/p/select", {"k": 3})[0] == 200
    assert again.end() == 0


def test_a_catalog_removed_while_it_runs(start: Start, folder: Path) -> None:
    daemon = start().ready()
    assert daemon.scored("p", folder / "photos")["state"] == "done"
    path = daemon.data / "catalog.sqlite"
    path.rename(folder / "aside")
    for method, route, body in [
        ("POST", "/v1/pools/p/select", {"k": 1}),
        ("GET", "/v1/pools", None),
        ("GET", "/v1/pools/p/preview", None),
    ]:
        status, reply = daemon.ask(method, route, body)
        assert status == 503
        assert "was removed or replaced" in reply["error"]
    assert daemon.ask("GET", "/pools/p")[0] == 503
    status, reply = daemon.ask("GET", "/readyz")
    assert status == 503 and "was removed" in reply["error"]
    assert daemon.infer()[0] == 200 and daemon.ask("GET", "/metrics")[0] == 200
    assert not path.exists()
    (folder / "aside").rename(path)
    assert daemon.ready().ask("POST", "/v1/pools/p/select", {"k": 1})[0] == 200
    assert daemon.end() == 0


def test_a_damaged_part_is_one_line_and_the_pool_can_be_scored_again(
    start: Start, folder: Path
) -> None:
    daemon = start().ready()
    job = daemon.scored("p", folder / "photos")["id"]
    for where in ("scores", "ids", "footer", "cut off", "empty", "gone"):
        (part,) = (daemon.data / "pools/p/scores" / job).glob("part-*")
        damage(part, where)
        for method, route, body in [
            ("POST", "/v1/pools/p/select", {"k": 3}),
            ("POST", "/v1/pools/p/select", {"k": 3, "strategy": "diverse"}),
            ("GET", "/v1/pools/p/preview", None),
        ]:
            status, reply = daemon.ask(method, route, body)
            assert status == 409 and "\n" not in reply["error"] and job in reply["error"], reply
        status, reply = daemon.ask("GET", "/pools/p")
        assert status in (200, 409) and b"<html" in reply
        assert daemon.ask("GET", "/")[0] == 200
        assert daemon.ask("GET", "/v1/pools/p/pending")[1]["total"] == 0
        again = daemon.ended(daemon.ask("POST", "/v1/pools/p/score")[1]["id"])
        assert again["state"] == "done" and again["id"] != job
        job = again["id"]
    assert daemon.ask("POST", "/v1/pools/p/select", {"k": 3})[0] == 200
    assert daemon.end() == 0 and "Traceback" not in daemon.log_text()


def damage(part: Path, where: str) -> None:
    metadata = pq.read_metadata(part)
    whole = bytearray(part.read_bytes())
    if where in ("scores", "ids"):
        names = [metadata.schema.column(n).name for n in range(metadata.num_columns)]
        column = metadata.row_group(0).column(names.index("loss" if where == "scores" else "id"))
        whole[column.data_page_offset + column.total_compressed_size - 9] ^= 64
    elif where == "footer":
        length = int.from_bytes(whole[-8:-4], "little")
        whole[-8 - length : -8 - length // 2] = random.Random(0).randbytes(length - length // 2)
    else:
        whole = whole[:-100] if where == "cut off" else bytearray()
    part.write_bytes(whole)
    if where == "gone":
        part.unlink()
