"""The catalog's file: damaged, full, held, of another version, and a clock that goes backwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.store import database
from lloss.serve.daemon.store.catalog import Catalog
from lloss.serve.daemon.store.records import PoolRow, StoredReply
from lloss.serve.daemon.store.schema import APPLICATION, STEPS

from lloss.errors import LlossError, SettingsError

from ..disks import Disk
from ..waiting import until


def filled(catalog: Catalog, images: int = 2000) -> None:
    catalog.pools.put("p", "/p")
    catalog.images.label("p", {f"image {n}": "cat" for n in range(images)})


def test_what_was_written_is_there_after_the_process_was_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from lloss.serve.daemon.store.catalog import Catalog\n"
        "catalog = Catalog(Path(sys.argv[1])); catalog.pools.put('p', '/p')\n"
        "catalog.images.hand_out('p', 's', [('a', 1.0), ('b', 0.5)], catalog.now() + 1e6)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    with contextlib.closing(Catalog(tmp_path)) as catalog:
        assert catalog.images.taken("p") == {"a", "b"}


def test_every_commit_is_synced_and_the_journal_is_a_wal(tmp_path: Path) -> None:
    with contextlib.closing(Catalog(tmp_path)) as catalog, catalog._db.writing() as db:
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert db.execute("PRAGMA foreign_keys").fetchone()[0] == 1


def test_two_daemons_never_share_a_data_dir(tmp_path: Path) -> None:
    first = Catalog(tmp_path)
    with pytest.raises(SettingsError, match="another lloss serve works in this data dir"):
        Catalog(tmp_path)
    first.close()
    Catalog(tmp_path).close()


def test_another_process_is_refused_too(tmp_path: Path) -> None:
    code = "import sys; from lloss.serve.daemon.store.catalog import Catalog; Catalog(sys.argv[1])"
    code = code.replace("sys.argv[1]", "__import__('pathlib').Path(sys.argv[1])")
    with contextlib.closing(Catalog(tmp_path)):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert done.returncode == 1 and "another lloss serve works in this data dir" in done.stderr


@pytest.mark.parametrize("where", [0, 0.3, 0.6])
def test_a_damaged_catalog_is_refused_and_left_as_it_is(tmp_path: Path, where: float) -> None:
    with contextlib.closing(Catalog(tmp_path)) as catalog:
        filled(catalog)
    path = tmp_path / "catalog.sqlite"
    whole = bytearray(path.read_bytes())
    start = int(len(whole) * where)
    for n in range(start, start + 9000):
        whole[n] ^= 0xA5
    path.write_bytes(whole)
    with pytest.raises(SettingsError) as error:
        Catalog(tmp_path)
    told = str(error.value)
    assert "\n" not in told and "is damaged" in told and str(path) in told
    assert "moving catalog.sqlite* away" in told and "lloss select" in told
    assert path.read_bytes() == bytes(whole)
    path.rename(tmp_path / "kept")
    Catalog(tmp_path).close()


def test_a_text_file_is_no_catalog(tmp_path: Path) -> None:
    (tmp_path / "catalog.sqlite").write_text("precious " * 1000)
    with pytest.raises(SettingsError, match="is damaged"):
        Catalog(tmp_path)


def test_someone_elses_database_is_refused(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "catalog.sqlite")) as db:
        db.execute("CREATE TABLE diary (day TEXT)")
    with pytest.raises(SettingsError, match="is not a catalog of lloss"):
        Catalog(tmp_path)


def test_a_catalog_of_version_1_is_taken_on(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "catalog.sqlite")) as db:
        for statement in STEPS[1]:
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute("PRAGMA user_version = 1")
        db.execute("INSERT INTO pools (name, uri, created) VALUES ('p', '/p', 1)")
        db.execute("INSERT INTO images (pool, id, state, label, changed) "
                   "VALUES (1, 'a', 'labeled', 'cat', 1)")  # fmt: skip
        db.execute("INSERT INTO jobs (id, pool, state, model_sha256, batch_size, created, folder) "
                   "VALUES ('j', 1, 'done', 'x', 8, 1, 'f')")  # fmt: skip
        db.commit()
    for _ in range(2):
        with contextlib.closing(Catalog(tmp_path)) as catalog:
            assert catalog.images.label_names("p") == {"cat"}
            assert catalog.jobs.row("j").provider == ""
            with catalog.reading() as read:
                assert read.execute("PRAGMA user_version").fetchone()[0] == 2
                assert read.execute("SELECT * FROM annotations").fetchall() == []


def test_a_later_schema_is_refused(tmp_path: Path) -> None:
    Catalog(tmp_path).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "catalog.sqlite")) as db:
        db.execute("PRAGMA user_version = 7")
    with pytest.raises(SettingsError, match=r"a later lloss \(schema 7, this one reads 2\)"):
        Catalog(tmp_path)


def test_a_catalog_that_was_damaged_while_it_is_open_is_told(tmp_path: Path) -> None:
    with contextlib.closing(Catalog(tmp_path)) as catalog:
        filled(catalog, 20_000)
        with catalog._db.writing():
            pass
        catalog._db._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        path = tmp_path / "catalog.sqlite"
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(8192)
            file.write(os.urandom(size - 8192))
        catalog._db._readers.clear()
        with pytest.raises(LlossError, match="is damaged") as error:
            catalog.images.labels("p")
        assert not isinstance(error.value, SettingsError)
        assert "is damaged" in catalog.problem()


@pytest.mark.parametrize("instead", ["nothing", "its copy", "an empty file"])
def test_a_catalog_that_was_removed_while_it_is_open_takes_nothing(
    tmp_path: Path, instead: str
) -> None:
    """SQLite would write on, and all of it would be gone with the process."""
    data, aside = tmp_path / "data", tmp_path / "aside"
    with contextlib.closing(Catalog(data)) as catalog:
        catalog.pools.put("p", "/p")
        data.rename(aside)
        if instead != "nothing":
            data.mkdir()
        if instead == "its copy":
            shutil.copy(aside / "catalog.sqlite", data)
        elif instead == "an empty file":
            (data / "catalog.sqlite").touch()
        assert "was removed or replaced" in catalog.problem()
        for status, act in ((507, lambda: catalog.pools.put("q", "/q")), (503, catalog.pools.rows)):
            with pytest.raises(RequestError, match="put the file back") as error:
                act()
            assert error.value.status == status
        if data.exists():
            shutil.rmtree(data)
        aside.rename(data)
        assert catalog.problem() == "" and catalog.pools.put("q", "/q").name == "q"


def test_a_full_disk_is_told_and_the_catalog_works_again(disk: Disk) -> None:
    with contextlib.closing(Catalog(disk.path)) as catalog:
        catalog.pools.put("p", "/p")
        catalog.images.label("p", {"kept": "cat"})
        assert catalog.problem() == ""
        disk.fill()
        with pytest.raises(RequestError, match="make room") as error:
            catalog.images.label("p", {f"image {n} {'x' * 200}": "dog" for n in range(20_000)})
        assert error.value.status == 507 and "catalog.sqlite" in str(error.value)
        assert "make room" in catalog.problem()
        assert catalog.images.labels("p") == {"kept": "cat"}
        disk.make_room()
        until(lambda: catalog.problem() == "", told=catalog.problem)
        assert catalog.images.label("p", {"more": "dog"}) == 1
    with contextlib.closing(Catalog(disk.path)) as catalog:
        assert catalog.images.labels("p") == {"kept": "cat", "more": "dog"}


def test_a_file_that_may_not_grow_is_told_and_works_again(tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from lloss.serve.daemon.store.catalog import Catalog
from lloss.serve.daemon.errors import RequestError
catalog = Catalog(Path(sys.argv[1]))
catalog.pools.put("p", "/p")
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
try:
    catalog.images.label("p", {f"image {n}": "x" * 100 for n in range(20_000)})
except RequestError as error:
    print(error.status, error)
print(repr(catalog.problem())[:20], catalog.images.counts("p").labeled)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
import time; time.sleep(1.1)
print(repr(catalog.problem()), catalog.images.label("p", {"a": "b"}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    first, second, third = done.stdout.splitlines()
    assert first.startswith("507 ") and "catalog.sqlite: cannot be written" in first
    assert second.endswith(" 0") and not second.startswith("''")
    assert third == "'' 1"


def test_a_catalog_that_cannot_be_written_is_refused_at_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Catalog(tmp_path).close()
    connect = sqlite3.connect

    def read_only(path: Path, *given: object, **options: object) -> sqlite3.Connection:
        return connect(f"file:{path}?mode=ro", *given, uri=True, **options)  # type: ignore

    monkeypatch.setattr(database.sqlite3, "connect", read_only)
    with pytest.raises(SettingsError, match="cannot be written"):
        Catalog(tmp_path)


def test_a_stranger_who_holds_the_file_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.2)
    with contextlib.closing(Catalog(tmp_path)) as catalog:
        catalog.pools.put("p", "/p")
        stranger = sqlite3.connect(tmp_path / "catalog.sqlite", isolation_level=None)
        stranger.execute("BEGIN IMMEDIATE")
        with pytest.raises(RequestError, match="locked by another process") as error:
            catalog.images.label("p", {"a": "cat"})
        assert (error.value.status, error.value.retry_after) == (503, 1.0)
        stranger.execute("ROLLBACK")
        stranger.close()
        assert catalog.images.label("p", {"a": "cat"}) == 1


def test_what_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    with contextlib.closing(Catalog(tmp_path)) as catalog:
        with pytest.raises(ZeroDivisionError), catalog._db.writing() as db:
            db.execute("INSERT INTO pools (name, uri, created) VALUES ('p', '/p', 0)")
            raise ZeroDivisionError
        assert catalog.pools.rows() == []
        filled(catalog, 1)


def test_readers_see_one_state_while_another_thread_writes(tmp_path: Path) -> None:
    with contextlib.closing(Catalog(tmp_path)) as catalog:
        filled(catalog, 10)
        with catalog._db.reading() as db:
            before = db.execute("SELECT count(*) FROM images").fetchone()[0]
            writer = threading.Thread(target=catalog.images.label, args=("p", {"new": "cat"}))
            writer.start()
            writer.join()
            assert db.execute("SELECT count(*) FROM images").fetchone()[0] == before == 10
        assert catalog.images.counts("p").labeled == 11


def test_threads_write_one_after_another_and_connections_stay_few(tmp_path: Path) -> None:
    with contextlib.closing(Catalog(tmp_path)) as catalog:
        catalog.pools.put("p", "/p")

        def work(number: int) -> None:
            for n in range(20):
                catalog.images.label("p", {f"{number} {n}": "cat"})
                catalog.images.counts("p")

        threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert catalog.images.counts("p").labeled == 16 * 20
        assert len(catalog._db._readers) <= 8


def test_after_closing_it_says_so(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    catalog.close()
    catalog.close()
    for act in (catalog.pools.rows, lambda: catalog.pools.put("p", "/p")):
        with pytest.raises(RequestError, match="the daemon is shutting down") as error:
            act()
        assert error.value.status == 503


class Wall:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.steady = 1e9, 0.0
        monkeypatch.setattr(database.time, "time", lambda: self.wall)
        monkeypatch.setattr(database.time, "monotonic", lambda: self.steady)

    def pass_(self, seconds: float, jump: float = 0.0) -> None:
        self.wall += seconds + jump
        self.steady += seconds


def test_the_clock_goes_on_when_the_systems_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = Wall(monkeypatch)
    clock = database.Clock(0)
    wall.pass_(10)
    assert clock.now() == 1e9 + 10
    wall.pass_(5, jump=-3600)
    assert clock.now() == 1e9 + 15
    wall.pass_(5)
    assert clock.now() == 1e9 + 20
    wall.pass_(5, jump=7200)
    assert clock.now() == wall.wall


def test_pending_images_expire_by_a_clock_that_survives_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = Wall(monkeypatch)
    with contextlib.closing(Catalog(tmp_path)) as catalog:
        catalog.pools.put("p", "/p")
        catalog.images.hand_out("p", "s", [("a", 1.0)], catalog.now() + 100)
        wall.pass_(60)
        catalog.images.label("p", {"b": "cat"})
    wall.pass_(1, jump=-86400)  # a dead battery, and a restart
    with contextlib.closing(Catalog(tmp_path)) as catalog:
        assert catalog.now() >= 1e9 + 60
        assert catalog.images.counts("p").pending == 1
        wall.pass_(41)
        assert catalog.images.counts("p").pending == 0


def test_a_boot_in_the_future_spoils_nothing_of_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wall = Wall(monkeypatch)
    wall.wall = now = 1_800_000_000.0  # 2027
    hour, in_2099 = 3600.0, 4_080_000_000.0
    answer = StoredReply("digest", b"content")
    with contextlib.closing(Catalog(tmp_path)) as catalog:
        catalog.pools.put("p", "/p")
        catalog.images.hand_out("p", "s", [("before", 1.0)], catalog.now() + hour)
        assert catalog.restamped == 0
    wall.wall = in_2099
    with contextlib.closing(Catalog(tmp_path)) as catalog:
        given = [("theirs", 1.0), ("gone", 0.5)]
        catalog.images.hand_out("p", "t", given, catalog.now() + 2 * hour, "key", answer)
        catalog.images.label("p", {"labeled": "cat"})
        wall.pass_(1)
        with catalog.images.marking() as marks:
            marks.give_back("p", ["gone"])
    wall.wall = now + 60
    with contextlib.closing(Catalog(tmp_path)) as catalog:
        assert catalog.now() == now + 60 and catalog.restamped == 1
        pending = {one.id: one.expires for one in catalog.images.pending("p", 9)}
        assert pending == {"before": now + hour, "theirs": now + 60 + 2 * hour}
        assert "clock_was_ahead" in caplog.text
        assert catalog.images.reply("p", "key") == answer
        wall.pass_(hour)
        catalog.images.hand_out("p", "u", [("before", 1.0)], catalog.now() + hour)
        wall.pass_(hour + 1)
        assert catalog.images.counts("p").pending == 0 and catalog.images.counts("p").labeled == 1
        wall.pass_(8 * 86_400)
        catalog.images.hand_out("p", "v", [("gone", 1.0)], catalog.now() + hour)
        assert catalog.images.reply("p", "key") is None, "it is a week old"
    with contextlib.closing(Catalog(tmp_path)) as catalog:
        assert catalog.restamped == 0


@pytest.mark.parametrize(("back", "held"), [(23 * 3600.0, True), (25 * 3600.0, False)])
def test_a_clock_that_is_set_back_by_less_than_a_day_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, back: float, held: bool
) -> None:
    wall = Wall(monkeypatch)
    wall.wall = 1_800_000_000.0
    clock = database.Clock(wall.wall + back)
    assert (clock.now() == wall.wall + back) is held
    wall.wall = 1_000_000_000.0  # a machine that has forgotten the time
    assert database.Clock(1_800_000_000.0).now() == 1_800_000_000.0


def test_leaps_of_the_clock_neither_free_too_early_nor_hold_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = Wall(monkeypatch)
    day, hour = 86_400.0, 3600.0

    def handed_out(catalog: Catalog, id: str) -> None:
        catalog.images.hand_out("p", id, [(id, 1.0)], catalog.now() + hour)

    with contextlib.closing(Catalog(tmp_path)) as catalog:
        catalog.pools.put("p", "/p")
        handed_out(catalog, "early")
        wall.pass_(1, jump=-hour)
        assert catalog.images.taken("p") == {"early"}
        handed_out(catalog, "back")
        assert catalog.images.taken("p") == {"early", "back"}
        wall.pass_(1, jump=hour + day)  # set right, or wrong: both hours are over by it
        assert catalog.images.taken("p") == set()
        handed_out(catalog, "late")
        wall.pass_(1, jump=-day)  # what was handed out since keeps its hour, and no more
        assert catalog.images.taken("p") == {"late"}
        (late,) = catalog.images.pending("p", 10)
        assert late.expires - catalog.now() == hour - 1
    with contextlib.closing(Catalog(tmp_path)) as catalog:
        assert catalog.images.taken("p") == {"late"}
        (late,) = catalog.images.pending("p", 10)
        assert hour - 60 < late.expires - catalog.now() <= hour
        wall.pass_(1, jump=day + 2 * hour)
        assert catalog.images.taken("p") == set()


def test_a_catalog_that_was_cut_off_to_nothing_is_no_new_one(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    path.touch()  # as of a process that was killed in its first moment
    Catalog(tmp_path).close()
    (tmp_path / "pools").mkdir()
    path.write_bytes(b"")
    with pytest.raises(SettingsError, match="is damaged .it is empty.*moving catalog.sqlite"):
        Catalog(tmp_path)
    assert path.stat().st_size == 0
    path.unlink()
    Catalog(tmp_path).close()


def test_a_pool_that_is_removed_while_pools_are_listed_is_left_out(tmp_path: Path) -> None:
    with contextlib.closing(Catalog(tmp_path)) as catalog:
        for name in ("a", "b", "c"):
            catalog.pools.put(name, "/p")

        def view(row: PoolRow) -> str:
            if row.name == "a":
                catalog.pools.remove("b")
            catalog.images.counts(row.name)
            return row.name

        assert catalog.pools.each(view) == ["a", "c"]
        assert catalog.pools.each(lambda row: row.name, slice(1, 5)) == ["c"]
        catalog.images.counts = None  # type: ignore[assignment,method-assign]
        with pytest.raises(TypeError):
            catalog.pools.each(view)
