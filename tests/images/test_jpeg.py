"""The short cut for plain JPEG files gives what Pillow gives, or leaves the file to Pillow."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lloss.errors import ImageError
from lloss.images import decode as images
from lloss.images import jpeg
from lloss.images.decode import ImageSpec, decode
from lloss.images.jpeg import decode_plain_jpeg_into

Encode = Callable[..., bytes]


@pytest.fixture(autouse=True)
def simplejpeg() -> Any:
    return pytest.importorskip("simplejpeg", reason="needs the extra fast")


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Decoding as it is without the extra."""
    jpeg._decoder.cache_clear()
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    yield
    monkeypatch.undo()
    jpeg._decoder.cache_clear()


def _smooth(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:height, 0:width]
    planes = np.stack([x * 5 % 256, y * 3 % 256, (x + y) * 2 % 256], 2)
    noise = np.random.default_rng(0).normal(0, 12, planes.shape)
    return (planes + noise).clip(0, 255).astype(np.uint8)


def _pillow(raw: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(raw)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0", "4:1:1"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (32, 32), (65, 43), (150, 201)])
def test_plain_files_give_pillows_pixels(
    encoded: Encode, sampling: str, progressive: bool, size: tuple[int, int]
) -> None:
    picture = _smooth(*size)
    for quality in (10, 75, 95):
        for restart in ({}, {"restart_marker_blocks": 2}, {"restart_marker_rows": 1}):
            for content in (picture, picture[:, :, 0]):
                raw = encoded(content, "JPEG", quality=quality, subsampling=sampling,
                              progressive=progressive, **restart)  # fmt: skip
                out = np.empty((*size, 3), np.uint8)
                assert decode_plain_jpeg_into(raw, out)
                assert np.array_equal(out, _pillow(raw))


def test_everything_unusual_is_left_to_pillow(encoded: Encode) -> None:
    image = Image.fromarray(_smooth(20, 24))
    exif = Image.Exif()
    exif[0x0112] = 3
    unusual = [
        encoded(image, "JPEG", exif=exif),
        encoded(image, "JPEG", xmp=b"<x/>"),
        encoded(image, "JPEG", icc_profile=b"garbage"),
        encoded(image, "JPEG", keep_rgb=True),
        encoded(image.convert("CMYK"), "JPEG"),
        encoded(image, "MPO", save_all=True, append_images=[image]),
        encoded(image.resize((24, 21)), "JPEG"),
        encoded(image, "PNG"),
        b"",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe0\x00\x00" * 9,
    ]
    for raw in unusual:
        assert not decode_plain_jpeg_into(raw, np.empty((20, 24, 3), np.uint8))


def _outcomes(raws: list[bytes]) -> list[bytes | str]:
    found: list[bytes | str] = []
    for raw in raws:
        try:
            found.append(decode(raw, ImageSpec(16, 24)).tobytes())
        except ImageError as error:
            found.append(str(error))
    return found


def test_damaged_files_end_as_they_do_without_it(
    encoded: Encode, request: pytest.FixtureRequest
) -> None:
    """Cut anywhere, or with bytes changed: the same pixels, or the same refusal."""
    random, raws = np.random.default_rng(0), []
    for options in ({}, {"progressive": True}, {"subsampling": "4:4:4", "comment": b"hello"}):
        whole = encoded(_smooth(16, 24), "JPEG", **options)
        raws += [whole[:cut] for cut in range(0, len(whole), 7)]
        for end in (30, 160, len(whole)):
            for _ in range(150):
                damaged = bytearray(whole)
                for at in random.integers(0, end, 2):
                    damaged[at] = random.integers(256)
                raws.append(bytes(damaged))
    with_it = _outcomes(raws)
    request.getfixturevalue("judge")
    without = _outcomes(raws)
    assert jpeg._decoder() is None
    assert with_it == without
    pixels = sum(isinstance(outcome, bytes) for outcome in without)
    assert 200 < pixels < len(raws) - 200


@pytest.mark.parametrize("flaw", ["other pixels", "refusal"])
def test_a_build_that_disagrees_with_pillow_is_not_used(
    encoded: Encode, simplejpeg: Any, monkeypatch: pytest.MonkeyPatch, flaw: str
) -> None:
    right = simplejpeg.decode_jpeg

    def wrong(raw: bytes, *args: Any, **options: Any) -> NDArray[np.uint8]:
        if flaw == "refusal":
            raise ValueError("no")
        pixels: NDArray[np.uint8] = right(raw, "RGB")
        pixels[0, 0, 0] ^= 1
        return pixels

    monkeypatch.setattr(simplejpeg, "decode_jpeg", wrong)
    jpeg._decoder.cache_clear()
    try:
        raw = encoded(_smooth(16, 24), "JPEG")
        assert np.array_equal(decode(raw, ImageSpec(16, 24)), _pillow(raw))
        assert jpeg._decoder() is None
    finally:
        jpeg._decoder.cache_clear()


def test_a_scorer_without_the_extra_decodes_the_same(encoded: Encode, judge: None) -> None:
    raw = encoded(_smooth(16, 24), "JPEG")
    out = np.empty((16, 24, 3), np.uint8)
    assert not decode_plain_jpeg_into(raw, out)
    images.decode_into(raw, ImageSpec(16, 24), out)
    assert np.array_equal(out, _pillow(raw))
