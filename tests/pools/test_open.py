"""Which pool a string opens, and what every pool refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lloss.errors import PoolError
from lloss.pools import open_pool

from .pool_files import ids_of, random_images, write, write_tar


def test_what_is_not_a_pool_is_an_error_with_the_known_kinds(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"no such pool; give a folder, \.npy"):
        open_pool(tmp_path / "nothing")
    (tmp_path / "dangling.tar").symlink_to("nowhere")
    with pytest.raises(PoolError, match="no such pool"):
        open_pool(tmp_path / "dangling.tar")
    with pytest.raises(PoolError, match="no known kind"):
        open_pool(write(tmp_path / "pool.zip"))
    with pytest.raises(PoolError):
        open_pool("x" * 5000)
    write(tmp_path / "folder/notes.txt")
    with pytest.raises(PoolError, match=r"no image \(looked for .*\.jpg"):
        open_pool(tmp_path / "folder")


def test_stars_and_braces_are_files_in_the_order_of_names(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        write_tar(tmp_path / f"s{number}.tar", [f"{number}.jpg"])
    write(tmp_path / "readme.txt")
    assert ids_of(tmp_path) == ["1", "10", "2"]
    assert ids_of(tmp_path / "s1*.tar") == ["1", "10"]
    assert ids_of(tmp_path / "s{1..2}.tar") == ["1", "2"]
    for pattern, reason in (
        ("s{1..3}.tar", r"s3\.tar: no such file"),
        ("t*.tar", "no file matches the pattern"),
        ("*/t.tar", "only the last part may hold a"),
        ("{s1.tar,readme.txt}", "files of two kinds"),
    ):
        with pytest.raises(PoolError, match=reason):
            open_pool(str(tmp_path / pattern))


def test_an_existing_file_wins_over_options_and_braces(tmp_path: Path) -> None:
    for name in ("a?id=b", "a{b"):
        write(tmp_path / name / "x.jpg")
        assert ids_of(tmp_path / name) == ["x.jpg"]


def test_an_option_of_another_kind_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", random_images(2))
    with pytest.raises(PoolError, match="takes no option 'id'"):
        open_pool(f"{tmp_path / 'a.npy'}?id=name")


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", b"a")
    pool = open_pool(f"file://{tmp_path}")
    assert not pool.remote
    assert [item.read() for item in pool] == [b"a"]
