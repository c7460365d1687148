"""Everything that can be wrong with a pool or a model file, through the command."""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import subprocess
import sys
import zlib
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


def _png(width: int, height: int, body: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _looping_tiff() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 99, 199)).save(buffer, "TIFF")
    raw = bytearray(buffer.getvalue())
    start = struct.unpack_from("<I", raw, 4)[0]
    entries = struct.unpack_from("<H", raw, start)[0]
    struct.pack_into("<I", raw, start + 2 + 12 * entries, start)  # the next directory is this one
    return bytes(raw)


def _tiff_with_a_lost_tag() -> bytes:
    """Pillow warns of it."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 99, 199)).save(buffer, "TIFF", dpi=(72, 72))
    raw = bytearray(buffer.getvalue())
    entry = raw.index(struct.pack("<HHI", 282, 5, 1))  # the resolution, kept elsewhere
    struct.pack_into("<I", raw, entry + 8, 0x7FFFFF00)
    return bytes(raw)


def _files(encode: Callable[..., bytes]) -> dict[str, tuple[bytes, str]]:
    """Files by name, with the reason for skipping each."""
    picture = np.random.default_rng(1).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    image = Image.fromarray(picture)
    png, jpeg = encode(picture, "PNG"), encode(picture, "JPEG")
    frame = jpeg.index(b"\xff\xc0") + 5
    bomb = jpeg[:frame] + struct.pack(">HH", 65_500, 65_500) + jpeg[frame + 4 :]
    frames = {"save_all": True, "append_images": [Image.new("RGB", image.size, "red")]}
    files = {
        "cmyk.jpg": (encode(image.convert("CMYK"), "JPEG"), SCORED),
        "bits.png": (encode(image.convert("1"), "PNG"), SCORED),
        "palette.png": (encode(image.convert("P"), "PNG", transparency=3), SCORED),
        "animated.gif": (encode(image, "GIF", **frames), SCORED),
        "icc.jpg": (encode(image, "JPEG", icc_profile=b"garbage" * 99), SCORED),
        "looping.tiff": (_looping_tiff(), SCORED),
        "lost-tag.tiff": (_tiff_with_a_lost_tag(), SCORED),
        "new\nline.png": (png, SCORED),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "cannot be decoded: .*[Tt]runcated"),
        "header-only.png": (png[:20], "cannot be decoded: Truncated"),
        "zero.png": (b"", "an empty file"),
        "text.jpg": (b"this is a text", "not an image of a known format"),
        "bomb.png": (_png(30_000, 30_000, b""), "declares 30000×30000 pixels, over the limit"),
        "bomb.jpg": (bomb, "declares 65500×65500 pixels, over the limit"),
        "zlib.png": (_png(8, 8, b"\x78\x9c" + b"\xff" * 99), "cannot be decoded"),
    }
    for number in range(10):  # between the others by name, so that they share batches
        name = "cehlprtz1q"[number] + "-good.png"
        files[name] = (encode(np.roll(picture, number, 0), "PNG"), SCORED)
    return files


def _fill(pool: Path, encode: Callable[..., bytes]) -> dict[str, str]:
    """Write all files and other things into a folder; return the reason for each id."""
    files = _files(encode)
    expected = {name: reason for name, (_, reason) in files.items()}
    for name, (raw, _) in files.items():
        (pool / name).write_bytes(raw)
    png = files["new\nline.png"][0]
    (pool / "folder.jpg").mkdir()
    (pool / "folder.jpg" / "inside.png").write_bytes(png)
    expected["folder.jpg/inside.png"] = SCORED
    (pool / "back").symlink_to(pool)
    (pool / "dangling.png").symlink_to("nowhere.png")
    expected["dangling.png"] = "cannot be read: No such file"
    (pool / "loop.png").symlink_to("loop.png")
    expected["loop.png"] = "cannot be read: Too many levels of symbolic links"
    os.mkfifo(pool / "pipe.jpg")
    expected["pipe.jpg"] = "is not a regular file"
    with contextlib.suppress(OSError):  # some file systems take UTF-8 only
        Path(os.fsdecode(bytes(pool) + b"/\xff\xfe.png")).write_bytes(png)
        expected["\\xff\\xfe.png"] = SCORED
    locked = pool / "locked.png"
    locked.write_bytes(png)
    locked.chmod(0)
    expected[locked.name] = SCORED if os.access(locked, os.R_OK) else "cannot be read: Permission"
    return expected


def _command(model: Path, pool: Path, out: Path) -> list[str]:
    return ["score", str(model), str(pool), "-o", str(out), "--provider", "cpu", "--batch-size=8"]


def _losses(folder: Path) -> dict[str, float]:
    table = pa.Table.from_batches(ScoresFolder(folder).opened().batches(["id", "loss"]))
    return dict(zip(table["id"].to_pylist(), table["loss"].to_pylist()))


def test_a_pool_of_bad_images_is_scored(
    artifact: Path, encoded: Callable[..., bytes], tmp_path: Path
) -> None:
    pool, clean = tmp_path / "pool", tmp_path / "clean"
    pool.mkdir()
    clean.mkdir()
    expected = _fill(pool, encoded)
    command = [sys.executable, "-m", "lloss", *_command(artifact, pool, tmp_path / "scores")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr

    losses, reasons = (
        _losses(tmp_path / "scores"),
        dict(ScoresFolder(tmp_path / "scores").skipped()),
    )
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
    main(_command(artifact, clean, tmp_path / "alone"))
    alone = _losses(tmp_path / "alone")
    # Other batches may round the last bit differently.
    assert {id: losses[id] for id in good} == pytest.approx(alone, rel=1e-5, abs=1e-6)


def _reaching_model() -> bytes:
    """An ONNX file whose weights are in another one."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    graph = helper.make_graph(nodes, "g", [value], [out], [weight])
    return bytes(helper.make_model(graph).SerializeToString())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"id,loss\n" * 9, "ONNX file|not an artifact"),
        (None, "no such file; make it with lloss export"),
        (_reaching_model(), "'w' in another file"),
    ],
    ids=["text", "none", "reaching"],
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
        main(_command(tmp_path / "bad.onnx", photos, tmp_path / "scores"))
    assert raised.value.code == 2
    error = capsys.readouterr().err
    assert re.fullmatch(rf"lloss: .*bad\.onnx: .*({reason}).*\n", error), error
    assert not (tmp_path / "scores").exists()
