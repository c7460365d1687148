"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lloss.errors import LlossError

_TOKEN = 4
_HEX = "[0-9a-f]"


def within(folder: Path, written: Path) -> Path:
    """Return ``folder / written``, shorter where ``written`` begins with ``..`` as in ``a/../b``.

    Behind a link ``..`` leads elsewhere, and stays.
    """
    ups = sum(1 for _ in itertools.takewhile(lambda part: part == os.pardir, written.parts))
    above = folder.joinpath(*written.parts[:ups])
    short = Path(os.path.normpath(above))
    same = os.path.realpath(short) == os.path.realpath(above)
    return (short if same else above).joinpath(*written.parts[ups:])


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; rename it into place when the block succeeds.

    The file is flushed to disk before the rename, so that a crash leaves the old file or the new
    one. When the block fails, what was written is removed and ``path`` is unchanged. A device, such
    as ``/dev/null``, is refused, and ``.``, which names no file.
    """
    if not path.name:
        raise LlossError(f"{path}: is a folder; name a file in it")
    aside = path.with_name(f".{path.name}.{secrets.token_hex(_TOKEN)}.part")
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise LlossError(
                f"{path}: is a device, which a file would replace; choose another name"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise write_error(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside ``path`` to fill; rename it to ``path`` when the block succeeds.

    ``path`` must not exist, or be an empty folder. When the block fails, nothing is left.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise LlossError(f"{path}: exists already; remove it, or choose another name")
    aside = path.with_name(f".{path.name}.{secrets.token_hex(_TOKEN)}.part")
    try:
        aside.mkdir(parents=True)
        yield aside
        if path.exists():
            path.rmdir()
        aside.rename(path)
    except OSError as error:
        raise write_error(error, path) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def temporary_folder(prefix: str, needed: int) -> Iterator[Path]:
    """Yield a folder that is removed in the end; raise ``LlossError`` where its disk is too full.

    It is refused if fewer bytes than ``needed`` are free: a library that cannot write may leave a
    file cut off, and say something else of it later.
    """
    remedy = "free some space, or set TMPDIR to a folder with more, and run it again"
    try:
        with tempfile.TemporaryDirectory(prefix=prefix) as folder:
            if (free := shutil.disk_usage(folder).free) < needed:
                raise LlossError(
                    f"{Path(folder).parent}: {needed / 1e6:.1f} MB are needed for temporary files "
                    f"and {free / 1e6:.1f} MB are free; {remedy}"
                )
            yield Path(folder)
    except OSError as error:
        raise write_error(error, Path(tempfile.gettempdir()), remedy) from error


def sweep(folder: Path) -> None:
    """Remove what killed processes were writing aside in this folder, and nothing else."""
    for path in folder.glob(f".*.{_HEX * 2 * _TOKEN}.part"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path, busy: LlossError | None = None) -> Iterator[None]:
    """Lock a folder for this process, where the system supports it; no file is made.

    A missing folder is created, and removed again if the block fails and leaves it empty. ``busy``
    is raised when another process holds the lock; None waits for it.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(error, folder) from error
    try:
        with _lock(folder, busy):
            yield
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # where it stayed empty
        raise


@contextlib.contextmanager
def _lock(folder: Path, busy: LlossError | None) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError as error:
            raise busy or write_error(error, folder) from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


def write_error(
    error: OSError, path: Path, remedy: str = "free some space and run it again"
) -> LlossError:
    """Make one line of an operating system's error, with a remedy for a full disk.

    Where the error names a file in another folder than that of ``path``, that is the one at fault.
    """
    if isinstance(error.filename, str) and Path(error.filename).parent != path.parent:
        path = Path(error.filename)
    if error.errno == errno.ENOSPC:
        return LlossError(f"{path}: the disk is full; {remedy}")
    if error.errno == errno.EDQUOT:
        return LlossError(f"{path}: your quota of the disk is used up; {remedy}")
    return LlossError(f"{path}: cannot be written: {error.strerror or error}")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with atomic_write(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sha256_of(path: Path) -> str:
    """The hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
