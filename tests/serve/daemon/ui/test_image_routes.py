"""Images of pools as browsers get them."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import numpy as np
import pytest
from lloss.serve.daemon.store.records import PoolRow
from lloss.serve.daemon.ui.thumbnails import PLACEHOLDER, SIDE, Thumbnails, media_type_of
from lloss.serve.daemon.ui.views import Viewer
from PIL import Image, ImageColor

from lloss.errors import ImageError
from lloss.pools import Item


def picture(height: int = 40, width: int = 60, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


WEB = {"JPEG": "image/jpeg", "PNG": "image/png", "GIF": "image/gif", "WEBP": "image/webp"}
SVG = (
    b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
)
HTML = b"<!doctype html><script>alert(1)</script>"


@pytest.fixture
def client(served: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=60) as client:
        yield client


@pytest.mark.parametrize("kind", WEB)
def test_what_browsers_know_comes_as_it_lies(served: Any, client: httpx.Client, kind: str) -> None:
    raw = encoded(picture(), kind)
    served.world.table_pool("photos", {"a": raw})
    answer = client.get("/v1/pools/photos/images", params={"id": "a"})
    assert answer.content == raw and answer.headers["content-type"] == WEB[kind]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"].startswith("private")


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM"])
def test_other_formats_become_png_with_the_same_pixels(
    served: Any, client: httpx.Client, kind: str
) -> None:
    image = picture()
    served.world.table_pool("photos", {"a": encoded(image, kind)})
    answer = client.get("/v1/pools/photos/images", params={"id": "a"})
    assert answer.headers["content-type"] == "image/png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), np.asarray(image))


@pytest.mark.parametrize("shape", [(3, 9, 7, 3), (5, 9, 7)])
def test_arrays_become_png(served: Any, client: httpx.Client, shape: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    served.world.array_pool("digits", pixels)
    answer = client.get("/v1/pools/digits/images", params={"id": "2"})
    assert answer.headers["content-type"] == "image/png"
    shown = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert np.array_equal(shown, np.broadcast_to(pixels[2].reshape(9, 7, -1), (9, 7, 3)))


@pytest.mark.parametrize("raw", [SVG, HTML, b"", b"\xff\xd8\xffbut no more", b"GIF89a" + HTML])
def test_no_document_is_ever_served(served: Any, client: httpx.Client, raw: bytes) -> None:
    served.world.table_pool("photos", {"a": raw})
    answer = client.get("/v1/pools/photos/images", params={"id": "a"})
    if answer.status_code == 200:  # by its first bytes an image, and told to be nothing else
        assert answer.headers["content-type"] in WEB.values()
        assert answer.headers["x-content-type-options"] == "nosniff"
    else:
        assert answer.status_code == 422 and list(answer.json()) == ["error"]
    small = client.get("/pools/photos/thumb", params={"id": "a"})
    assert small.content == PLACEHOLDER.content and small.headers["cache-control"] == "no-store"
    assert unquote(small.headers["x-lloss-error"])


def test_a_thumbnail_is_small_whatever_the_image_is(served: Any, client: httpx.Client) -> None:
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
    served.world.table_pool("photos", images)
    for id in images:
        answer = client.get("/pools/photos/thumb", params={"id": id})
        assert answer.headers["content-type"] in ("image/jpeg", "image/png")
        longest = max(Image.open(io.BytesIO(answer.content)).size)
        assert 128 < longest <= SIDE and "x-lloss-error" not in answer.headers
    assert max(Image.open(io.BytesIO(PLACEHOLDER.content)).size) <= 128, "so a page can tell"
    pixels = np.asarray(Image.open(io.BytesIO(images["tiny"])))
    answer = client.get("/pools/photos/thumb", params={"id": "tiny"})
    shown = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert np.array_equal(shown, pixels.repeat(SIDE // 8, 0).repeat(SIDE // 8, 1))


def test_an_image_stands_upright(served: Any, client: httpx.Client) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    served.world.table_pool("photos", {"a": encoded(picture(300, 600), "JPEG", exif=exif)})
    answer = client.get("/pools/photos/thumb", params={"id": "a"})
    assert Image.open(io.BytesIO(answer.content)).size == (SIDE // 2, SIDE)


def test_an_image_that_was_seen_is_not_sent_again(served: Any, client: httpx.Client) -> None:
    served.world.table_pool("photos", {"a": encoded(picture(), "PNG")})
    for path in ("/pools/photos/thumb", "/v1/pools/photos/images"):
        first = client.get(path, params={"id": "a"})
        for tags in (first.headers["etag"], f'"x", W/{first.headers["etag"]}', "*"):
            again = client.get(path, params={"id": "a"}, headers={"If-None-Match": tags})
            assert again.status_code == 304 and again.content == b""
            assert again.headers["etag"] == first.headers["etag"]
        other = client.get(path, params={"id": "a"}, headers={"If-None-Match": '"other"'})
        assert other.status_code == 200


@pytest.mark.parametrize("id", ["none", "", "../a", "/etc/passwd", "a\0", "x" * 5000])
def test_an_unknown_id_is_not_there(served: Any, client: httpx.Client, id: str) -> None:
    served.world.pool("photos", 2)
    for path in ("/pools/photos/thumb", "/v1/pools/photos/images"):
        answer = client.get(path, params={"id": id})
        assert answer.status_code == 404 and list(answer.json()) == ["error"]
        assert "\n" not in answer.json()["error"] and len(answer.text) < 600
        assert client.get(path.replace("photos", "none"), params={"id": "a"}).status_code == 404
    assert client.get("/v1/pools/photos/images").status_code == 422


def test_a_bomb_is_refused_by_what_it_declares(make_served: Any) -> None:
    from lloss.serve.daemon.settings import Limits

    served = make_served(limits=Limits(image_pixels=10_000))
    images = {"bomb": encoded(Image.new("L", (101, 100)), "TIFF"), "web": encoded(picture(), "PNG")}
    served.world.table_pool("photos", images)
    with httpx.Client(base_url=served.url, timeout=60) as client:
        answer = client.get("/v1/pools/photos/images", params={"id": "bomb"})
        assert answer.status_code == 422 and "101×100 pixels" in answer.json()["error"]
        answer = client.get("/pools/photos/thumb", params={"id": "bomb"})
        assert "101×100 pixels" in unquote(answer.headers["x-lloss-error"])
        page = client.get("/pools/photos").text
        assert "cannot be shown: declares 101×100 pixels" in page, "known from then on"
        assert client.get("/pools/photos/thumb", params={"id": "web"}).status_code == 200


def test_a_file_that_is_gone_is_told(served: Any, client: httpx.Client) -> None:
    ids = served.world.pool("photos", 3)
    client.get("/pools/photos")
    (served.world.folder / "images" / "photos" / ids[0]).unlink()
    answer = client.get("/pools/photos/thumb", params={"id": ids[0]})
    assert answer.content == PLACEHOLDER.content and answer.headers["x-lloss-error"]
    assert client.get("/v1/pools/photos/images", params={"id": ids[0]}).status_code in (404, 422)


def thumb_of(client: httpx.Client, pool: str, id: str) -> Any:
    answer = client.get(f"/pools/{pool}/thumb", params={"id": id})
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))


def test_a_replaced_file_has_a_new_thumbnail(served: Any, client: httpx.Client) -> None:
    ids = served.world.pool("photos", 3)
    file = served.world.folder / "images" / "photos" / ids[0]
    for colour in ("red", "lime", "blue"):
        file.write_bytes(encoded(Image.new("RGB", (9, 9), colour), "PNG"))
        assert thumb_of(client, "photos", ids[0])[0, 0].tolist() == list(ImageColor.getrgb(colour))


def test_a_rewritten_array_has_new_thumbnails(served: Any, client: httpx.Client) -> None:
    pixels = np.zeros((3, 9, 9, 3), np.uint8)
    served.world.array_pool("digits", pixels)
    assert thumb_of(client, "digits", "2").max() == 0
    file = served.world.folder / "digits.npy"
    with file.open("r+b") as opened:
        opened.seek(-pixels.nbytes, io.SEEK_END)
        opened.write(bytes([200]) * pixels.nbytes)
    os.utime(file, ns=(1, 1))
    assert thumb_of(client, "digits", "2").min() == 200


def test_thumbnails_of_a_pool_end_with_it_and_with_its_scores(tmp_path: Path) -> None:
    row = PoolRow("photos", "/photos", 5.0, tmp_path / "a", None, 0, 0)
    keys = [row, replace(row, created=6.0), replace(row, scores=tmp_path / "b")]
    assert len({Viewer.thumbnail_key(one) for one in keys}) == 3


def test_a_signed_link_needs_no_token_and_shows_one_image(make_served: Any) -> None:
    served = make_served(token="a-token-of-some-length")
    ids = served.world.pool("photos", 2)
    where = f"{served.url}/v1/pools/photos/images"
    assert httpx.get(f"{where}?id={ids[0]}").status_code == 401
    link = served.world.daemon.access.signed_query("photos", ids[0])
    assert httpx.get(f"{where}?{link}").headers["content-type"] == "image/png"
    assert httpx.get(f"{where}?{link.replace(ids[0], ids[1])}").status_code == 401


def item(id: str, raw: bytes, read: list[str]) -> Item:
    def reading() -> bytes:
        read.append(id)
        return raw

    return Item(id, reading)


def test_thumbnails_are_kept_in_bounded_room() -> None:
    read: list[str] = []
    raw = encoded(picture(256, 256), "JPEG")
    thumbnails = Thumbnails(10**6, room=400_000)
    for number in range(40):
        thumbnails.of("pool", item(str(number), raw, read))
        assert thumbnails.held <= 400_000
    thumbnails.of("pool", item("39", raw, read))
    assert len(read) == 40, "the latest is kept"
    thumbnails.of("pool", item("0", raw, read))
    assert len(read) == 41, "the oldest is not"
    thumbnails.of("other", item("39", raw, read))
    assert len(read) == 42, "of another pool"


def test_a_failure_is_kept_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    thumbnails = Thumbnails(10**6)
    now = time.monotonic()
    for _ in range(2):
        with pytest.raises(ImageError):
            thumbnails.of("pool", item("a", b"broken", read))
    assert len(read) == 1 and thumbnails.failure("pool", "a")
    monkeypatch.setattr(time, "monotonic", lambda: now + 120)
    assert thumbnails.failure("pool", "a") == ""
    assert thumbnails.of("pool", item("a", encoded(picture(), "PNG"), read)).content


def test_few_images_are_decoded_at_once(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from lloss.serve.daemon.ui.ui_deps import AT_ONCE

    ids = served.world.pool("photos", 20)
    busy, most, lock = 0, 0, threading.Lock()
    plain = Thumbnails._make

    def slow(self: Thumbnails, wanted: Item) -> Any:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.02)
        with lock:
            busy -= 1
        return plain(self, wanted)

    monkeypatch.setattr(Thumbnails, "_make", slow)
    threads = [
        threading.Thread(target=httpx.get, args=[f"{served.url}/pools/photos/thumb?id={id}"])
        for id in ids
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == AT_ONCE


def test_only_four_formats_are_known_by_their_first_bytes() -> None:
    for kind, name in WEB.items():
        assert media_type_of(encoded(picture(), kind)) == name
    for raw in (SVG, HTML, b"", b"RIFF1234WAVE", b"%PDF-1.7", encoded(picture(), "BMP")):
        assert media_type_of(raw) == ""
