"""Everything that can be wrong with a pool or a model file, through the real command."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import TensorProto, helper
from PIL import Image

from lloss.cli import main as cli
from lloss.manifest import KEY, read_manifest
from lloss.scores.scores_folder import ScoresFolder

from ...waiting import PATIENCE

ROW = ""
"""In place of a reason: the image has a score."""


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, body: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (_png_chunk(b"IHDR", head), _png_chunk(b"IDAT", body), _png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _jpeg_segment(raw: bytes, marker: int, data: bytes) -> bytes:
    """The JPEG file with one more segment after its start."""
    return raw[:2] + struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data + raw[2:]


def _with_byte(raw: bytes, at: int, value: int) -> bytes:
    return raw[:at] + bytes([value]) + raw[at + 1 :]


def _looping_tiff() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 99, 199)).save(buffer, "TIFF")
    raw = bytearray(buffer.getvalue())
    start = struct.unpack_from("<I", raw, 4)[0]
    entries = struct.unpack_from("<H", raw, start)[0]
    struct.pack_into("<I", raw, start + 2 + 12 * entries, start)  # the next directory is this one
    return bytes(raw)


def _tiff_with_a_lost_tag() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 99, 199)).save(buffer, "TIFF", dpi=(72, 72))
    raw = bytearray(buffer.getvalue())
    entry = raw.index(struct.pack("<HHI", 282, 5, 1))  # the resolution, kept elsewhere
    struct.pack_into("<I", raw, entry + 8, 0x7FFFFF00)
    return bytes(raw)


class _Pictures:
    """Encoded pictures, named after what is wrong with them, with the reason for each."""

    def __init__(self, encode: Callable[..., bytes]) -> None:
        self.encode = encode
        self.picture = np.random.default_rng(1).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        self.image = Image.fromarray(self.picture)
        self.png, self.jpeg = encode(self.picture, "PNG"), encode(self.picture, "JPEG")

    def converted(self, mode: str, kind: str = "PNG", **options: Any) -> bytes:
        return self.encode(self.image.convert(mode), kind, **options)

    def valid(self) -> dict[str, bytes]:
        """Odd, and scored."""
        deep = np.random.default_rng(2).integers(0, 65536, (9, 9), dtype=np.uint16)
        frames = [self.image, Image.new("RGB", self.image.size, "red")]
        animated = {"save_all": True, "append_images": frames[1:]}
        huge_exif = _jpeg_segment(self.jpeg, 0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0" + b"x" * 65_000)
        files = {
            "cmyk.jpg": self.converted("CMYK", "JPEG"),
            "cmyk.tiff": self.converted("CMYK", "TIFF"),
            "sixteen.png": self.encode(deep, "PNG"),
            "sixteen.tiff": self.encode(deep, "TIFF"),
            "grey.jpg": self.converted("L", "JPEG"),
            "bits.png": self.converted("1"),
            "palette.png": self.converted("P"),
            "palette-transparent.png": self.converted("P", transparency=3),
            "la.png": self.converted("LA"),
            "rgba.png": self.converted("RGBA"),
            "one.png": self.encode(self.picture[:1, :1], "PNG"),
            "animated.gif": self.encode(frames[0], "GIF", **animated),
            "animated.webp": self.encode(frames[0], "WEBP", **animated),
            "animated.png": self.encode(frames[0], "PNG", **animated),
            "huge-exif.jpg": _jpeg_segment(huge_exif, 0xE1, b"Exif\0\0" + b"y" * 65_000),
            "icc.png": self.encode(self.image, "PNG", icc_profile=b"garbage" * 99),
            "icc.jpg": self.encode(self.image, "JPEG", icc_profile=b"garbage" * 99),
            "looping.tiff": _looping_tiff(),
            "lost-tag.tiff": _tiff_with_a_lost_tag(),  # Pillow warns of it
            "new\nline.png": self.png,
        }
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = orientation
            files[f"exif-{orientation}.jpg"] = self.encode(self.image, "JPEG", exif=exif)
        return files

    def broken(self) -> dict[str, tuple[bytes, str]]:
        """Not scored, each for a reason."""
        frame = self.jpeg.index(b"\xff\xc0") + 5
        size = struct.pack(">HH", 65_500, 65_500)
        return {
            "truncated.jpg": (
                self.jpeg[: len(self.jpeg) // 2],
                "cannot be decoded: .*[Tt]runcated",
            ),
            "truncated.png": (self.png[: len(self.png) // 2], "cannot be decoded: .*[Tt]runcated"),
            "header-only.png": (self.png[:20], "cannot be decoded: Truncated"),
            "zero.png": (b"", "an empty file"),
            "text.jpg": (b"this is a text", "not an image of a known format"),
            "bomb.png": (_png(30_000, 30_000, b""), "declares 30000×30000 pixels, over the limit"),
            "bomb.jpg": (
                self.jpeg[:frame] + size + self.jpeg[frame + 4 :],
                "declares 65500×65500 pixels, over the limit",
            ),
            "twelve-bit.jpg": (_with_byte(self.jpeg, frame - 1, 12), "known format"),
            "crc.png": (_with_byte(self.png, 29, self.png[29] ^ 1), "known format"),
            "zlib.png": (_png(8, 8, b"\x78\x9c" + b"\xff" * 99), "cannot be decoded"),
        }


@pytest.fixture
def made(encoded: Callable[..., bytes]) -> _Pictures:
    return _Pictures(encoded)


def _fill(pool: Path, made: _Pictures) -> dict[str, str]:
    """Write everything into a folder; give what is expected of each id."""
    expected: dict[str, str] = {}
    for name, raw in made.valid().items():
        (pool / name).write_bytes(raw)
        expected[name] = ROW
    for name, (raw, reason) in made.broken().items():
        (pool / name).write_bytes(raw)
        expected[name] = reason
    for number in range(10):  # between the others by name, so that they share batches
        name = "cehlprtz1q"[number] + "-good.png"
        Image.fromarray(np.roll(made.picture, number, 0)).save(pool / name)
        expected[name] = ROW
    (pool / "folder.jpg").mkdir()
    (pool / "folder.jpg" / "inside.png").write_bytes(made.png)
    expected["folder.jpg/inside.png"] = ROW
    (pool / "back").symlink_to(pool)
    (pool / "dangling.png").symlink_to("nowhere.png")
    expected["dangling.png"] = "cannot be read: No such file"
    (pool / "loop.png").symlink_to("loop.png")
    expected["loop.png"] = "cannot be read: Too many levels of symbolic links"
    os.mkfifo(pool / "pipe.jpg")
    expected["pipe.jpg"] = "is not a regular file"
    with contextlib.suppress(OSError):  # some file systems take UTF-8 only
        Path(os.fsdecode(bytes(pool) + b"/\xff\xfe.png")).write_bytes(made.png)
        expected["\\xff\\xfe.png"] = ROW
    locked = pool / "locked.png"
    locked.write_bytes(made.png)
    locked.chmod(0)
    expected[locked.name] = ROW if os.access(locked, os.R_OK) else "cannot be read: Permission"
    return expected


def _command(model: Path, pool: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "lloss", "score", str(model), str(pool), "-o", str(out),
            "--provider", "cpu", *options]  # fmt: skip


def _scored(folder: Path) -> dict[str, float]:
    table = pa.Table.from_batches(ScoresFolder(folder).opened().batches(["id", "loss"]))
    return dict(zip(table["id"].to_pylist(), table["loss"].to_pylist()))


def test_a_pool_with_every_bad_image_is_scored(
    artifact: Path, made: _Pictures, tmp_path: Path
) -> None:
    pool, clean = tmp_path / "pool", tmp_path / "clean"
    for folder in (pool, clean):
        folder.mkdir()
    expected = _fill(pool, made)
    done = subprocess.run(
        _command(artifact, pool, tmp_path / "scores", "--batch-size", "8", "--threads", "2"),
        capture_output=True, text=True, timeout=PATIENCE, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr

    losses = _scored(tmp_path / "scores")
    reasons = dict(ScoresFolder(tmp_path / "scores").skipped())
    assert sorted([*losses, *reasons]) == sorted(expected)
    for id, reason in expected.items():
        if reason == ROW:
            assert np.isfinite(losses[id]), id
        else:
            assert re.match(f".*{reason}", reasons[id]), (id, reasons[id])
            assert "\n" not in reasons[id]

    good = [id for id in expected if id.endswith("-good.png")]
    for id in good:
        (clean / id).write_bytes((pool / id).read_bytes())
    cli_score(artifact, clean, tmp_path / "alone")
    alone = _scored(tmp_path / "alone")
    assert sorted(alone) == sorted(good)
    for id in good:  # in other batches, which may round the last bit otherwise
        assert losses[id] == pytest.approx(alone[id], rel=1e-5, abs=1e-6)


def cli_score(model: Path, pool: Path, out: Path) -> int:
    """``lloss score`` in this process; its exit status."""
    try:
        cli.main(["score", str(model), str(pool), "-o", str(out), "--provider", "cpu"])
    except SystemExit as exit:
        return int(exit.code or 0)
    return 0


def _other_tool(path: Path, weight: TensorProto | None = None) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    graph = helper.make_graph(nodes, "g", [value], [out], [weight] if weight else [])
    path.write_bytes(helper.make_model(graph, producer_name="some-tool").SerializeToString())


def _later_format(artifact: Path, path: Path) -> None:
    model = onnx.load(str(artifact))
    fields = json.loads(read_manifest(artifact).to_json())
    for prop in model.metadata_props:
        if prop.key == KEY:
            prop.value = json.dumps({**fields, "format": 99})
    onnx.save(model, str(path))


BAD_MODELS: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "garbage": (
        lambda path, _: path.write_bytes(np.random.default_rng(0).bytes(4096)),
        "not a readable ONNX file|not an artifact",
    ),
    "zero bytes": (
        lambda path, _: path.write_bytes(b""),
        "not an artifact|not a readable ONNX file",
    ),
    "truncated": (
        lambda path, artifact: path.write_bytes(artifact.read_bytes()[:-1000]),
        "not a readable ONNX file|not an artifact",
    ),
    "another tool's": (lambda path, _: _other_tool(path), "made by some-tool.*no manifest"),
    "a later format": (lambda path, artifact: _later_format(artifact, path), "update lloss"),
    "a folder": (lambda path, _: path.mkdir(), "is a folder"),
    "a text": (lambda path, _: path.write_text("id,loss\n" * 9), "ONNX file|not an artifact"),
    "none": (lambda path, _: None, "no such file; make it with lloss export"),
}


@pytest.mark.parametrize("kind", BAD_MODELS)
def test_a_bad_model_file_is_one_line(
    kind: str, artifact: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, reason = BAD_MODELS[kind]
    make(tmp_path / "bad.onnx", artifact)
    assert cli_score(tmp_path / "bad.onnx", photos, tmp_path / "scores") == 2
    error = capsys.readouterr().err
    assert re.fullmatch(rf"lloss: .*bad\.onnx: .*({reason}).*\n", error), error
    assert not (tmp_path / "scores").exists()


def test_weights_in_another_file_are_refused_before_it_is_opened(
    photos: Path, tmp_path: Path
) -> None:
    """The other file is a pipe: a reader of it waits for ever."""
    os.mkfifo(tmp_path / "weights.bin")
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    _other_tool(tmp_path / "reaching.onnx", weight)
    done = subprocess.run(
        _command(tmp_path / "reaching.onnx", photos, tmp_path / "scores"),
        capture_output=True, text=True, timeout=PATIENCE, check=False)  # fmt: skip
    assert done.returncode == 2
    assert re.fullmatch(r"lloss: .*reaching\.onnx: .*'w' in another file.*\n", done.stderr)
    assert not (tmp_path / "scores").exists()
