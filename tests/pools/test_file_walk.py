"""Walk folders by one rule, wherever they are, and count what is passed over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lloss.errors import PoolError
from lloss.pools import FolderPool, SubsetPool, open_pool
from lloss.pools.file_walk import SUFFIXES, PassedOver, is_hidden, suffix_of

from .pool_files import write_tar

fsspec = pytest.importorskip("fsspec")

HIDDEN = [".hidden.png", "._a.png", "Thumbs.db", "__MACOSX/a.png", "@eaDir/a.png/SYNO_THUMB.jpg",
          "#recycle/a.png", ".ipynb_checkpoints/a-checkpoint.png", "sub/.cache/a.png"]  # fmt: skip
IMAGES = ["a.png", "b.JFIF", "c.jpe", "sub/d.Pbm", "sub/e.pnm", "sub/f.APNG", "x.jpg/g.png"]
OTHERS = ["notes.json", "sub/more.JSON", "y.xmp", "README", "photo.heic", "sub/photo.CR2"]


@pytest.fixture(params=["local", "remote"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder of this machine or of a store; ``_fill`` writes into it."""
    if request.param == "local":
        yield str(tmp_path / "pool")
        return
    yield "memory://walk/pool"
    fsspec.filesystem("memory").rm("/walk", recursive=True)


@pytest.fixture
def tar(tmp_path: Path) -> bytes:
    return write_tar(tmp_path / "k.tar", ["k.png"]).read_bytes()


def _fill(root: str, *names: str, tar: bytes = b"x") -> str:
    files, path = fsspec.core.url_to_fs(root)
    for name in names:
        files.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
        files.pipe(f"{path}/{name}", tar if name.endswith("tar") else b"x")
    return root


def _counts(pool: object) -> dict[str, int]:
    passed = pool.passed_over()  # type: ignore[attr-defined]
    assert passed is not None
    return passed.as_dict()  # type: ignore[no-any-return]


def test_a_folder_is_walked_by_one_rule_wherever_it_is(root: str) -> None:
    pool = open_pool(_fill(root, *HIDDEN, *IMAGES, *OTHERS))
    assert list(pool.ids()) == sorted(IMAGES)
    assert [item.id for item in pool.find(IMAGES)] == IMAGES
    with pytest.raises(PoolError, match="is not in the pool"):
        pool.find(["sub/.cache/a.png"])
    expected = {"(no suffix)": 1, ".json": 2, ".xmp": 1, ".heic": 1, ".cr2": 1, "hidden": 8}
    assert _counts(pool) == _counts(SubsetPool(pool, ["a.png"])) == expected
    assert pool.remark() == (
        f"{pool.uri}: passed over 6 other files (2 .json, 1 without suffix, 1 .cr2, 1 .heic, "
        "1 .xmp) and 8 hidden or system files or folders"
    )


def test_a_root_may_have_any_name_and_nothing_to_pass_over(tmp_path: Path) -> None:
    root = tmp_path / ".cache" / "@eaDir"
    _fill(str(root), "a.png")
    pool = open_pool(root)
    assert list(pool.ids()) == ["a.png"]
    assert pool.remark() == ""


def test_an_unfinished_listing_is_repeated_for_the_count(tmp_path: Path) -> None:
    pool = FolderPool(Path(_fill(str(tmp_path / "pool"), "a.png", "b/c.png", "b/d.txt")))
    next(iter(pool))
    assert _counts(pool) == {".txt": 1}


@pytest.mark.parametrize(
    "names",
    [["README.png", "s.tar"], ["s.tar", "sub/a.png"], ["a.jpg", "deep/er/t.Parquet"],
     ["a.jpg", "s.tar.gz"]],
)  # fmt: skip
def test_a_folder_of_images_and_shards_or_tables_is_refused(root: str, names: list[str]) -> None:
    image = next(name for name in names if suffix_of(name) in SUFFIXES)
    (other,) = set(names) - {image}
    folder, _, name = f"{root}/{other}".rpartition("/")
    with pytest.raises(PoolError) as caught:
        list(open_pool(_fill(root, *names)))
    for part in (repr(image), repr(other), f"'{folder}/*.{name.partition('.')[2]}'"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a.tar", "b/s.tar"], r"such as 'b/s\.tar'\); give one of them, such as '.*/b'"),
        (["s.tar", "t.parquet"], r"files of two kinds, s\.tar and t\.parquet"),
        (["a.heic"], r"holds no image .*; passed over 1 other file \(1 \.heic\)"),
    ],
)
def test_a_folder_of_other_files_is_refused(
    root: str, tar: bytes, names: list[str], reason: str
) -> None:
    with pytest.raises(PoolError, match=reason):
        open_pool(_fill(root, *names, tar=tar))


def test_files_beside_shards_are_counted(root: str, tar: bytes) -> None:
    pool = open_pool(_fill(root, "s.tar", "._s.tar", "README.md", "sizes.json", tar=tar))
    assert list(pool.ids()) == ["k"]
    assert _counts(pool) == {".md": 1, ".json": 1, "hidden": 1}
    assert list(open_pool(f"{root}/*.tar").ids()) == ["k"]


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
