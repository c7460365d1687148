from __future__ import annotations

import io
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lloss.errors import PoolError
from lloss.pools import open_pool


def _shard(path: Path, *members: str | tarfile.TarInfo, mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for member in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            content = f"in {info.name}".encode() if info.isreg() else b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def _ids(uri: object) -> list[str]:
    return [item.id for item in open_pool(str(uri))]


@pytest.mark.parametrize(("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz"), (".tgz", "w:gz")])
def test_the_id_is_the_key_and_the_image_its_member(tmp_path: Path, suffix: str, mode: str) -> None:
    names = ["a/1.json", "a/1.jpg", "a/1.cls", "a/2.seg.PNG", "b.x/2.webp", "notes.txt"]
    path = _shard(tmp_path / f"s{suffix}", *names, mode=mode)
    items = list(open_pool(path))
    assert [item.id for item in items] == ["a/1", "a/2", "b.x/2"]
    assert [item.read() for item in items] == [b"in a/1.jpg", b"in a/2.seg.PNG", b"in b.x/2.webp"]


def test_names_of_any_length_are_read_whole(tmp_path: Path) -> None:
    name = "/".join(["folder" * 20] * 4)
    assert _ids(_shard(tmp_path / "s.tar", f"{name}.jpg")) == [name]


def test_a_folder_and_a_star_are_all_shards_in_the_order_of_names(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        _shard(tmp_path / f"s{number}.tar", f"{number}.jpg")
    (tmp_path / "readme.txt").write_text("x")
    assert _ids(tmp_path) == ["1", "10", "2"]
    assert _ids(tmp_path / "s1*.tar") == ["1", "10"]
    assert _ids(tmp_path / "s{1..2}.tar") == ["1", "2"]
    with pytest.raises(PoolError, match=r"s3\.tar: no such file"):
        open_pool(str(tmp_path / "s{1..3}.tar"))
    with pytest.raises(PoolError, match="no file matches the pattern"):
        open_pool(str(tmp_path / "t*.tar"))


def test_two_images_of_a_key_need_a_choice(tmp_path: Path) -> None:
    path = _shard(tmp_path / "s.tar", "1.left.jpg", "1.right.jpg", "2.left.jpg", "2.right.jpg")
    with pytest.raises(PoolError, match=r"'1' has two images, \.left\.jpg and \.right\.jpg"):
        open_pool(path)
    items = list(open_pool(f"{path}?image=right.jpg"))
    assert [item.read() for item in items] == [b"in 1.right.jpg", b"in 2.right.jpg"]
    with pytest.raises(PoolError, match="no image"):
        open_pool(f"{path}?image=png")


def test_a_doubled_key_in_a_shard_is_an_error(tmp_path: Path) -> None:
    path = _shard(tmp_path / "s.tar", "1.jpg", "2.jpg", "1.png")
    with pytest.raises(PoolError, match=r"s\.tar: the key '1' comes again"):
        list(open_pool(path))


def test_absolute_and_climbing_names_are_only_names(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    names = ["../secret.jpg", str(secret), "./x.jpg"]
    items = list(open_pool(_shard(tmp_path / "s.tar", *names)))
    assert [item.id for item in items] == ["../secret", str(secret)[:-4], "./x"]
    assert [item.read() for item in items] == [f"in {name}".encode() for name in names]


def test_what_is_no_plain_file_is_passed_over(tmp_path: Path) -> None:
    kinds = (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)
    strange = []
    for number, kind in enumerate(kinds):
        info = tarfile.TarInfo(f"{number}.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        strange.append(info)
    assert _ids(_shard(tmp_path / "s.tar", *strange, "x.jpg")) == ["x"]


def test_a_name_that_is_not_utf8_gets_an_id_that_is(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as t:
        t.addfile(tarfile.TarInfo("caf\xe9\n.jpg"))
    assert _ids(tmp_path / "s.tar") == ["caf\\xe9\n"]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize("padding", [0, 100, 512, 20480])
def test_archives_one_behind_the_other_are_read_to_the_end(
    tmp_path: Path, suffix: str, padding: int
) -> None:
    mode = "w:gz" if suffix == ".tar.gz" else "w"
    parts = [
        _shard(tmp_path / f"{number}{suffix}", f"{number}a.jpg", f"{number}b.jpg", mode=mode)
        for number in range(3)
    ]
    joined = tmp_path / f"joined{suffix}"
    content = b"".join(part.read_bytes() for part in parts) + bytes(padding)
    joined.write_bytes(content)
    expected = [f"{number}{letter}" for number in range(3) for letter in "ab"]
    items = list(open_pool(joined))
    assert [item.id for item in items] == expected
    assert [item.read() for item in items] == [f"in {id}.jpg".encode() for id in expected]
    joined.write_bytes(content[: len(parts[0].read_bytes()) * 2 + 100])
    with pytest.raises(PoolError, match="damaged, or not a tar file"):
        list(open_pool(joined))


@pytest.mark.parametrize("order", [["none", "one"], ["one", "none"], ["none", "one", "none"]])
def test_an_empty_archive_hides_no_other(tmp_path: Path, order: list[str]) -> None:
    parts = {"one": _shard(tmp_path / "1.tar", "1.jpg"), "none": _shard(tmp_path / "0.tar")}
    joined = tmp_path / "joined.tar"
    joined.write_bytes(b"".join(parts[name].read_bytes() for name in order))
    assert _ids(joined) == ["1"]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize("size", [5, 512, 5000])
def test_garbage_behind_the_end_is_an_error(tmp_path: Path, suffix: str, size: int) -> None:
    path = _shard(tmp_path / f"s{suffix}", "1.jpg", mode="w:gz" if suffix == ".tar.gz" else "w")
    with path.open("ab") as file:
        file.write(b"?" * size)
    with pytest.raises(PoolError, match="damaged, or not a tar file"):
        list(open_pool(path))


def test_members_are_taken_by_the_rule_of_folders_and_the_rest_is_counted(tmp_path: Path) -> None:
    link = tarfile.TarInfo("link.jpg")
    link.type, link.linkname = tarfile.LNKTYPE, "1.JFIF"
    members = ["1.JFIF", "1.json", "2.pnm", "._1.png", "__MACOSX/3.png", "a/.git/4.png", link]
    pool = open_pool(_shard(tmp_path / "s.tar", *members, "5.heic", "5.json", "README"))
    assert [item.id for item in pool] == ["1", "2"]
    passed = pool.passed_over()
    assert passed is not None
    counts = {".heic": 1, ".json": 1, "(no suffix)": 1, "(no plain file)": 1, "hidden": 3}
    assert passed.as_dict() == counts


@pytest.mark.parametrize("left", [0, 100, 512, 700, 1024, 1500, 2048, 2560])
def test_a_truncated_tar_is_one_error_wherever_it_was_cut(tmp_path: Path, left: int) -> None:
    path = _shard(tmp_path / "s.tar", "1.jpg", "2.jpg", "3.jpg")  # of 1024 bytes each
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(PoolError, match=r"s\.tar: damaged, or not a tar file") as caught:
        list(open_pool(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
def test_a_truncated_gz_is_one_error(tmp_path: Path, share: float) -> None:
    path = _shard(tmp_path / "s.tar.gz", *(f"{n}.jpg" for n in range(200)), mode="w:gz")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(PoolError, match=r"s\.tar\.gz: damaged, or not a tar file"):
        list(open_pool(path))


def test_garbage_in_the_middle_is_no_end(tmp_path: Path) -> None:
    path = _shard(tmp_path / "s.tar", "1.jpg", "2.jpg", "3.jpg")
    content = bytearray(path.read_bytes())
    content[1024:1536] = b"?" * 512
    path.write_bytes(content)
    with pytest.raises(PoolError, match="damaged"):
        list(open_pool(path))


def test_a_tar_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(PoolError, match="damaged, or not a tar file"):
        open_pool(tmp_path / "s.tar")
    (tmp_path / "dangling.tar").symlink_to("nowhere")
    with pytest.raises(PoolError, match="no such pool"):
        open_pool(tmp_path / "dangling.tar")
    (tmp_path / "x.tar").mkdir()
    with pytest.raises(PoolError, match="no image"):
        open_pool(tmp_path / "x.tar")


def test_members_are_read_by_many_threads(tmp_path: Path) -> None:
    path = _shard(tmp_path / "s.tar", *(f"{number}.jpg" for number in range(500)))
    items = list(open_pool(path))
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(lambda item: item.read(), items))
    assert read == [f"in {number}.jpg".encode() for number in range(500)]


def test_a_tar_cut_while_it_is_read_stops_the_run(tmp_path: Path) -> None:
    path = _shard(tmp_path / "s.tar", "1.jpg")
    (item,) = open_pool(path)
    path.write_bytes(path.read_bytes()[:515])
    with pytest.raises(PoolError, match="became shorter"):
        item.read()
