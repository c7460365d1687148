"""The catalog's file: damaged, full, locked, missing, or of another version."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.store import database
from lloss.serve.daemon.store.catalog import Catalog
from lloss.serve.daemon.store.records import PoolRow
from lloss.serve.daemon.store.schema import APPLICATION, STEPS

from lloss.errors import LlossError, SettingsError


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog(tmp_path)
    catalog.pools.put("p", "/p")
    yield catalog
    catalog.close()


def label(catalog: Catalog, images: int, text: str = "cat") -> int:
    return catalog.images.label("p", {f"image {n}": text for n in range(images)})


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys, pathlib\nfrom lloss.serve.daemon.store.catalog import Catalog\n"
    program += f"catalog = Catalog(pathlib.Path(sys.argv[1]))\n{code}"
    command = [sys.executable, "-c", program, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_commit_is_synced(catalog: Catalog) -> None:
    """A kill and a full disk are tested with the whole daemon."""
    with catalog.writing() as db:
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert db.execute("PRAGMA foreign_keys").fetchone()[0] == 1


def test_a_data_dir_has_one_daemon(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="another lloss serve works in this data dir"):
        Catalog(tmp_path)
    catalog.close()
    Catalog(tmp_path).close()


@pytest.mark.parametrize("where", [0, 0.3, 0.6])
def test_a_damaged_file_is_refused_and_kept(catalog: Catalog, tmp_path: Path, where: float) -> None:
    label(catalog, 2000)
    catalog.close()
    path = tmp_path / "catalog.sqlite"
    content = bytearray(path.read_bytes())
    start = int(len(content) * where)
    content[start : start + 9000] = bytes(byte ^ 0xA5 for byte in content[start : start + 9000])
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="is damaged") as error:
        Catalog(tmp_path)
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    assert "moving catalog.sqlite* away" in message and "lloss select" in message
    assert path.read_bytes() == bytes(content)
    path.unlink()
    Catalog(tmp_path).close()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("CREATE TABLE diary (day TEXT)", "is not a catalog of lloss"),
        ("PRAGMA user_version = 7", r"a later lloss \(schema 7, this one reads 3\)"),
    ],
)
def test_other_databases_are_refused(tmp_path: Path, statement: str, message: str) -> None:
    path = tmp_path / "catalog.sqlite"
    if "PRAGMA" in statement:
        Catalog(tmp_path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(statement)
    with pytest.raises(SettingsError, match=message):
        Catalog(tmp_path)
    path.write_text("precious " * 1000)
    with pytest.raises(SettingsError, match="is damaged"):
        Catalog(tmp_path)


def test_an_emptied_file_is_not_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    path.touch()  # as a process that is killed at once leaves it
    Catalog(tmp_path).close()
    (tmp_path / "pools").mkdir()
    path.write_bytes(b"")
    with pytest.raises(SettingsError, match="is damaged .it is empty.*moving catalog.sqlite"):
        Catalog(tmp_path)
    assert path.stat().st_size == 0


def test_version_1_is_upgraded(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite")) as db:
        db.executescript(f"{STEPS[1]}; CREATE TABLE clock (latest REAL NOT NULL)")
        db.execute("CREATE TABLE annotations (number INTEGER)")
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute("PRAGMA user_version = 1")
        db.execute("INSERT INTO pools (name, uri, created) VALUES ('p', '/p', 1)")
        db.execute("INSERT INTO images (pool, id, state, label, changed) "
                   "VALUES (1, 'a', 'labeled', 'cat', 1)")  # fmt: skip
        db.execute("INSERT INTO jobs (id, pool, state, model_sha256, batch_size, created, folder) "
                   "VALUES ('j', 1, 'done', 'x', 8, 1, 'f')")  # fmt: skip
        db.commit()
    for _ in range(2):
        with closing(Catalog(tmp_path)) as catalog, catalog.reading() as read:
            assert catalog.images.label_names("p") == {"cat"}
            assert catalog.jobs.row("j").state == "done"
            assert read.execute("PRAGMA user_version").fetchone()[0] == 3
            tables = {row[0] for row in read.execute("SELECT name FROM sqlite_schema")}
            assert "images" in tables and not tables & {"clock", "annotations"}


def test_damage_of_an_open_file_is_reported(catalog: Catalog, tmp_path: Path) -> None:
    label(catalog, 20_000)
    catalog._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path = tmp_path / "catalog.sqlite"
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(path.stat().st_size - 8192))
    with pytest.raises(LlossError, match="is damaged") as error:
        catalog.images.labels("p")
    assert not isinstance(error.value, SettingsError)
    assert "is damaged" in catalog.problem()


@pytest.mark.parametrize("instead", ["nothing", "its copy", "an empty file"])
def test_nothing_is_written_to_a_removed_file(tmp_path: Path, instead: str) -> None:
    """SQLite would write on, and everything would be lost with the process."""
    data, aside = tmp_path / "data", tmp_path / "aside"
    with closing(Catalog(data)) as catalog:
        data.rename(aside)
        if instead != "nothing":
            data.mkdir()
            (data / "catalog.sqlite").touch()
        if instead == "its copy":
            shutil.copy(aside / "catalog.sqlite", data)
        assert "was removed or replaced" in catalog.problem()
        put = lambda: catalog.pools.put("q", "/q")  # noqa: E731
        for status, act in ((507, put), (503, catalog.pools.rows)):
            with pytest.raises(RequestError, match="put the file back") as error:
                act()
            assert error.value.status == status
        if data.exists():
            shutil.rmtree(data)
        aside.rename(data)
        assert catalog.problem() == "" and put().name == "q"


def test_a_file_that_cannot_grow_is_reported_until_it_can(tmp_path: Path) -> None:
    code = """
import resource, time
from lloss.serve.daemon.errors import RequestError
catalog.pools.put("p", "/p")
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
try:
    catalog.images.label("p", {f"image {n}": "x" * 100 for n in range(20_000)})
except RequestError as error:
    print(error.status, error)
print(repr(catalog.problem())[:20], catalog.images.counts("p").labeled)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
time.sleep(1.1)
print(repr(catalog.problem()), catalog.images.label("p", {"a": "b"}))
"""
    first, second, third = run(code, tmp_path).stdout.splitlines()
    assert first.startswith("507 ") and "catalog.sqlite: cannot be written" in first
    assert second.endswith(" 0") and not second.startswith("''")
    assert third == "'' 1"


def test_a_lock_of_another_process_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.1)
    with closing(Catalog(tmp_path)) as catalog:
        catalog.pools.put("p", "/p")
        with closing(sqlite3.connect(tmp_path / "catalog.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(RequestError, match="locked by another process") as error:
                label(catalog, 1)
            assert (error.value.status, error.value.retry_after) == (503, 1.0)
        assert label(catalog, 1) == 1


def test_a_transaction_is_kept_whole_or_not_at_all(catalog: Catalog) -> None:
    with pytest.raises(ZeroDivisionError), catalog.writing() as db:
        db.execute("DELETE FROM pools")
        raise ZeroDivisionError
    assert catalog.pools.row("p").uri == "/p"


def test_pools_that_are_removed_during_a_listing_are_left_out(catalog: Catalog) -> None:
    for name in ("q", "r"):
        catalog.pools.put(name, "/p")

    def view(row: PoolRow) -> str:
        if row.name == "p":
            catalog.pools.remove("q")
        catalog.images.counts(row.name)
        return row.name

    assert catalog.pools.each(view) == ["p", "r"]
    catalog.close()
    for act in (catalog.pools.rows, lambda: catalog.pools.put("p", "/p")):
        with pytest.raises(RequestError, match="the daemon is shutting down") as error:
            act()
        assert error.value.status == 503
