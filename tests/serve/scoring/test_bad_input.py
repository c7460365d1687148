"""What can be wrong with a pool or a model file, through the command."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lloss.cli.main import main
from lloss.scores.scores_folder import ScoresFolder

from ...waiting import PATIENCE

SCORED = ""
"""In place of a reason: the image has a score."""


def fill(pool: Path, encode: Callable[..., bytes]) -> dict[str, str]:
    """Write good and bad files into a folder; return the reason for skipping each."""
    picture = np.random.default_rng(1).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    jpeg = encode(picture, "JPEG")
    frame = jpeg.index(b"\xff\xc0") + 5
    lost_tag = bytearray(encode(picture, "TIFF", dpi=(72, 72)))
    resolution = lost_tag.index(struct.pack("<HHI", 282, 5, 1))
    struct.pack_into("<I", lost_tag, resolution + 8, 0x7FFFFF00)  # Pillow warns
    files = {
        "lost-tag.tiff": (bytes(lost_tag), SCORED),
        "palette.png": (encode(Image.fromarray(picture).convert("P"), transparency=3), SCORED),
        "new\nline.png": (encode(picture), SCORED),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "cannot be decoded: .*[Tt]runcated"),
        "zero.png": (b"", "an empty file"),
        "bomb.jpg": (
            jpeg[:frame] + struct.pack(">HH", 65_500, 65_500) + jpeg[frame + 4 :],
            "declares 65500×65500 pixels, over the limit",
        ),
    }
    for number in range(10):  # between the others by name, so that they share batches
        name = "cehlprtz1q"[number] + "-good.png"
        files[name] = (encode(np.roll(picture, number, 0)), SCORED)
    for name, (raw, _) in files.items():
        (pool / name).write_bytes(raw)
    (pool / "back").symlink_to(pool)
    (pool / "dangling.png").symlink_to("nowhere.png")
    os.mkfifo(pool / "pipe.jpg")
    return {
        **{name: reason for name, (_, reason) in files.items()},
        "dangling.png": "cannot be read: No such file",
        "pipe.jpg": "is not a regular file",
    }


def command(model: Path, pool: Path, out: Path) -> list[str]:
    return ["score", str(model), str(pool), "-o", str(out), "--provider", "cpu", "--batch-size=8"]


def losses_of(folder: Path) -> dict[str, float]:
    table = pa.Table.from_batches(ScoresFolder(folder).opened().scan(["id", "loss"]))
    return dict(zip(table["id"].to_pylist(), table["loss"].to_pylist()))


def test_a_pool_of_bad_images_is_scored(
    onnx_file: Path, encoded: Callable[..., bytes], tmp_path: Path
) -> None:
    pool, clean = tmp_path / "pool", tmp_path / "clean"
    pool.mkdir()
    clean.mkdir()
    expected = fill(pool, encoded)
    arguments = [sys.executable, "-m", "lloss", *command(onnx_file, pool, tmp_path / "scores")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    losses = losses_of(tmp_path / "scores")
    reasons = dict(ScoresFolder(tmp_path / "scores").skipped())
    assert sorted([*losses, *reasons]) == sorted(expected)
    for id, reason in expected.items():
        if reason == SCORED:
            assert np.isfinite(losses[id]), id
        else:
            assert re.match(f".*{reason}", reasons[id]), (id, reasons[id])
            assert "\n" not in reasons[id]
    good = [id for id in expected if id.endswith("-good.png")]
    for id in good:
        (clean / id).write_bytes((pool / id).read_bytes())
    main(command(onnx_file, clean, tmp_path / "alone"))
    # Other batches may round the last bit differently.
    alone = losses_of(tmp_path / "alone")
    assert {id: losses[id] for id in good} == pytest.approx(alone, rel=1e-5, abs=1e-6)
