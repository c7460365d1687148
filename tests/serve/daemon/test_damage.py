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


def test_a_damaged_journal_loses_its_own_content_and_a_damaged_catalog_is_refused(
    start: Start, folder: Path
) -> None:
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
    path = daemon.data / "catalog.sqlite"
    noise = random.Random(0).randbytes(path.stat().st_size - 4096)
    path.write_bytes(path.read_bytes()[:4096] + noise)
    before = path.read_bytes()
    broken = start()
    assert broken.process.wait(PATIENCE) == 2
    line = broken.log_text().splitlines()[-1]
    assert line.startswith("lloss: ") and "catalog.sqlite" in line
    assert path.read_bytes() == before


def test_a_damaged_part_is_one_line_and_the_pool_can_be_scored_again(
    start: Start, folder: Path
) -> None:
    daemon = start().ready()
    job = daemon.scored("p", folder / "photos")["id"]
    for damage in (flip_a_bit, cut_off, Path.unlink):
        (part,) = (daemon.data / "pools/p/scores" / job).glob("part-*")
        damage(part)
        for method, route, body in [
            ("POST", "/v1/pools/p/select", {"k": 3}),
            ("GET", "/v1/pools/p/preview", None),
        ]:
            status, reply = daemon.ask(method, route, body)
            assert status == 409 and "\n" not in reply["error"] and job in reply["error"], reply
        status, reply = daemon.ask("GET", "/pools/p")
        assert status in (200, 409) and b"<html" in reply
        assert daemon.ask("GET", "/v1/pools/p/pending")[1]["total"] == 0
        again = daemon.ended(daemon.ask("POST", "/v1/pools/p/score")[1]["id"])
        assert again["state"] == "done" and again["id"] != job
        job = again["id"]
    assert daemon.ask("POST", "/v1/pools/p/select", {"k": 3})[0] == 200
    assert daemon.end() == 0 and "Traceback" not in daemon.log_text()


def flip_a_bit(part: Path) -> None:
    """In the scores' column."""
    metadata, whole = pq.read_metadata(part), bytearray(part.read_bytes())
    names = [metadata.schema.column(n).name for n in range(metadata.num_columns)]
    column = metadata.row_group(0).column(names.index("loss"))
    whole[column.data_page_offset + column.total_compressed_size - 9] ^= 64
    part.write_bytes(whole)


def cut_off(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-100])
