from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lloss.errors import PoolError
from lloss.pools import FolderPool, SubsetPool, open_pool
from lloss.pools.file_walk import SUFFIXES, UNDECODED, PassedOver, is_hidden, suffix_of

fsspec = pytest.importorskip("fsspec")

HIDDEN = [
    ".hidden.png",
    "._a.png",
    "Thumbs.db",
    "__MACOSX/a.png",
    "@eaDir/a.png/SYNO_THUMB.jpg",
    "#recycle/a.png",
    ".ipynb_checkpoints/a-checkpoint.png",
    "sub/.cache/a.png",
]
IMAGES = ["a.png", "b.JFIF", "c.jpe", "sub/d.Pbm", "sub/e.pnm", "sub/f.APNG", "x.jpg/g.png"]
OTHERS = ["notes.json", "sub/more.JSON", "y.xmp", "README", "photo.heic", "sub/photo.CR2"]


@pytest.fixture(params=["local", "remote"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder of a machine or a store; ``_fill`` writes into it."""
    if request.param == "local":
        yield str(tmp_path / "pool")
        return
    yield "memory://walk/pool"
    fsspec.filesystem("memory").rm("/walk", recursive=True)


def _fill(root: str, *names: str) -> str:
    files, path = fsspec.core.url_to_fs(root)
    for name in names:
        files.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
        files.pipe(f"{path}/{name}", _tar("k.png") if name.endswith("tar") else b"x")
    return root


def _tar(*names: str) -> bytes:
    parts = []
    for name in names:
        info = tarfile.TarInfo(name)
        info.size = 1
        parts.append(info.tobuf() + b"x".ljust(512, b"\0"))
    return b"".join(parts) + bytes(1024)


def test_a_folder_is_walked_by_one_rule_wherever_it_is(root: str) -> None:
    pool = open_pool(_fill(root, *HIDDEN, *IMAGES, *OTHERS))
    assert list(pool.ids()) == sorted(IMAGES)
    assert [item.id for item in pool.find(IMAGES)] == IMAGES
    with pytest.raises(PoolError, match="is not in the pool"):
        pool.find(["sub/.cache/a.png"])
    passed = pool.passed_over()
    assert passed is not None
    expected = {"": 1, ".json": 2, ".xmp": 1, ".heic": 1, ".cr2": 1}
    assert (dict(passed.files), passed.hidden) == (expected, len(HIDDEN))
    assert SubsetPool(pool, ["a.png"]).passed_over() is passed
    assert pool.remark() == (
        f"{pool.uri}: passed over 4 other files (2 .json, 1 without suffix, 1 .xmp); "
        "2 images of a format that cannot be decoded (1 .cr2, 1 .heic; convert to JPEG or PNG); "
        "8 hidden or system files or folders"
    )


def test_nothing_is_said_where_nothing_was_passed_over(root: str) -> None:
    pool = open_pool(_fill(root, "a.png"))
    assert list(pool.ids()) == ["a.png"]
    assert pool.remark() == ""


def test_a_root_may_have_any_name(tmp_path: Path) -> None:
    root = tmp_path / ".cache" / "@eaDir"
    _fill(str(root), "a.png")
    assert list(open_pool(root).ids()) == ["a.png"]


def test_a_listing_that_was_not_finished_says_nothing_of_the_rest(tmp_path: Path) -> None:
    pool = FolderPool(Path(_fill(str(tmp_path / "pool"), "a.png", "b/c.png", "b/d.txt")))
    next(iter(pool))
    passed = pool.passed_over()
    assert passed is not None
    assert dict(passed.files) == {".txt": 1}


@pytest.mark.parametrize(
    "names",
    [
        ["README.png", "s.tar"],
        ["a.png", "sub/s.tar"],
        ["s.tar", "sub/a.png"],
        ["sub/a.png", "sub/s.TAR"],
        ["a.jpg", "t.Parquet"],
        ["a.jpg", "deep/er/t.arrow"],
        ["a.jpg", "s.tar.gz"],
    ],
)
def test_a_folder_of_images_and_shards_or_tables_is_refused(root: str, names: list[str]) -> None:
    image = next(name for name in names if suffix_of(name) in SUFFIXES)
    (other,) = set(names) - {image}
    folder, _, name = f"{root}/{other}".rpartition("/")
    with pytest.raises(PoolError) as caught:
        list(open_pool(_fill(root, *names)))
    for part in (repr(image), repr(other), f"'{folder}/*.{name.partition('.')[2]}'"):
        assert part in str(caught.value)


def test_shards_in_folders_of_their_own_are_refused_not_lost(root: str) -> None:
    with pytest.raises(PoolError, match=r"such as 'b/s\.tar'\); give one of them, such as '.*/b'"):
        open_pool(_fill(root, "a.tar", "b/s.tar"))


def test_shards_and_tables_together_are_refused(root: str) -> None:
    with pytest.raises(PoolError, match=r"files of two kinds, s\.tar and t\.parquet"):
        open_pool(_fill(root, "s.tar", "t.parquet"))


def test_what_is_beside_shards_is_counted(root: str) -> None:
    pool = open_pool(_fill(root, "s.tar", "._s.tar", "README.md", "sizes.json"))
    assert list(pool.ids()) == ["k"]
    passed = pool.passed_over()
    assert passed is not None
    assert passed.as_dict() == {".md": 1, ".json": 1, "hidden": 1}
    assert list(open_pool(f"{root}/*.tar").ids()) == ["k"]


def test_a_pool_without_images_names_what_it_holds(root: str) -> None:
    with pytest.raises(PoolError, match=r"holds no image .*; passed over 1 image of a format"):
        open_pool(_fill(root, "a.heic"))


def test_suffixes_with_running_numbers_take_bounded_memory() -> None:
    passed = PassedOver()
    for number in range(5000):
        passed.add(f"slice.{number}")
    passed.add("odd.a\nb")
    assert len(passed.files) <= 1001
    assert passed.files.total() == 5001
    assert "\n" not in passed.text()
    assert len(passed.text()) < 200


def test_names() -> None:
    assert all(map(is_hidden, (".x", "Thumbs.db", "thumbs.db", "__macosx", "@eaDir")))
    assert not any(map(is_hidden, ("x.png", "_x.png", "@x.png", "MACOSX")))
    assert [suffix_of(n) for n in ("a.TAR.gz", "a.b.PNG", "a")] == [".tar.gz", ".png", ""]
    assert not SUFFIXES & UNDECODED
