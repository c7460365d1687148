"""WebDataset shards."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lloss.errors import PoolError
from lloss.pools import open_pool, refuse_duplicates

from .pool_files import ids_of, write, write_tar

DAMAGED = "damaged, or not a tar file"


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
def test_the_id_is_the_key_and_the_image_its_member(tmp_path: Path, suffix: str) -> None:
    names = ["a/1.json", "a/1.jpg", "a/1.cls", "a/2.seg.PNG", "b.x/2.webp", "notes.txt"]
    items = list(open_pool(write_tar(tmp_path / f"s{suffix}", names)))
    assert [item.id for item in items] == ["a/1", "a/2", "b.x/2"]
    assert [item.read() for item in items] == [b"in a/1.jpg", b"in a/2.seg.PNG", b"in b.x/2.webp"]


def test_two_images_of_a_key_need_a_choice(tmp_path: Path) -> None:
    names = ["1.left.jpg", "1.right.jpg", "2.left.jpg", "2.right.jpg"]
    path = write_tar(tmp_path / "s.tar", names)
    with pytest.raises(PoolError, match=r"'1' has two images, \.left\.jpg and \.right\.jpg"):
        open_pool(path)
    items = list(open_pool(f"{path}?image=right.jpg"))
    assert [item.read() for item in items] == [b"in 1.right.jpg", b"in 2.right.jpg"]
    with pytest.raises(PoolError, match="no image"):
        open_pool(f"{path}?image=png")


def test_a_key_that_comes_again_is_found_with_the_ids(tmp_path: Path) -> None:
    pool = open_pool(write_tar(tmp_path / "s.tar", ["1.jpg", "2.jpg", "1.png"]))
    with pytest.raises(PoolError, match="the id '1' comes twice"):
        refuse_duplicates(pool)


def test_names_are_only_names(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.jpg", b"secret")
    long = "/".join(["folder" * 20] * 4)
    names = ["../secret.jpg", str(secret), "./x.jpg", f"{long}.jpg"]
    items = list(open_pool(write_tar(tmp_path / "s.tar", names)))
    assert [item.id for item in items] == ["../secret", str(secret)[:-4], "./x", long]
    assert [item.read() for item in items] == [f"in {name}".encode() for name in names]


def test_a_name_that_is_not_utf8_gets_an_id_that_is(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as t:
        t.addfile(tarfile.TarInfo("caf\xe9\n.jpg"))
    assert ids_of(tmp_path / "s.tar") == ["caf\\xe9\n"]


def test_members_are_taken_by_the_rule_of_folders_and_others_are_counted(tmp_path: Path) -> None:
    kinds = (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)
    names = ["1.JFIF", "1.json", "2.pnm", "._1.png", "__MACOSX/3.png", "a/.git/4.png", "5.heic",
             "5.json", "README"]  # fmt: skip
    path = write_tar(tmp_path / "s.tar", names)
    with tarfile.open(path, "a") as tar:
        for number, kind in enumerate(kinds):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info, io.BytesIO())
    pool = open_pool(path)
    assert [item.id for item in pool] == ["1", "2"]
    passed = pool.passed_over()
    assert passed is not None
    counts = {".heic": 1, ".json": 1, "(no suffix)": 1, "(no plain file)": 4, "hidden": 3}
    assert passed.as_dict() == counts


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize("padding", [0, 100, 512, 20480])
def test_concatenated_archives_are_read_to_the_end(
    tmp_path: Path, suffix: str, padding: int
) -> None:
    parts = [
        write_tar(tmp_path / f"{number}{suffix}", [f"{number}a.jpg", f"{number}b.jpg"])
        for number in range(3)
    ]
    content = b"".join(part.read_bytes() for part in parts) + bytes(padding)
    joined = write(tmp_path / f"joined{suffix}", content)
    expected = [f"{number}{letter}" for number in range(3) for letter in "ab"]
    items = list(open_pool(joined))
    assert [item.id for item in items] == expected
    assert [item.read() for item in items] == [f"in {id}.jpg".encode() for id in expected]
    joined.write_bytes(content[: len(parts[0].read_bytes()) * 2 + 100])
    with pytest.raises(PoolError, match=DAMAGED):
        list(open_pool(joined))


@pytest.mark.parametrize("order", ["01", "10", "010"])
def test_an_empty_archive_hides_no_other(tmp_path: Path, order: str) -> None:
    write_tar(tmp_path / "1.tar", ["1.jpg"])
    write_tar(tmp_path / "0.tar", [])
    joined = b"".join((tmp_path / f"{name}.tar").read_bytes() for name in order)
    assert ids_of(write(tmp_path / "joined.tar", joined)) == ["1"]


def _damages() -> Iterator[Any]:
    """A suffix, and what becomes of the content of three members of 1024 bytes each."""
    for suffix in (".tar", ".tar.gz"):
        for size in (5, 512, 5000):
            yield suffix, lambda whole, size=size: whole + b"?" * size
    for share in (0, 0.3, 0.6, 0.95):
        yield ".tar.gz", lambda whole, share=share: whole[: int(len(whole) * share)]
    for left in (0, 100, 512, 700, 1024, 1500, 2048, 2560):
        yield ".tar", lambda whole, left=left: whole[:left]
    yield ".tar", lambda whole: whole[:1024] + b"?" * 512 + whole[1536:]
    yield ".tar", lambda whole: b"not a tar at all" * 100


@pytest.mark.parametrize(("suffix", "damage"), _damages())
def test_damage_is_one_error_wherever_it_is(tmp_path: Path, suffix: str, damage: Any) -> None:
    random = np.random.default_rng(0)
    path = write_tar(tmp_path / f"s{suffix}", {f"{n}.jpg": random.bytes(300) for n in range(3)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(PoolError, match=rf"s\{suffix}: {DAMAGED}") as caught:
        list(open_pool(path))
    assert "\n" not in str(caught.value)


def test_a_tar_cut_while_it_is_read_stops_the_run(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", ["1.jpg"])
    (item,) = open_pool(path)
    path.write_bytes(path.read_bytes()[:515])
    with pytest.raises(PoolError, match="became shorter"):
        item.read()
