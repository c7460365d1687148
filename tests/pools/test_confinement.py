"""Nothing is read through links, lists and tables that lead out of the allowed folders."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lloss.errors import ImageError, PoolError
from lloss.pools import open_pool
from lloss.pools.confinement import OUTSIDE, Confinement

from .pool_files import write, write_table, write_tar


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with two images in it, and beside it ``secret/secret.png``."""
    for number, path in enumerate(("root/pool/a.png", "root/pool/b.png", "secret/secret.png")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / path)
    shutil.copytree(tmp_path / "secret", tmp_path / "root2")
    return tmp_path / "root"


def read(pool: Any) -> dict[str, str]:
    """The outcome of each image: "" or the reason."""
    outcome = {}
    for item in pool:
        try:
            item.read()
            outcome[item.id] = ""
        except ImageError as error:
            outcome[item.id] = str(error)
    return outcome


@pytest.mark.parametrize("proc", [True, False], ids=["proc", "no-proc"])
def test_a_link_in_a_folder_is_one_bad_image(
    root: Path, proc: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    readlink = os.readlink

    def no_proc(path: Any, **given: Any) -> Any:
        if str(path).startswith("/proc"):
            raise FileNotFoundError(path)
        return readlink(path, **given)

    if not proc:
        monkeypatch.setattr(os, "readlink", no_proc)
    (root / "pool/link.png").symlink_to("../../secret/secret.png")
    (root / "pool/near.png").symlink_to("a.png")
    (root / "pool/other.png").symlink_to("../../root2/secret.png")  # another root's name begins so
    pool = open_pool(root / "pool", Confinement([root]))
    outside = {"link.png": OUTSIDE, "other.png": OUTSIDE}
    assert read(pool) == {"a.png": "", "b.png": "", "near.png": "", **outside}
    (found,) = pool.find(["link.png"])
    with pytest.raises(ImageError, match=OUTSIDE):
        found.read()
    for within in (None, Confinement(["/"])):
        assert set(read(open_pool(root / "pool", within)).values()) == {""}


def test_a_link_to_a_folder_is_not_listed(root: Path) -> None:
    (root / "pool/zzz").symlink_to("../../secret")
    with pytest.raises(PoolError, match=f"zzz: {OUTSIDE}; remove that link"):
        read(open_pool(root / "pool", Confinement([root])))


def test_a_second_root_and_a_root_that_is_a_link_count(root: Path, tmp_path: Path) -> None:
    (root / "pool/link.png").symlink_to("../../root2/secret.png")
    (tmp_path / "alias").symlink_to(tmp_path / "root2")
    within = Confinement([root, tmp_path / "alias"])
    assert read(open_pool(root / "pool", within))["link.png"] == ""


def test_a_file_exchanged_for_a_link_after_the_listing_is_not_read(root: Path) -> None:
    items = list(open_pool(root / "pool", Confinement([root])))
    (root / "pool/a.png").unlink()
    (root / "pool/a.png").symlink_to("../../secret/secret.png")
    with pytest.raises(ImageError, match=OUTSIDE):
        items[0].read()


def _persons(names: list[str]) -> bytes:
    return json.dumps([{"image": name, "box": [0, 0, 8, 8]} for name in names]).encode()


@pytest.mark.parametrize("name", ["l.txt", "l.csv", "l.parquet", "l.json"])
def test_paths_in_lists_tables_and_persons(root: Path, name: str) -> None:
    inside = ["pool/a.png", "pool/../pool/b.png"]
    secret = root.parent / "secret/secret.png"
    outside = ["../secret/secret.png", str(secret), "/etc/passwd", "pool/../../secret/secret.png"]
    paths, path = [*inside, *outside], root / name
    if name == "l.parquet":
        write_table(path, {"path": paths})
    elif name == "l.json":
        path.write_bytes(_persons(paths))
    else:
        header = ["path"] if name == "l.csv" else []
        path.write_text("\n".join([*header, *paths]) + "\n")
    outcome = list(read(open_pool(path, Confinement([root]))).values())
    assert outcome == [""] * len(inside) + [OUTSIDE] * len(outside)


@pytest.mark.parametrize(
    "name", ["i.parquet", "i.arrow", "i.npy", "i.npz", "i.tar", "i.txt", "i.json"]
)
def test_a_file_of_images_that_is_a_link_is_refused_and_a_plain_one_is_read(
    root: Path, name: str
) -> None:
    path, image = root.parent / "secret" / name, (root / "pool/a.png").read_bytes()
    images = np.zeros((2, 8, 8, 3), np.uint8)
    makers: dict[str, Callable[[], Any]] = {
        ".npy": lambda: np.save(path, images),
        ".npz": lambda: np.savez(path, images=images),
        ".tar": lambda: write_tar(path, {"a.png": image}),
        ".txt": lambda: write(path, b"pool/a.png\n"),
        ".json": lambda: write(path, _persons(["pool/a.png"])),
    }
    makers.get(path.suffix, lambda: write_table(path, {"id": ["a"], "image": [image]}))()
    (root / name).symlink_to(path)
    with pytest.raises(PoolError, match=OUTSIDE):
        open_pool(root / name, Confinement([root]))
    (root / name).unlink()
    shutil.copy(path, root)
    assert set(read(open_pool(root / name, Confinement([root]))).values()) == {""}


def test_a_saved_data_set_that_names_files_elsewhere(root: Path) -> None:
    columns = {"id": ["a"], "image": [(root / "pool/a.png").read_bytes()]}
    write_table(root.parent / "secret/data.arrow", columns)
    state = {"_data_files": [{"filename": "../../secret/data.arrow"}], "_split": None}
    write(root / "saved/state.json", json.dumps(state).encode())
    with pytest.raises(PoolError, match=OUTSIDE):
        open_pool(root / "saved", Confinement([root]))
    assert open_pool(root / "saved", Confinement([root.parent])).count() == 1


class FakeStore:
    protocol = ("s3", "s3a")

    @staticmethod
    def _strip_protocol(url: str) -> str:
        return url.partition("://")[2]


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("bucket/data/a.png", True),
        ("bucket/data", True),
        ("bucket/database/a.png", False),
        ("bucket", False),
        ("other/data/a.png", False),
        ("bucket/data/../x.png", False),
        ("bucket/data/%2e%2e/x.png", False),
    ],
)
def test_objects_of_a_store(path: str, inside: bool) -> None:
    within = Confinement([], ["s3://bucket/data/", "gs://other"])
    assert within.holds_object(FakeStore(), path) is inside


def test_a_remote_list_that_leads_up_is_confined(root: Path) -> None:
    files = pytest.importorskip("fsspec").filesystem("memory")
    image = (root / "pool/a.png").read_bytes()
    for path in ("/confined/data/a.png", "/confined/secret.png"):
        files.pipe_file(path, image)
    files.pipe_file("/confined/data/list.txt", b"a.png\n../secret.png\n")
    within = Confinement([], ["memory://confined/data"])
    outcome = read(open_pool("memory://confined/data/list.txt", within))
    assert outcome == {"a.png": "", "../secret.png": OUTSIDE}
    with pytest.raises(PoolError, match=OUTSIDE):
        open_pool("memory://confined/secret.png", within)
    files.rm("/confined", recursive=True)
