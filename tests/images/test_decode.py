from __future__ import annotations

import contextlib
import io
import json
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin

from lloss.errors import ImageError, SettingsError
from lloss.images import decode as images
from lloss.images.decode import Fit, Frame, ImageSpec, decode, decode_mask, decode_whole, size_of
from lloss.images.memory_budget import ByteBudget

from ..waiting import PATIENCE

Encode = Callable[..., bytes]
EIGHT = ImageSpec(8, 8)


def _random(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _smooth(height: int, width: int) -> NDArray[np.uint8]:
    """Gradients in x, y and both, so that resampling errors at an edge stay small."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 255 / (width - 1), y * 255 / (height - 1), (x + y) * 255 / (width + height - 2)]
    return np.stack(planes, 2).astype(np.uint8)


def _png(width: int, height: int, depth: int, kind: int, rows: bytes) -> bytes:
    """A PNG written by hand: what Pillow itself cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("PPM", {}), ("WEBP", {"lossless": True})],
)
def test_a_lossless_format_gives_back_its_pixels(
    encoded: Encode, kind: str, options: dict[str, Any]
) -> None:
    picture = _random(8, 8, 3)
    assert np.array_equal(decode(encoded(picture, kind, **options), EIGHT), picture)


def test_a_jpeg_comes_back_nearly(encoded: Encode) -> None:
    picture = _smooth(8, 8)
    found = decode(encoded(picture, "JPEG", quality=100, subsampling=0), EIGHT)
    assert np.abs(found.astype(int) - picture).max() <= 6


def test_a_gif_comes_back_with_its_palette(encoded: Encode) -> None:
    picture = np.repeat(np.repeat(_random(2, 2, 3), 4, 0), 4, 1)  # four colours fit any palette
    assert np.array_equal(decode(encoded(picture, "GIF"), EIGHT), picture)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _written_out(raw: bytes, spec: ImageSpec) -> NDArray[np.uint8]:
    """What Pillow's own public calls make of a file, one after the other."""
    with Image.open(io.BytesIO(raw)) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    if spec.fit == "crop":
        scale = min(upright.width / spec.width, upright.height / spec.height)
        size = (scale * spec.width, scale * spec.height)
        corner = ((upright.width - size[0]) / 2, (upright.height - size[1]) / 2)
        box = (*corner, corner[0] + size[0], corner[1] + size[1])
        return np.asarray(upright.resize((spec.width, spec.height), 2, box=box))
    return np.asarray(upright.resize((spec.width, spec.height), 2))


@pytest.mark.parametrize("fit", ["crop", "stretch"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "LA", "RGBA", "CMYK", "YCbCr"])
def test_pixels_are_those_of_pillows_own_calls(encoded: Encode, mode: str, fit: images.Fit) -> None:
    """The decoder takes short cuts; what comes out is what the plain calls give, bit for bit."""
    image = Image.fromarray(_random(48, 64, 3)).convert(mode)
    written = 0
    for kind in images.FORMATS:
        for orientation in range(1, 9) if kind in ("JPEG", "PNG", "TIFF", "WEBP") else (1,):
            try:
                raw = encoded(image, kind, exif=_exif(orientation))
            except (OSError, ValueError):  # a mode that the format cannot hold
                continue
            spec = ImageSpec(12, 12, fit)
            assert np.array_equal(decode(raw, spec), _written_out(raw, spec)), (kind, orientation)
            written += 1
    assert written


def test_an_animation_gives_its_first_frame(encoded: Encode) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        raw = encoded(
            frames[0], kind, save_all=True, append_images=frames[1:], duration=50, lossless=True
        )
        assert decode(raw, EIGHT)[3, 3].tolist() == [255, 0, 0], kind


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_grey_becomes_rgb(encoded: Encode, kind: str) -> None:
    found = decode(encoded(np.full((8, 8), 77, np.uint8), kind), EIGHT)
    assert found.shape == (8, 8, 3)
    assert (found == 77).all()


def test_a_palette_becomes_its_colours(encoded: Encode) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([1, 2, 3, 40, 50, 60])
    assert (decode(encoded(image), EIGHT) == [40, 50, 60]).all()


def test_a_transparent_palette_becomes_its_colours(encoded: Encode) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([1, 2, 3, 40, 50, 60])
    assert (decode(encoded(image, transparency=1), EIGHT) == [40, 50, 60]).all()


def test_transparency_is_dropped_and_the_colour_below_it_kept(encoded: Encode) -> None:
    picture = _random(8, 8, 4)
    assert np.array_equal(decode(encoded(picture), EIGHT), picture[:, :, :3])


def test_grey_with_alpha_becomes_rgb(encoded: Encode) -> None:
    assert (decode(encoded(Image.new("LA", (8, 8), (90, 3))), EIGHT) == 90).all()


def test_cmyk_becomes_rgb(encoded: Encode) -> None:
    raw = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    red = decode(raw, EIGHT)[4, 4].astype(int)
    assert np.abs(red - [255, 0, 0]).max() <= 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_one_bit_becomes_black_and_white(encoded: Encode, kind: str) -> None:
    bits = _random(8, 8) > 127
    found = decode(encoded(Image.fromarray(bits), kind), EIGHT)
    assert np.array_equal(found, np.repeat(bits[:, :, None], 3, 2) * np.uint8(255))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_upper_eight(encoded: Encode, kind: str) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (8, 8), dtype=np.uint16)
    found = decode(encoded(Image.fromarray(values), kind), EIGHT)
    assert np.array_equal(found, np.repeat((values >> 8)[:, :, None], 3, 2))


def test_sixteen_bit_rgb_keeps_its_upper_eight() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (8, 8, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    assert np.array_equal(decode(_png(8, 8, 16, 2, rows), EIGHT), values >> 8)


_UPRIGHT: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
    9: lambda stored: stored,  # no such orientation: as it is
}


@pytest.mark.parametrize("orientation", _UPRIGHT)
def test_each_exif_orientation_is_undone(encoded: Encode, orientation: int) -> None:
    stored = _random(8, 16, 3)
    upright = _UPRIGHT[orientation](stored)
    raw = encoded(stored, "PNG", exif=_exif(orientation))
    assert np.array_equal(decode(raw, ImageSpec(*upright.shape[:2])), upright)


def _told_by_xmp(kind: str, orientation: int) -> dict[str, Any]:
    """How Pillow writes an orientation that only XMP tells."""
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
        f'syntax-ns#"><rdf:Description tiff:Orientation="{orientation}"/></rdf:RDF></x:xmpmeta>'
    )
    if kind == "TIFF":
        return {"tiffinfo": {700: xmp.encode()}}
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp)
        return {"pnginfo": info}
    return {"xmp": xmp.encode()}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_size_is_that_of_the_decoded_image(
    encoded: Encode, kind: str, orientation: int
) -> None:
    """However the orientation is written: boxes and masks are checked by the size alone."""
    for options in ({"exif": _exif(orientation)}, _told_by_xmp(kind, orientation)):
        raw = encoded(_random(20, 30, 3), kind, **options)
        with Image.open(io.BytesIO(raw)) as image:
            upright = ImageOps.exif_transpose(image)
        assert size_of(raw) == decode_whole(raw).shape[:2] == upright.size[::-1]


@pytest.mark.parametrize("told", [0, 9, 255])
def test_an_orientation_that_is_none_turns_nothing(encoded: Encode, told: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = told
    raw = encoded(_random(20, 30, 3), "JPEG", exif=exif)
    assert size_of(raw) == decode_whole(raw).shape[:2] == (20, 30)


def test_a_kind_of_a_known_format_that_cannot_be_read_is_named(encoded: Encode) -> None:
    raw = encoded(Image.fromarray(_random(8, 8)), "TIFF")
    two_bytes = raw.replace(b"\x02\x01\x03\0\x01\0\0\0\x08", b"\x02\x01\x03\0\x01\0\0\0\x07")
    assert two_bytes != raw
    with pytest.raises(ImageError, match="begins as a TIFF, but unknown pixel mode"):
        decode_whole(two_bytes)


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_a_mask_is_turned_as_its_image_is(encoded: Encode, mode: str) -> None:
    values = (_random(8, 16) > 127).astype(np.uint8)
    mask = Image.fromarray(values * 255).convert("1") if mode == "1" else Image.fromarray(values)
    if mode == "P":
        mask.putpalette([9, 9, 9, 200, 1, 1])
    for orientation, upright in _UPRIGHT.items():
        raw = encoded(mask, "PNG", exif=_exif(orientation))
        found = decode_mask(raw)
        assert found.dtype == np.uint8
        assert np.array_equal(found, upright(values)), orientation


def test_what_is_no_mask_is_refused(encoded: Encode) -> None:
    for raw, reason in (
        (encoded(_random(8, 8, 3)), "mode RGB; save"),
        (encoded(Image.fromarray(np.full((8, 8), 300, np.uint16))), "mode I;16; save"),
        (encoded(_random(8, 8), "TIFF"), "format TIFF; save the mask as PNG"),
        (b"", "an empty file"),
        (b"no png", "not an image"),
    ):
        with pytest.raises(ImageError, match=reason):
            decode_mask(raw)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_an_image_comes_upright_by_its_exif_orientation(encoded: Encode, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side: turn it by 90° clockwise
    picture = _smooth(8, 16)
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
    }
    raw = encoded(picture, kind, exif=exif, **options.get(kind, {}))
    upright = np.rot90(picture, -1)
    found = decode(raw, ImageSpec(16, 8))
    assert np.abs(found.astype(int) - upright).max() <= 6


def test_one_pixel_fills_any_input(encoded: Encode) -> None:
    raw = encoded(np.array([[[9, 8, 7]]], np.uint8))
    for fit in ("crop", "pad", "stretch"):
        found = decode(raw, ImageSpec(5, 5, fit))
        assert found.shape == (5, 5, 3)
        assert (found == [9, 8, 7]).all()


@pytest.mark.parametrize("shape", [(1, 500), (500, 1)])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_line_of_pixels_is_resized(
    encoded: Encode, shape: tuple[int, int], fit: images.Fit
) -> None:
    found = decode(encoded(np.full((*shape, 3), 200, np.uint8)), ImageSpec(16, 24, fit))
    assert found.shape == (16, 24, 3)
    assert found.max() == 200


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    for width, height in ((30_000, 30_000), (13_400, 13_400)):
        with pytest.raises(ImageError, match="declares"):
            decode(_png(width, height, 8, 2, b""), EIGHT)


def test_a_bomb_is_refused_where_pillows_own_limit_was_lifted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="declares 30000×30000 pixels, over the limit"):
        decode(_png(30_000, 30_000, 8, 2, b""), EIGHT)


def test_a_large_but_lawful_image_gives_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 40
    )  # 64 pixels: between the warning and the error
    rows = b"".join(b"\0" + bytes([5, 6, 7]) * 8 for _ in range(8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (decode(_png(8, 8, 8, 2, rows), EIGHT) == [5, 6, 7]).all()


def test_decoding_leaves_the_warning_filters_of_the_process_alone(
    encoded: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``warnings.catch_warnings`` is process-wide: threads that use it undo each other's."""
    monkeypatch.setattr(warnings, "catch_warnings", None)
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"):
        decode(encoded(_random(9, 9, 3), kind), EIGHT)


def test_damage_that_is_survived_is_survived_where_warnings_are_errors(encoded: Encode) -> None:
    whole = encoded(_random(8, 8, 3))
    counts = struct.pack(">II", 0, 0)  # an animation of no frames: Pillow warns and goes on
    control = struct.pack(">I", 8) + b"acTL" + counts
    at = whole.index(b"IDAT") - 4
    raw = whole[:at] + control + struct.pack(">I", zlib.crc32(control[4:])) + whole[at:]
    before = list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(decode(raw, EIGHT), decode(whole, EIGHT))
    assert warnings.filters == before


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_truncated_file_is_an_image_error(encoded: Encode, kind: str) -> None:
    raw = encoded(_random(64, 64, 3), kind)
    with pytest.raises(ImageError):
        decode(raw[: len(raw) // 2], EIGHT)


def test_no_bytes_are_an_image_error() -> None:
    with pytest.raises(ImageError, match="empty"):
        decode(b"", EIGHT)


def test_text_is_an_image_error_that_names_the_formats() -> None:
    with pytest.raises(ImageError, match=r"known format.*JPEG"):
        decode(b"this is a text that somebody called picture.jpg", EIGHT)


def test_a_format_outside_the_list_is_refused(encoded: Encode) -> None:
    raw = encoded(_random(8, 8, 3), "TGA")
    with pytest.raises(ImageError, match="known format"):
        decode(raw, EIGHT)


def test_damaged_bytes_raise_nothing_but_an_image_error(encoded: Encode) -> None:
    random = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"):
        whole = np.frombuffer(encoded(_random(16, 16, 3), kind), np.uint8)
        for _ in range(30):
            damaged = whole.copy()
            damaged[random.integers(0, len(damaged), 8)] = random.integers(0, 256, 8)
            with contextlib.suppress(ImageError):
                assert decode(damaged.tobytes(), EIGHT).shape == (8, 8, 3)


@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40)])
def test_crop_cuts_the_middle_square_out(encoded: Encode, height: int, width: int) -> None:
    picture = _smooth(height, width)
    top, left = (height - 40) // 2, (width - 40) // 2
    middle = Image.fromarray(picture).crop((left, top, left + 40, top + 40))
    expected = np.asarray(middle.resize((20, 20), Image.Resampling.BILINEAR), int)
    found = decode(encoded(picture), ImageSpec(20, 20, "crop"))
    assert np.abs(found - expected).max() <= 3  # an edge may see one pixel beyond it


def test_crop_to_a_wide_input_keeps_the_whole_width(encoded: Encode) -> None:
    picture = _smooth(60, 60)
    expected = Image.fromarray(picture).crop((0, 15, 60, 45)).resize((30, 15), 2)
    found = decode(encoded(picture), ImageSpec(15, 30, "crop"))
    assert np.abs(found - np.asarray(expected, int)).max() <= 4


def test_pad_keeps_the_whole_image_between_black_bars(encoded: Encode) -> None:
    picture = np.maximum(_smooth(30, 60), 10)
    inner = Image.fromarray(picture).resize((20, 10), Image.Resampling.BILINEAR)
    found = decode(encoded(picture), ImageSpec(20, 20, "pad"))
    assert (found[:5] == 0).all()
    assert (found[15:] == 0).all()
    assert np.array_equal(found[5:15], np.asarray(inner))


def test_stretch_ignores_the_aspect(encoded: Encode) -> None:
    picture = _smooth(30, 60)
    expected = Image.fromarray(picture).resize((20, 24), Image.Resampling.BILINEAR)
    found = decode(encoded(picture), ImageSpec(24, 20, "stretch"))
    assert np.array_equal(found, np.asarray(expected))


def test_scaling_down_is_antialiased(encoded: Encode) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    found = decode(encoded(stripes), ImageSpec(8, 8))
    assert np.abs(found.astype(int) - 127).max() <= 8


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_an_image_of_the_right_size_is_never_resampled(encoded: Encode, fit: images.Fit) -> None:
    picture = _random(9, 13, 3)
    assert np.array_equal(decode(encoded(picture), ImageSpec(9, 13, fit)), picture)
    assert np.array_equal(decode(picture, ImageSpec(9, 13, fit)), picture)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_an_array_and_a_file_of_it_give_the_same(encoded: Encode, fit: images.Fit) -> None:
    picture, spec = _random(30, 50, 3), ImageSpec(16, 16, fit)
    assert np.array_equal(decode(picture, spec), decode(encoded(picture), spec))


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1)])
def test_a_grey_array_becomes_rgb(shape: tuple[int, ...]) -> None:
    grey = _random(*shape)
    found = decode(grey, EIGHT)
    assert found.shape == (8, 8, 3)
    assert all(np.array_equal(found[:, :, c], grey.reshape(8, 8)) for c in range(3))


def test_an_array_that_is_a_strided_view_is_read_right() -> None:
    whole = _random(16, 16, 3)
    assert np.array_equal(decode(whole[::2, ::-2], EIGHT), whole[::2, ::-2])


@pytest.mark.parametrize("kind", ["float32", "uint16", "bool", "int64"])
def test_an_array_that_is_not_uint8_is_refused(kind: str) -> None:
    with pytest.raises(ImageError, match=kind):
        decode(np.zeros((8, 8, 3), kind), EIGHT)


@pytest.mark.parametrize("shape", [(8, 8, 5), (8, 8, 4), (8, 8, 2), (8,), (2, 8, 8, 3), (0, 8, 3)])
def test_an_array_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="shape"):
        decode(np.zeros(shape, np.uint8), EIGHT)


def _raws(encoded: Encode) -> list[images.Raw]:
    picture = _random(9, 13, 3)
    return [encoded(picture), encoded(picture, "JPEG"), encoded(picture[:, :, 0]), picture,
            picture[:, :, 0], picture[:, :, :1], picture[::-1, ::2]]  # fmt: skip


@pytest.mark.parametrize("spec", [ImageSpec(9, 13), EIGHT, ImageSpec(9, 7, "pad")])
def test_decoding_into_a_row_is_decoding(encoded: Encode, spec: ImageSpec) -> None:
    for raw in _raws(encoded):
        batch = np.full((3, spec.height, spec.width, 3), 99, np.uint8)
        images.decode_into(raw, spec, batch[1])
        assert np.array_equal(batch[1], decode(raw, spec))
        assert (batch[[0, 2]] == 99).all()


def test_decoding_into_a_strided_place_writes_there(encoded: Encode) -> None:
    for raw in _raws(encoded):
        planes = np.full((3, 8, 8), 99, np.uint8)
        images.decode_into(raw, EIGHT, planes.transpose(1, 2, 0))
        assert np.array_equal(planes, decode(raw, EIGHT).transpose(2, 0, 1))


def test_a_broken_image_touches_no_other_place(encoded: Encode) -> None:
    batch = np.full((3, 64, 64, 3), 99, np.uint8)
    whole = encoded(_random(64, 64, 3), "JPEG")
    for raw in (b"", b"text", whole[: len(whole) // 2], np.zeros((2, 2, 4), np.uint8)):
        with pytest.raises(ImageError):
            images.decode_into(raw, ImageSpec(64, 64), batch[1])
    assert (batch[[0, 2]] == 99).all()


@pytest.mark.parametrize("out", [np.zeros((8, 9, 3), np.uint8), np.zeros((8, 8, 3), np.int8)])
def test_a_place_of_another_shape_or_type_is_refused(encoded: Encode, out: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"not uint8 \[8, 8, 3\]"):
        images.decode_into(encoded(_random(8, 8, 3)), EIGHT, out)


def test_an_array_of_the_right_kind_is_not_copied() -> None:
    picture = _random(8, 8, 3)
    assert np.shares_memory(decode(picture, EIGHT), picture)


def test_large_images_wait_for_the_budget_and_small_ones_do_not(
    encoded: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = ByteBudget(10_000_000)
    monkeypatch.setattr(images, "_IN_FLIGHT", budget)
    large, small = encoded(np.zeros((1000, 500, 3), np.uint8)), encoded(_random(9, 9, 3))
    done = threading.Event()
    waiting = threading.Thread(target=lambda: (decode(large, EIGHT), done.set()))
    with budget.holding(budget.total):
        waiting.start()
        decode(small, EIGHT)
        assert not done.wait(0.2)
    assert done.wait(PATIENCE)
    waiting.join()
    assert budget.free == budget.total


_HOLD = """
import re, sys
from pathlib import Path
from lloss.images import decode as images

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1000

class Noted(images.ByteBudget):
    def holding(self, count):
        self.asked = count
        return super().holding(count)

images._IN_FLIGHT = Noted(1 << 30)
images.decode(Path(sys.argv[1]).read_bytes(), images.ImageSpec(8, 8))  # the decoders' own room
before = peak()
images.decode(Path(sys.argv[2]).read_bytes(), images.ImageSpec(8, 8))
print((peak() - before) / images._IN_FLIGHT.asked)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("mode", "kind"), [("RGB", "JPEG"), ("RGBA", "PNG"), ("L", "PNG"), ("RGB", "WEBP")]
)
def test_no_image_takes_more_than_it_holds_of_the_budget(
    encoded: Encode, tmp_path: Path, mode: str, kind: str
) -> None:
    for name, side in (("small", 16), ("large", 2000)):
        image = Image.new(mode, (side, side))
        (tmp_path / name).write_bytes(encoded(image, kind, exif=_exif(6)))
    done = subprocess.run(
        [sys.executable, "-c", _HOLD, tmp_path / "small", tmp_path / "large"],
        capture_output=True, text=True, check=True)  # fmt: skip
    assert 0.5 < float(done.stdout) < 1.15


def test_a_broken_large_image_gives_its_bytes_back(
    encoded: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = ByteBudget(1000)
    monkeypatch.setattr(images, "_IN_FLIGHT", budget)
    raw = encoded(np.zeros((1000, 500, 3), np.uint8), "JPEG")
    for _ in range(3):
        with pytest.raises(ImageError):
            decode(raw[: len(raw) // 2], EIGHT)
        assert decode(raw, EIGHT).shape == (8, 8, 3)
    assert budget.free == budget.total


_PEAK = """
import re, sys
from pathlib import Path
from lloss.errors import ImageError
from lloss.images.decode import Fit, Frame, ImageSpec, decode, decode_whole, size_of

def peak():  # not ru_maxrss: that one is inherited from the parent process
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1000

before = peak()
for path in sys.argv[1:]:
    try:
        decode(open(path, "rb").read(), ImageSpec(8, 8))
    except ImageError as error:
        assert "declares" in str(error), error
    else:
        raise SystemExit(path)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_bombs_take_no_memory(encoded: Encode, tmp_path: Path) -> None:
    """Peak memory of a process that is given images of 0.5 to 17 GB, each in a small file."""
    jpeg = bytearray(encoded(_random(8, 8, 3), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    bombs = {
        "png": _png(30_000, 30_000, 8, 2, b"\0" * 100_000),
        "jpg": bytes(jpeg),
        "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 30_000, 30_000, 1, 24,
                                   0, 0, 0, 0, 0, 0),
        "gif": b"GIF89a" + struct.pack("<HHBBB", 60_000, 60_000, 0, 0, 0)
        + b"," + struct.pack("<HHHHB", 0, 0, 60_000, 60_000, 0) + b"\x02\x02\x4c\x01\0;",
        "webp": b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<II", 10, 0)
        + b"\xff\x3f\0\xff\x3f\0",
        "ppm": b"P6 30000 30000 255\n",
    }  # fmt: skip
    for kind, raw in bombs.items():
        (tmp_path / kind).write_bytes(raw)
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, *(str(tmp_path / kind) for kind in bombs)],
        capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 30  # MB


def test_the_spec_round_trips_through_json() -> None:
    for fit in ("crop", "pad", "stretch"):
        spec = ImageSpec(3, 1000, fit)
        assert ImageSpec.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec


@pytest.mark.parametrize("size", [(0, 8), (8, 0), (8193, 8), (8, -1)])
def test_an_input_size_out_of_bounds_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(SettingsError, match="pixels"):
        ImageSpec(*size)


def test_an_unknown_fit_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"squeeze.*crop, pad, stretch"):
        ImageSpec(8, 8, "squeeze")  # type: ignore[arg-type]


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(64, 48), (31, 90), (32, 48), (200, 151), (10, 300)])
def test_a_frame_says_where_a_dot_of_the_image_is_in_the_input(
    size: tuple[int, int], fit: Fit
) -> None:
    spec = ImageSpec(32, 48, fit)
    frame = Frame.of(size, spec)
    assert frame.size == size
    for x, y in ((0.5, 0.5), (0.4, 0.6)):
        image = np.zeros((*size, 3), np.uint8)
        height, width = size
        x0, y0 = int(x * width), int(y * height)
        image[max(0, y0 - 4) : y0 + 5, max(0, x0 - 4) : x0 + 5] = 255
        shown = decode(image, spec)[..., 0].astype(float)
        rows, columns = np.mgrid[0.5:32, 0.5:48]
        if not shown.any():
            continue  # cut off
        inside = [
            np.clip(np.arange(at - 4, at + 6), 0, length)
            for at, length in ((x0, width), (y0, height))
        ]
        wanted = [
            (c.min() + c.max()) / 2 * scale + offset
            for c, scale, offset in zip(inside, frame.scale, frame.offset)
        ]
        edges = wanted[0] < 6 or wanted[0] > 42 or wanted[1] < 6 or wanted[1] > 26
        if edges:
            continue  # the blob itself is cut
        found = (columns * shown).sum() / shown.sum(), (rows * shown).sum() / shown.sum()
        assert np.abs(np.subtract(found, wanted)).max() < 0.35


def test_the_size_is_that_of_the_upright_image(encoded: Callable[..., bytes]) -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    assert size_of(pixels) == (20, 30)
    assert size_of(encoded(pixels)) == (20, 30)
    for orientation, size in ((1, (20, 30)), (3, (20, 30)), (6, (30, 20)), (8, (30, 20))):
        exif = Image.Exif()
        exif[0x0112] = orientation
        raw = encoded(pixels, "JPEG", exif=exif)
        assert size_of(raw) == size
        assert decode_whole(raw).shape == (*size, 3)
    for raw in (b"", b"no image"):
        with pytest.raises(ImageError):
            size_of(raw)


def test_the_size_of_a_png_is_told_by_its_head_alone() -> None:
    """Pillow reads the pixels before it looks for EXIF, which may stand behind them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    held = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(held)) + b"eXIf" + held
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    plain = _png(20, 10, 8, 2, b"\0" * 61 * 10)
    assert size_of(plain) == decode_whole(plain).shape[:2] == (10, 20)
    for at in (33, -12):  # behind IHDR, before IEND
        turned = plain[:at] + chunk + plain[at:]
        assert size_of(turned) == decode_whole(turned).shape[:2] == (20, 10)
    assert size_of(_png(30_000, 30_000, 8, 2, b"no pixels")) == (30_000, 30_000)


def test_a_whole_image_is_decoded_at_its_own_size(encoded: Callable[..., bytes]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3)).astype(np.uint8)
    assert np.array_equal(decode_whole(encoded(pixels)), pixels)
    assert np.array_equal(decode_whole(pixels[..., 0]), np.repeat(pixels[..., :1], 3, 2))
