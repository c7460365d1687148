"""Write pools of every kind, from names and bytes."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from lloss.pools import open_pool


def write(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_tar(path: Path, members: Mapping[str, bytes] | Iterable[str]) -> Path:
    """Compressed unless the suffix is ``.tar``; the content of a bare name is ``in NAME``."""
    if not isinstance(members, Mapping):
        members = {name: f"in {name}".encode() for name in members}
    mode: Any = "w" if path.suffix == ".tar" else "w:gz"
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_table(path: Path, columns: Any, block: int = 5, **options: Any) -> Path:
    """Parquet, or an Arrow stream (``.arrow``), by the suffix."""
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=block, **options)
        return path
    with pa.ipc.new_stream(str(path), table.schema) as file:
        file.write_table(table, max_chunksize=block)
    return path


def random_images(count: int = 40, *shape: int, seed: int = 0) -> NDArray[np.uint8]:
    size = (count, *(shape or (5, 6, 3)))
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def ids_of(uri: object) -> list[str]:
    return [item.id for item in open_pool(str(uri))]


COUNT = 23
CONTENT = [f"image {number}".encode() for number in range(COUNT)]
ROWS = {"id": [f"row {n}" for n in range(COUNT)], "jpg": CONTENT}


def folder_pool(root: Path) -> str:
    for number, content in enumerate(CONTENT):
        write(root / "folder" / f"{number % 3}" / f"{number:02d}.jpg", content)
    return "folder"


def list_pool(root: Path) -> str:
    folder_pool(root)
    lines = [f"folder/{number % 3}/{number:02d}.jpg\n" for number in range(COUNT)]
    (root / "list.txt").write_text("".join(lines))
    return "list.txt"


def npy_pool(root: Path) -> str:
    np.save(root / "a.npy", random_images(COUNT))
    return "a.npy"


def npz_pool(root: Path) -> str:
    np.savez_compressed(root / "a.npz", images=random_images(COUNT))
    return "a.npz"


def tar_pool(root: Path, suffix: str = "tar") -> str:
    for shard in range(3):
        members: dict[str, bytes] = {}
        for number in range(COUNT * shard // 3, COUNT * (shard + 1) // 3):
            members |= {f"{number:02d}.jpg": CONTENT[number], f"{number:02d}.cls": b"0"}
        write_tar(root / f"s-{shard}.{suffix}", members)
    return f"s-{{0..2}}.{suffix}"


def gz_pool(root: Path) -> str:
    return tar_pool(root, "tar.gz")


def parquet_pool(root: Path) -> str:
    (root / "p").mkdir()
    for name, part in (("0", slice(0, 9)), ("1", slice(9, COUNT))):
        columns = {key: values[part] for key, values in ROWS.items()}
        write_table(root / "p" / f"{name}.parquet", columns, block=4)
    return "p"


def stream_pool(root: Path) -> str:
    return write_table(root / "a.arrow", ROWS).name


def numbered_pool(root: Path) -> str:
    return write_table(root / "n.parquet", {"jpg": CONTENT}, block=4).name


def persons_pool(root: Path) -> str:
    for image, pixels in enumerate(random_images(8, 20, 30, 3)):
        Image.fromarray(pixels).save(root / f"{image}.png")
    people = [{"image": f"{n % 8}.png", "center": [n + 1, 10], "scale": 0.05} for n in range(COUNT)]
    (root / "people.json").write_text(json.dumps(people))
    return "people.json"


KINDS = {
    # maker: unique, streamed, indexed
    folder_pool: (True, False, True),
    list_pool: (False, False, False),
    npy_pool: (True, False, True),
    npz_pool: (True, False, True),
    tar_pool: (False, False, False),
    gz_pool: (False, True, False),
    parquet_pool: (False, False, False),
    stream_pool: (False, False, False),
    numbered_pool: (True, False, False),
    persons_pool: (True, False, False),
}


def contents(items: Any) -> list[bytes]:
    read = (item.read() for item in items)
    return [raw if isinstance(raw, bytes) else raw.tobytes() for raw in read]
