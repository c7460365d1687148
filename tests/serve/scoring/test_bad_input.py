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
from onnx import TensorProto, helper
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
    tiff = bytearray(encode(picture, "TIFF", dpi=(72, 72)))
    start = struct.unpack_from("<I", tiff, 4)[0]
    entries = struct.unpack_from("<H", tiff, start)[0]
    looping, lost_tag = bytearray(tiff), bytearray(tiff)
    struct.pack_into("<I", looping, start + 2 + 12 * entries, start)  # the next directory
    resolution = tiff.index(struct.pack("<HHI", 282, 5, 1))
    struct.pack_into("<I", lost_tag, resolution + 8, 0x7FFFFF00)  # Pillow warns
    files = {
        "looping.tiff": (bytes(looping), SCORED),
        "lost-tag.tiff": (bytes(lost_tag), SCORED),
        "palette.png": (encode(Image.fromarray(picture).convert("P"), transparency=3), SCORED),
        "icc.jpg": (encode(picture, "JPEG", icc_profile=b"garbage" * 99), SCORED),
        "new\nline.png": (encode(picture), SCORED),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "cannot be decoded: .*[Tt]runcated"),
        "zero.png": (b"", "an empty file"),
        "text.jpg": (b"this is a text", "not an image of a known format"),
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
    table = pa.Table.from_batches(ScoresFolder(folder).opened().batches(["id", "loss"]))
    return dict(zip(table["id"].to_pylist(), table["loss"].to_pylist()))


def test_a_pool_of_bad_images_is_scored(
    artifact: Path, encoded: Callable[..., bytes], tmp_path: Path
) -> None:
    pool, clean = tmp_path / "pool", tmp_path / "clean"
    pool.mkdir()
    clean.mkdir()
    expected = fill(pool, encoded)
    arguments = [sys.executable, "-m", "lloss", *command(artifact, pool, tmp_path / "scores")]
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
    main(command(artifact, clean, tmp_path / "alone"))
    # Other batches may round the last bit differently.
    alone = losses_of(tmp_path / "alone")
    assert {id: losses[id] for id in good} == pytest.approx(alone, rel=1e-5, abs=1e-6)


def model_with_weights_elsewhere() -> bytes:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    graph = helper.make_graph(nodes, "g", [x], [y], [weight])
    return bytes(helper.make_model(graph).SerializeToString())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"id,loss\n" * 9, "ONNX file|not an artifact"),
        (None, "no such file; make it with lloss export"),
        (model_with_weights_elsewhere(), "'w' in another file"),
    ],
    ids=["text", "missing", "weights elsewhere"],
)
def test_a_bad_model_file_is_one_line(
    content: bytes | None,
    reason: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    os.mkfifo(tmp_path / "weights.bin")  # a reader of it would wait for ever
    if content is not None:
        (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(SystemExit) as raised:
        main(command(tmp_path / "bad.onnx", photos, tmp_path / "scores"))
    assert raised.value.code == 2
    error = capsys.readouterr().err
    assert re.fullmatch(rf"lloss: .*bad\.onnx: .*({reason}).*\n", error), error
    assert not (tmp_path / "scores").exists()
