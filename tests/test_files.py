"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lloss.errors import ImageError, LlossError
from lloss.files import (
    atomic_write,
    locked,
    sweep,
    temporary_folder,
    within,
    write_error,
    write_json,
    write_text,
)

from .small_disk import fill
from .waiting import PATIENCE


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_the_block_ends_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "new" / "a.txt", []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.exists()))
    with atomic_write(path) as aside:
        aside.write_text("first")
        assert aside.parent == path.parent
        assert not path.exists()
    assert synced == [False]  # on disk before the name is
    with atomic_write(path) as one, atomic_write(path) as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
        assert path.read_text() == "first"
    assert path.read_text() in ("one", "two")
    assert _names(path.parent) == ["a.txt"]


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (RuntimeError("stopped"), RuntimeError, "stopped"),
        (KeyboardInterrupt("stopped"), KeyboardInterrupt, "stopped"),
        (ImageError("stopped"), ImageError, "stopped"),
        (
            OSError(errno.ENOSPC, "No space"),
            LlossError,
            "the disk is full; free some space",
        ),
        (OSError(errno.EFBIG, "File too large"), LlossError, "cannot be written: File too large"),
    ],
)
def test_a_failure_leaves_the_old_file_and_no_other(
    tmp_path: Path, error: BaseException, kind: type[BaseException], reason: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(kind, match=reason), atomic_write(path) as aside:
        aside.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["a.txt"]


def test_the_file_that_the_system_names_is_the_one_at_fault(tmp_path: Path) -> None:
    """Be it on another disk."""
    path, other = tmp_path / "a.txt", "/elsewhere/b.txt"
    full = OSError(errno.ENOSPC, "No space left on device", other)
    assert str(write_error(full, path)) == (
        f"{other}: the disk is full; free some space and run it again"
    )
    quota = OSError(errno.EDQUOT, "Disk quota exceeded")
    assert str(write_error(quota, path, "ask for more")) == (
        f"{path}: your quota of the disk is used up; ask for more"
    )


def test_a_path_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for name in ("file/a.txt", "folder", "a" * 300):
        with pytest.raises(LlossError, match="cannot be written") as caught:
            write_text(tmp_path / name, "text")
        assert "\n" not in str(caught.value)
    for nameless in (".", "/"):
        with pytest.raises(LlossError, match="is a folder; name a file in it"):
            write_text(Path(nameless), "text")
    assert _names(tmp_path) == ["file", "folder"]


def test_text_is_utf8_with_unix_line_ends_and_json_is_readable(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "é\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa9\n"
    write_json(tmp_path / "a.json", {"name": "é", "list": [1, 2]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"name": "é", "list": [1, 2]}
    assert '  "name": "é"' in text
    assert text.endswith("}\n")


def test_a_temporary_folder_needs_space_and_leaves_nothing(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    with (
        pytest.raises(LlossError, match=rf"^{disk}: 64\.0 MB are needed .* set TMPDIR to a folder"),
        temporary_folder("lloss-", 64_000_000),
    ):
        pytest.fail("the disk has 32 MB")

    def fill_up() -> None:
        with temporary_folder("lloss-", 1_000_000) as folder:
            (folder / "first").write_bytes(b"fits")
            fill(disk)
            (folder / "second").write_bytes(bytes(8192))

    with pytest.raises(LlossError, match=rf"^{disk}.*: the disk is full; free some space, or set"):
        fill_up()
    assert _names(disk) == ["ballast"]


def test_sweep_removes_what_a_killed_process_left_and_nothing_else(tmp_path: Path) -> None:
    for name in (".model.onnx.0a1b2c3d.part", ".film.mkv.part", "keep.part", ".env"):
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert _names(tmp_path) == [".env", ".film.mkv.part", "keep.part"]


def test_a_locked_folder_is_refused_to_others_and_holds_nothing_new(tmp_path: Path) -> None:
    busy = LlossError("busy")
    code = (
        "import sys; from pathlib import Path; from lloss.errors import LlossError\n"
        "from lloss.files import locked\n"
        "with locked(Path(sys.argv[1]), LlossError('')): print('held', flush=True); input()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=-1, stdout=-1) as child:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        with pytest.raises(LlossError, match="busy"), locked(tmp_path, busy):
            pass
        child.communicate(b"\n", PATIENCE)
    with locked(tmp_path, busy):
        assert list(tmp_path.iterdir()) == []


def test_locking_makes_a_missing_folder_and_removes_it_if_nothing_came_of_it(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "a" / "b"
    with locked(folder, LlossError("busy")):
        assert folder.is_dir()
    assert folder.is_dir()
    for there in (True, False):
        with pytest.raises(LlossError, match="failed"), locked(folder):
            raise LlossError("failed")
        assert folder.exists() is there  # a folder that was there stays
        if there:
            folder.rmdir()
    with pytest.raises(LlossError, match="failed"), locked(folder):
        (folder / "kept").touch()
        raise LlossError("failed")
    assert _names(folder) == ["kept"]
    with pytest.raises(LlossError, match="cannot be written"), locked(folder / "kept" / "c"):
        pass


def test_a_device_is_not_replaced() -> None:
    with pytest.raises(LlossError, match=r"^/dev/null: is a device"):
        write_text(Path("/dev/null"), "x")
    assert Path("/dev/null").is_char_device()


def test_a_path_beside_a_folder_is_written_without_a_detour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    for folder, written, expected in (
        ("a", "../x", "x"),
        ("a/b", "../../x/../y", "x/../y"),  # of the rest nothing is known
        ("a/b", "../x.json?image=m/../n", "a/x.json?image=m/../n"),
        (".", "../x", "../x"),
        ("a", "x", "a/x"),
        ("a", "/x", "/x"),
        ("link", "../x", "link/../x"),  # which is a/x
    ):
        assert str(within(Path(folder), Path(written))) == expected
