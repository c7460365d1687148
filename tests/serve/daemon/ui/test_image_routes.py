"""Images of pools as browsers get them."""

from __future__ import annotations

import io
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from lloss.serve.daemon.store.records import PoolRow
from lloss.serve.daemon.ui import thumbnails
from lloss.serve.daemon.ui.page_data import IMAGES_AT_ONCE
from lloss.serve.daemon.ui.thumbnails import PLACEHOLDER, SIDE, Thumbnails, media_type_of
from PIL import Image, ImageColor
from starlette.testclient import TestClient

from lloss.pools import Item

from .conftest import encoded


def picture(height: int = 40, width: int = 60, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


WEB = {"JPEG": "image/jpeg", "PNG": "image/png", "GIF": "image/gif", "WEBP": "image/webp"}
SVG = (
    b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
)
HTML = b"<!doctype html><script>alert(1)</script>"


def test_formats_of_browsers_are_sent_unchanged(world: Any, client: TestClient) -> None:
    images = {kind: encoded(picture(), kind) for kind in WEB}
    world.table_pool("photos", images)
    for kind, raw in images.items():
        answer = client.get("/v1/pools/photos/images", params={"id": kind})
        assert answer.content == raw and answer.headers["content-type"] == WEB[kind]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"].startswith("private")
        assert media_type_of(raw) == WEB[kind]
    for raw in (SVG, HTML, b"", b"RIFF1234WAVE", b"%PDF-1.7", encoded(picture(), "BMP")):
        assert media_type_of(raw) == ""


def test_other_formats_and_arrays_become_png(world: Any, client: TestClient) -> None:
    def shown(pool: str, id: str) -> Any:
        answer = client.get(f"/v1/pools/{pool}/images", params={"id": id})
        assert answer.headers["content-type"] == "image/png"
        return np.asarray(Image.open(io.BytesIO(answer.content)))

    image = picture()
    kinds = ("BMP", "TIFF", "PPM")
    world.table_pool("photos", {kind: encoded(image, kind) for kind in kinds})
    for kind in kinds:
        assert np.array_equal(shown("photos", kind), np.asarray(image))
    for name, shape in (("color", (3, 9, 7, 3)), ("grey", (5, 9, 7))):
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        world.array_pool(name, pixels)
        expected = np.broadcast_to(pixels[2].reshape(9, 7, -1), (9, 7, 3))
        assert np.array_equal(shown(name, "2"), expected)


@pytest.mark.parametrize("raw", [SVG, HTML, b"", b"\xff\xd8\xffbut no more", b"GIF89a" + HTML])
def test_no_document_is_ever_served(world: Any, client: TestClient, raw: bytes) -> None:
    world.table_pool("photos", {"a": raw})
    answer = client.get("/v1/pools/photos/images", params={"id": "a"})
    if answer.status_code == 200:  # an image by its first bytes
        assert answer.headers["content-type"] in WEB.values()
        assert answer.headers["x-content-type-options"] == "nosniff"
    else:
        assert answer.status_code == 422 and list(answer.json()) == ["error"]
    small = client.get("/pools/photos/thumb", params={"id": "a"})
    assert small.content == PLACEHOLDER.content and small.headers["cache-control"] == "no-store"
    assert unquote(small.headers["x-lloss-error"])


def test_a_thumbnail_is_small_whatever_the_image_is(world: Any, client: TestClient) -> None:
    images = {
        "large": encoded(picture(900, 1200), "JPEG"),
        "long": encoded(picture(4, 1000), "PNG"),
        "tiny": encoded(picture(8, 8), "PNG"),
        "middle": encoded(picture(150, 140), "PNG"),
        "palette": encoded(picture(mode="P"), "GIF"),
        "grey": encoded(picture(mode="L"), "TIFF"),
        "clear": encoded(picture(mode="RGBA"), "WEBP"),
        "sixteen": encoded(Image.fromarray(np.full((9, 9), 40000, np.uint16)), "PNG"),
    }
    world.table_pool("photos", images)
    for id in images:
        answer = client.get("/pools/photos/thumb", params={"id": id})
        assert answer.headers["content-type"] in ("image/jpeg", "image/png")
        longest = max(Image.open(io.BytesIO(answer.content)).size)
        assert 128 < longest <= SIDE and "x-lloss-error" not in answer.headers
    pixels = np.asarray(Image.open(io.BytesIO(images["tiny"])))
    answer = client.get("/pools/photos/thumb", params={"id": "tiny"})
    shown = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert np.array_equal(shown, pixels.repeat(SIDE // 8, 0).repeat(SIDE // 8, 1))


def test_an_unchanged_image_is_not_sent_again(world: Any, client: TestClient) -> None:
    world.table_pool("photos", {"a": encoded(picture(), "PNG")})
    for path in ("/pools/photos/thumb", "/v1/pools/photos/images"):
        first = client.get(path, params={"id": "a"})
        for tags in (first.headers["etag"], f'"x", W/{first.headers["etag"]}'):
            again = client.get(path, params={"id": "a"}, headers={"If-None-Match": tags})
            assert again.status_code == 304 and again.content == b""
            assert again.headers["etag"] == first.headers["etag"]
        other = client.get(path, params={"id": "a"}, headers={"If-None-Match": '"other"'})
        assert other.status_code == 200


def test_an_unknown_id_is_404(world: Any, client: TestClient) -> None:
    world.pool("photos", 2)
    for path in ("/pools/photos/thumb", "/v1/pools/photos/images"):
        for id in ("none", "", "../a", "/etc/passwd", "a\0", "x" * 5000):
            answer = client.get(path, params={"id": id})
            assert answer.status_code == 404 and list(answer.json()) == ["error"]
            assert "\n" not in answer.json()["error"] and len(answer.text) < 600
        assert client.get(path.replace("photos", "none"), params={"id": "a"}).status_code == 404
    assert client.get("/v1/pools/photos/images").status_code == 422


def test_an_image_of_too_many_pixels_is_refused(make_world: Any) -> None:
    from lloss.serve.daemon.settings import Limits

    world = make_world(limits=Limits(image_pixels=10_000))
    images = {"bomb": encoded(Image.new("L", (101, 100)), "TIFF"), "web": encoded(picture(), "PNG")}
    world.table_pool("photos", images)
    with world.browser() as client:
        answer = client.get("/v1/pools/photos/images", params={"id": "bomb"})
        assert answer.status_code == 422 and "101×100 pixels" in answer.json()["error"]
        answer = client.get("/pools/photos/thumb", params={"id": "bomb"})
        assert "101×100 pixels" in unquote(answer.headers["x-lloss-error"])
        assert client.get("/pools/photos/thumb", params={"id": "web"}).status_code == 200


def thumb_of(client: TestClient, pool: str, id: str) -> Any:
    answer = client.get(f"/pools/{pool}/thumb", params={"id": id})
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))


def test_a_replaced_file_has_a_new_thumbnail(world: Any, client: TestClient) -> None:
    ids = world.pool("photos", 3)
    file = world.folder / "images" / "photos" / ids[0]
    for colour in ("red", "lime", "blue"):
        file.write_bytes(encoded(Image.new("RGB", (9, 9), colour), "PNG"))
        assert thumb_of(client, "photos", ids[0])[0, 0].tolist() == list(ImageColor.getrgb(colour))


def test_a_rewritten_array_has_new_thumbnails(world: Any, client: TestClient) -> None:
    pixels = np.zeros((3, 9, 9, 3), np.uint8)
    world.array_pool("digits", pixels)
    assert thumb_of(client, "digits", "2").max() == 0
    np.save(world.folder / "digits.npy", pixels + 200)
    os.utime(world.folder / "digits.npy", ns=(1, 1))
    assert thumb_of(client, "digits", "2").min() == 200


def test_the_latest_thumbnails_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "CACHED", 30)
    raw, made, row = encoded(picture(9, 9)), Thumbnails(10**6), PoolRow("p", "/x", 1.0, None)
    read: list[str] = []

    def get(id: str, row: PoolRow = row) -> None:
        made.get(row, Item(id, lambda: read.append(id) or raw))  # type: ignore[func-returns-value]

    for number in range(40):
        get(str(number))
    get("39")
    assert len(read) == 40, "the latest is kept"
    get("0")
    assert len(read) == 41, "the oldest is not"
    for other in (replace(row, created=6.0), replace(row, name="other")):
        get("39", other)
    assert len(read) == 43, "of other pools"


def test_few_images_are_decoded_at_once(
    world: Any, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = world.pool("photos", 20)
    busy: list[str] = []
    most = 0

    def slow(self: Thumbnails, row: PoolRow, item: Item) -> Any:
        nonlocal most
        busy.append(item.id)
        time.sleep(0.02)
        most = max(most, len(busy))
        busy.remove(item.id)
        return PLACEHOLDER

    monkeypatch.setattr(Thumbnails, "get", slow)
    with client, ThreadPoolExecutor(20) as threads:  # one event loop
        list(threads.map(lambda id: client.get(f"/pools/photos/thumb?id={id}"), ids))
    assert most == IMAGES_AT_ONCE
