"""Decode and resize any image."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin

from lloss.errors import ImageError
from lloss.images import decode as images
from lloss.images.decode import (
    ByteBudget,
    Fit,
    ImageSpec,
    decode,
    decode_mask,
    decode_whole,
    size_of,
)

from ..waiting import PATIENCE, until
from .pixels import exif, png, png_chunk, random_pixels, smooth_pixels

Encode = Callable[..., bytes]
EIGHT = ImageSpec(8, 8)
FITS = ("crop", "pad", "stretch")


def _pillow(raw: bytes, spec: ImageSpec) -> NDArray[np.uint8]:
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
def test_pixels_are_those_of_pillows_own_calls(encoded: Encode, mode: str, fit: Fit) -> None:
    """The decoder takes short cuts; the result equals the plain calls', bit for bit."""
    image = Image.fromarray(random_pixels(48, 64, 3)).convert(mode)
    written = 0
    for kind in images.FORMATS:
        for orientation in range(1, 9) if kind in ("JPEG", "PNG", "TIFF", "WEBP") else (1,):
            try:
                raw = encoded(image, kind, exif=exif(orientation))
            except (OSError, ValueError):  # a mode that the format cannot hold
                continue
            spec = ImageSpec(12, 12, fit)
            assert np.array_equal(decode(raw, spec), _pillow(raw, spec)), (kind, orientation)
            written += 1
    assert written


def test_the_record_of_timm_is_followed_as_by_its_own_transforms(encoded: Encode) -> None:
    """Resize the shorter side to the input's divided by the share, and cut the middle out."""
    smooth = Image.fromarray(random_pixels(6, 9, 3)).resize((360, 240), Image.Resampling.BICUBIC)
    whole = smooth.resize((192, 128), Image.Resampling.BICUBIC)
    wanted = np.asarray(whole)[8:120, 40:152].astype(int)
    spec = ImageSpec(112, 112, share=0.875, resample="bicubic")
    assert np.abs(decode(encoded(smooth), spec) - wanted).max() <= 1
    assert np.abs(decode(encoded(smooth), ImageSpec(112, 112)) - wanted).max() > 20
    stretched = decode(encoded(smooth), ImageSpec(112, 112, "stretch", resample="bicubic"))
    assert np.array_equal(stretched, np.asarray(smooth.resize((112, 112), 3)))
    padded = decode(encoded(smooth), ImageSpec(112, 112, "pad", resample="bicubic"))
    assert np.array_equal(padded[18:93], np.asarray(smooth.resize((112, 75), 3)))


def test_an_animation_gives_its_first_frame(encoded: Encode) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        options = {"save_all": True, "append_images": frames[1:], "duration": 50, "lossless": True}
        assert decode(encoded(frames[0], kind, **options), EIGHT)[3, 3].tolist() == [255, 0, 0], (
            kind
        )


@pytest.mark.parametrize("orientation", range(10))
def test_a_mask_is_turned_upright(encoded: Encode, orientation: int) -> None:
    values = (random_pixels(8, 16) > 127).astype(np.uint8)
    palette = Image.fromarray(values)
    palette.putpalette([9, 9, 9, 200, 1, 1])
    for mask in (Image.fromarray(values), palette, Image.fromarray(values * 255).convert("1")):
        raw = encoded(mask, "PNG", exif=exif(orientation))
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(raw)))
        found = decode_mask(raw)
        assert found.dtype == np.uint8 and np.array_equal(found, np.asarray(upright))


def _xmp(kind: str, orientation: int) -> dict[str, Any]:
    """How Pillow writes an orientation in XMP alone."""
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


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_size_is_that_of_the_decoded_image(encoded: Encode, kind: str) -> None:
    """However the orientation is written: boxes and masks are checked by the size alone."""
    for orientation in range(1, 9):
        for options in ({"exif": exif(orientation)}, _xmp(kind, orientation)):
            raw = encoded(random_pixels(20, 30, 3), kind, **options)
            with Image.open(io.BytesIO(raw)) as image:
                upright = ImageOps.exif_transpose(image)
            assert size_of(raw) == decode_whole(raw).shape[:2] == upright.size[::-1]
    for orientation in (0, 9, 255):
        raw = encoded(random_pixels(20, 30, 3), kind, exif=exif(orientation))
        assert size_of(raw) == decode_whole(raw).shape[:2] == (20, 30)


def test_the_size_of_a_png_without_metadata_needs_its_head_alone() -> None:
    """Pillow reads the pixels before it looks for EXIF, which may stand behind them."""
    chunk = png_chunk(b"eXIf", exif(6).tobytes().removeprefix(b"Exif\0\0"))
    plain = png(20, 10, 8, 2, b"\0" * 61 * 10)
    assert size_of(plain) == decode_whole(plain).shape[:2] == (10, 20)
    for at in (33, -12):  # behind IHDR, before IEND
        turned = plain[:at] + chunk + plain[at:]
        assert size_of(turned) == decode_whole(turned).shape[:2] == (20, 10)
    assert size_of(png(30_000, 30_000, 8, 2, b"no pixels")) == (30_000, 30_000)
    with pytest.raises(ImageError, match="declares 30000×30000 pixels"):  # not decoded for EXIF
        size_of(png(30_000, 30_000, 8, 2, b"no pixels") + b"eXIf")
    assert size_of(random_pixels(20, 30, 3)) == (20, 30)


def test_a_whole_image_is_decoded_at_its_own_size(encoded: Encode) -> None:
    pixels = random_pixels(7, 9, 3)
    assert np.array_equal(decode_whole(encoded(pixels)), pixels)
    assert np.array_equal(decode_whole(pixels[..., 0]), np.repeat(pixels[..., :1], 3, 2))


def test_an_image_that_is_not_a_mask_is_refused(encoded: Encode) -> None:
    for raw, reason in (
        (encoded(random_pixels(8, 8, 3)), "mode RGB; save"),
        (encoded(Image.fromarray(np.full((8, 8), 300, np.uint16))), "mode I;16; save"),
        (encoded(random_pixels(8, 8), "TIFF"), "format TIFF; save the mask as PNG"),
        (b"", "an empty file"),
        (b"no png", "not an image"),
    ):
        with pytest.raises(ImageError, match=reason):
            decode_mask(raw)


@pytest.mark.parametrize("fit", FITS)
def test_any_shape_fills_the_input(encoded: Encode, fit: Fit) -> None:
    for shape in ((1, 500), (500, 1), (1, 1)):
        found = decode(encoded(np.full((*shape, 3), 200, np.uint8)), ImageSpec(16, 24, fit))
        assert found.shape == (16, 24, 3)
        assert found.max() == 200
    picture = random_pixels(9, 13, 3)  # of the right size: never resampled
    assert np.array_equal(decode(encoded(picture), ImageSpec(9, 13, fit)), picture)
    assert np.array_equal(decode(picture, ImageSpec(9, 13, fit)), picture)
    picture, spec = random_pixels(30, 50, 3), ImageSpec(16, 16, fit)
    assert np.array_equal(decode(picture, spec), decode(encoded(picture), spec))


def test_pad_keeps_the_whole_image_between_black_bars(encoded: Encode) -> None:
    picture = np.maximum(smooth_pixels(30, 60), 10)
    inner = Image.fromarray(picture).resize((20, 10), Image.Resampling.BILINEAR)
    found = decode(encoded(picture), ImageSpec(20, 20, "pad"))
    assert (found[:5] == 0).all()
    assert (found[15:] == 0).all()
    assert np.array_equal(found[5:15], np.asarray(inner))
    grey = decode(encoded(picture), ImageSpec(20, 20, "pad", fill=114))
    assert (grey[:5] == 114).all() and np.array_equal(grey[5:15], found[5:15])


def test_arrays_are_read_as_they_are() -> None:
    for shape in ((8, 8), (8, 8, 1)):
        grey = random_pixels(*shape)
        assert np.array_equal(decode(grey, EIGHT), np.repeat(grey.reshape(8, 8, 1), 3, 2))
    whole = random_pixels(16, 16, 3)
    assert np.array_equal(decode(whole[::2, ::-2], EIGHT), whole[::2, ::-2])


@pytest.mark.parametrize(
    "array",
    [
        *(np.zeros((8, 8, 3), kind) for kind in ("float32", "uint16", "bool", "int64")),
        *(np.zeros(shape, np.uint8) for shape in
          [(8, 8, 5), (8, 8, 4), (8, 8, 2), (8,), (2, 8, 8, 3), (0, 8, 3)]),
    ],
)  # fmt: skip
def test_other_arrays_are_refused(array: NDArray[Any]) -> None:
    with pytest.raises(ImageError, match="shape" if array.dtype == np.uint8 else str(array.dtype)):
        decode(array, EIGHT)


@pytest.mark.parametrize("spec", [ImageSpec(9, 13), EIGHT, ImageSpec(9, 7, "pad")])
def test_decoding_into_an_array_is_decoding(encoded: Encode, spec: ImageSpec) -> None:
    picture = random_pixels(9, 13, 3)
    for raw in (encoded(picture), encoded(picture, "JPEG"), encoded(picture[:, :, 0]), picture,
                picture[:, :, 0], picture[:, :, :1], picture[::-1, ::2]):  # fmt: skip
        batch = np.full((3, spec.height, spec.width, 3), 99, np.uint8)
        images.decode_into(raw, spec, batch[1])
        assert np.array_equal(batch[1], decode(raw, spec))
        assert (batch[[0, 2]] == 99).all()
        planes = np.full((3, spec.height, spec.width), 99, np.uint8)
        images.decode_into(raw, spec, planes.transpose(1, 2, 0))
        assert np.array_equal(planes, decode(raw, spec).transpose(2, 0, 1))


def test_a_broken_image_changes_no_other_row(encoded: Encode) -> None:
    batch = np.full((3, 64, 64, 3), 99, np.uint8)
    whole = encoded(random_pixels(64, 64, 3), "JPEG")
    for raw in (b"", b"text", whole[: len(whole) // 2], np.zeros((2, 2, 4), np.uint8)):
        with pytest.raises(ImageError):
            images.decode_into(raw, ImageSpec(64, 64), batch[1])
    assert (batch[[0, 2]] == 99).all()
    for out in (np.zeros((8, 9, 3), np.uint8), np.zeros((8, 8, 3), np.int8)):
        with pytest.raises(ValueError, match=r"not uint8 \[8, 8, 3\]"):
            images.decode_into(whole, EIGHT, out)  # type: ignore[arg-type]


def test_bytes_that_are_not_a_known_image_are_an_error_with_the_formats(encoded: Encode) -> None:
    for raw, reason in (
        (b"", "an empty file"),
        (b"this is a text that somebody called picture.jpg", r"known format.*JPEG"),
        (encoded(random_pixels(8, 8, 3), "TGA"), "known format"),
    ):
        for read in (size_of, decode_whole):
            with pytest.raises(ImageError, match=reason):
                read(raw)  # type: ignore[operator]
    raw = encoded(Image.fromarray(random_pixels(8, 8)), "TIFF")
    two_bytes = raw.replace(b"\x02\x01\x03\0\x01\0\0\0\x08", b"\x02\x01\x03\0\x01\0\0\0\x07")
    assert two_bytes != raw
    with pytest.raises(ImageError, match="begins as a TIFF, but unknown pixel mode"):
        decode_whole(two_bytes)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_is_nothing_but_an_image_error(encoded: Encode, kind: str) -> None:
    raw = encoded(random_pixels(64, 64, 3), kind)
    with pytest.raises(ImageError):
        decode(raw[: len(raw) // 2], EIGHT)
    random = np.random.default_rng(0)
    whole = np.frombuffer(encoded(random_pixels(16, 16, 3), kind), np.uint8)
    for _ in range(30):
        damaged = whole.copy()
        damaged[random.integers(0, len(damaged), 8)] = random.integers(0, 256, 8)
        with contextlib.suppress(ImageError):
            assert decode(damaged.tobytes(), EIGHT).shape == (8, 8, 3)


def test_bombs_are_refused_whatever_pillows_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for width, height in ((30_000, 30_000), (13_400, 13_400)):
        with pytest.raises(ImageError, match="declares"):
            decode(png(width, height, 8, 2, b""), EIGHT)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="declares 30000×30000 pixels, over the limit"):
        decode(png(30_000, 30_000, 8, 2, b""), EIGHT)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # 64 pixels: Pillow would warn
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = b"".join(b"\0" + bytes([5, 6, 7]) * 8 for _ in range(8))
        assert (decode(png(8, 8, 8, 2, rows), EIGHT) == [5, 6, 7]).all()


def test_large_images_wait_for_the_budget_and_small_ones_do_not(
    encoded: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = ByteBudget(10_000_000)
    monkeypatch.setattr(images, "_IN_FLIGHT", budget)
    large = encoded(np.zeros((1000, 500, 3), np.uint8), "JPEG")
    small = encoded(random_pixels(9, 9, 3))
    done = threading.Event()
    waiting = threading.Thread(target=lambda: (decode(large, EIGHT), done.set()))
    with budget.holding(budget.total):
        waiting.start()
        decode(small, EIGHT)
        assert not done.wait(0.2)
    assert done.wait(PATIENCE)
    waiting.join()
    with pytest.raises(ImageError):
        decode(large[: len(large) // 2], EIGHT)
    assert budget.free == budget.total


def test_bombs_are_refused_by_their_heads(encoded: Encode) -> None:
    """Images of 0.5 to 17 GB, each in a small file."""
    jpeg = bytearray(encoded(random_pixels(8, 8, 3), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    bombs = {
        "png": png(30_000, 30_000, 8, 2, b"\0" * 100_000),
        "jpg": bytes(jpeg),
        "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 30_000, 30_000, 1, 24,
                                   0, 0, 0, 0, 0, 0),
        "gif": b"GIF89a" + struct.pack("<HHBBB", 60_000, 60_000, 0, 0, 0)
        + b"," + struct.pack("<HHHHB", 0, 0, 60_000, 60_000, 0) + b"\x02\x02\x4c\x01\0;",
        "webp": b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<II", 10, 0)
        + b"\xff\x3f\0\xff\x3f\0",
        "ppm": b"P6 30000 30000 255\n",
    }  # fmt: skip
    for raw in bombs.values():
        with pytest.raises(ImageError, match="declares|exceeds limit"):
            decode(raw, EIGHT)


def test_no_more_is_held_than_the_total() -> None:
    budget, held, peak, lock = ByteBudget(100), 0, 0, threading.Lock()
    chance = random.Random(0)

    def work(size: int) -> None:
        nonlocal held, peak
        with budget.holding(size):
            with lock:
                held += size
                peak = max(peak, held)
            time.sleep(0.0005)
            with lock:
                held -= size

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [chance.randint(1, 60) for _ in range(200)]))
    assert 60 < peak <= 100
    assert budget.free == 100
    with budget.holding(10**12):  # larger than all: runs alone
        assert budget.free == 0
    with pytest.raises(KeyError), budget.holding(70):
        raise KeyError
    assert budget.free == 100


def test_a_large_request_is_not_overtaken_for_ever() -> None:
    budget, order = ByteBudget(100), []

    def hold(size: int) -> None:
        with budget.holding(size):
            order.append(size)

    threads = [threading.Thread(target=hold, args=(size,)) for size in (100, 5, 6)]
    with budget.holding(50):  # the small ones would fit
        for thread in threads:
            thread.start()
            until(budget._turn.locked)
    for thread in threads:
        thread.join()
    assert order[0] == 100 and sorted(order) == [5, 6, 100]
