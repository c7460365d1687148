"""Nothing is read through links, lists and tables that lead out of the allowed folders."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lloss.errors import ImageError, PoolError
from lloss.pools import open_pool
from lloss.pools.confinement import OUTSIDE, Confinement


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with two images in it, and beside it ``secret/secret.png``."""
    root = tmp_path / "root"
    for folder in ("root/pool", "secret", "root2"):
        (tmp_path / folder).mkdir(parents=True)
    for number, path in enumerate(("root/pool/a.png", "root/pool/b.png", "secret/secret.png")):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / path)
    shutil.copy(tmp_path / "secret/secret.png", tmp_path / "root2/secret.png")
    return root


def read(pool: Any) -> dict[str, str]:
    """What became of each image: "" or the reason."""
    outcome = {}
    for item in pool:
        try:
            item.read()
            outcome[item.id] = ""
        except ImageError as error:
            outcome[item.id] = str(error)
    return outcome


def test_a_link_in_a_folder_is_one_bad_image(root: Path) -> None:
    (root / "pool/link.png").symlink_to("../../secret/secret.png")
    (root / "pool/near.png").symlink_to("a.png")
    pool = open_pool(root / "pool", Confinement([root]))
    assert read(pool) == {"a.png": "", "b.png": "", "link.png": OUTSIDE, "near.png": ""}
    (found,) = pool.find(["link.png"])
    with pytest.raises(ImageError, match=OUTSIDE):
        found.read()
    assert set(read(open_pool(root / "pool")).values()) == {""}  # nobody is confined unasked


def test_a_link_to_a_folder_is_not_listed(root: Path) -> None:
    (root / "pool/zzz").symlink_to("../../secret")
    with pytest.raises(PoolError, match=f"zzz: {OUTSIDE}; remove that link"):
        read(open_pool(root / "pool", Confinement([root])))


def test_a_root_that_only_begins_alike_is_another(root: Path) -> None:
    (root / "pool/link.png").symlink_to("../../root2/secret.png")
    assert read(open_pool(root / "pool", Confinement([root])))["link.png"] == OUTSIDE


def test_a_second_root_and_a_root_that_is_a_link_count(root: Path, tmp_path: Path) -> None:
    (root / "pool/link.png").symlink_to("../../root2/secret.png")
    (tmp_path / "alias").symlink_to(tmp_path / "root2")
    within = Confinement([root, tmp_path / "alias"])
    assert read(open_pool(root / "pool", within))["link.png"] == ""
    assert set(read(open_pool(root / "pool", Confinement(["/"]))).values()) == {""}


def test_a_link_that_is_exchanged_after_the_listing_gains_nothing(root: Path) -> None:
    items = list(open_pool(root / "pool", Confinement([root])))
    (root / "pool/a.png").unlink()
    (root / "pool/a.png").symlink_to("../../secret/secret.png")
    with pytest.raises(ImageError, match=OUTSIDE):
        items[0].read()


@pytest.mark.parametrize("suffix", [".txt", ".csv"])
def test_paths_in_lists(root: Path, suffix: str) -> None:
    paths = ["pool/a.png", "../secret/secret.png", str(root.parent / "secret/secret.png"),
             "pool/../pool/b.png", "/etc/passwd", "pool/../../secret/secret.png"]  # fmt: skip
    listing = root / f"list{suffix}"
    listing.write_text("\n".join([*(["path"] if suffix == ".csv" else []), *paths]) + "\n")
    outcome = read(open_pool(listing, Confinement([root])))
    assert [outcome[path] for path in paths] == ["", OUTSIDE, OUTSIDE, "", OUTSIDE, OUTSIDE]


def test_a_list_that_is_a_link_is_refused(root: Path) -> None:
    (root.parent / "secret/list.txt").write_text("password\n")
    (root / "list.txt").symlink_to("../secret/list.txt")
    with pytest.raises(PoolError, match=OUTSIDE):
        open_pool(root / "list.txt", Confinement([root]))


def test_paths_in_a_table(root: Path) -> None:
    table = pa.table({"path": ["pool/a.png", "../secret/secret.png", "/etc/passwd"]})
    pq.write_table(table, root / "t.parquet")
    outcome = read(open_pool(root / "t.parquet", Confinement([root])))
    assert outcome == {"pool/a.png": "", "../secret/secret.png": OUTSIDE, "/etc/passwd": OUTSIDE}


@pytest.mark.parametrize("make", ["parquet", "arrow", "npy", "npz", "tar"])
def test_a_file_of_images_that_is_a_link_is_refused_and_a_plain_one_is_read(
    root: Path, make: str
) -> None:
    path = root.parent / "secret" / f"images.{make}"
    image = (root / "pool/a.png").read_bytes()
    table = pa.table({"id": ["a"], "image": [image]})
    makers: dict[str, Callable[[], Any]] = {
        "parquet": lambda: pq.write_table(table, path),
        "arrow": lambda: write_arrow(table, path),
        "npy": lambda: np.save(path, np.zeros((2, 8, 8, 3), np.uint8)),
        "npz": lambda: np.savez(path, images=np.zeros((2, 8, 8, 3), np.uint8)),
        "tar": lambda: write_tar(root / "pool/a.png", path),
    }
    makers[make]()
    (root / path.name).symlink_to(path)
    with pytest.raises(PoolError, match=OUTSIDE):
        open_pool(root / path.name, Confinement([root]))
    (root / path.name).unlink()
    shutil.copy(path, root)
    assert set(read(open_pool(root / path.name, Confinement([root]))).values()) == {""}


def write_arrow(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table)


def write_tar(image: Path, path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        tar.add(image, "a.png")


def test_a_folder_of_tables_with_a_link_among_them(root: Path) -> None:
    table = pa.table({"id": ["a"], "image": [(root / "pool/a.png").read_bytes()]})
    (root / "tables").mkdir()
    pq.write_table(table, root / "tables/0.parquet")
    pq.write_table(table, root.parent / "secret/1.parquet")
    (root / "tables/1.parquet").symlink_to("../../secret/1.parquet")
    with pytest.raises(PoolError, match=OUTSIDE):
        read(open_pool(root / "tables", Confinement([root])))


def test_images_of_persons(root: Path) -> None:
    people = [
        {"image": name, "objpos": [4.0, 4.0], "scale_provided": 0.02, "isValidation": 0,
         "joint_self": [[0.0, 0.0, 0.0]] * 16, "img_paths": name}
        for name in ("a.png", "../../secret/secret.png", str(root.parent / "secret/secret.png"))
    ]  # fmt: skip
    (root / "pool/people.json").write_text(json.dumps(people))
    outcome = list(read(open_pool(root / "pool/people.json", Confinement([root]))).values())
    assert outcome == ["", OUTSIDE, OUTSIDE]


def test_a_saved_data_set_that_names_files_elsewhere(root: Path) -> None:
    table = pa.table({"id": ["a"], "image": [(root / "pool/a.png").read_bytes()]})
    with pa.ipc.new_stream(root.parent / "secret/data.arrow", table.schema) as file:
        file.write_table(table)
    (root / "saved").mkdir()
    state = {"_data_files": [{"filename": "../../secret/data.arrow"}], "_split": None}
    (root / "saved/state.json").write_text(json.dumps(state))
    with pytest.raises(PoolError, match=OUTSIDE):
        open_pool(root / "saved", Confinement([root]))
    assert open_pool(root / "saved", Confinement([root.parent])).count() == 1


def test_without_a_proc_file_system_it_is_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readlink = os.readlink

    def none(path: Any, **given: Any) -> Any:
        if str(path).startswith("/proc"):
            raise FileNotFoundError(path)
        return readlink(path, **given)

    (root / "pool/link.png").symlink_to("../../secret/secret.png")
    monkeypatch.setattr(os, "readlink", none)
    outcome = read(open_pool(root / "pool", Confinement([root])))
    assert outcome == {"a.png": "", "b.png": "", "link.png": OUTSIDE}


class FakeStore:
    protocol = ("s3", "s3a")

    @staticmethod
    def _strip_protocol(url: str) -> str:
        return url.partition("://")[2]


@pytest.mark.parametrize(
    ("path", "held"),
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
def test_objects_of_a_store(path: str, held: bool) -> None:
    within = Confinement([], ["s3://bucket/data/", "gs://other"])
    assert within.holds_object(FakeStore(), path) is held


def test_a_remote_list_that_leads_up_is_confined(root: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
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
