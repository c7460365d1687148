"""``POST /v1/score``, as curl and scripts use it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from lloss import Scorer

from ....waiting import PATIENCE


@pytest.fixture
def ask(served: Any) -> Any:
    with httpx.Client(base_url=f"http://{served.url}", timeout=PATIENCE) as client:
        yield lambda **given: client.post("/v1/score", **given)


@pytest.fixture
def files(encoded: Callable[..., bytes]) -> list[bytes]:
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 9, 3), np.uint8)
    return [encoded(images[0]), encoded(images[1], "JPEG"), encoded(images[2], "WEBP")]


def test_a_form_of_files_is_scored(
    ask: Any, served: Any, onnx_file: Path, files: list[bytes]
) -> None:
    form = [("image", (f"{n}.img", content)) for n, content in enumerate(files)]
    reply = ask(files=form)
    assert reply.status_code == 200
    scores = reply.json()
    assert scores["model"] == served.models.sha256 == reply.headers["x-lloss-model"]
    with Scorer(onnx_file, "cpu", batch_size=8) as scorer:
        wanted = scorer.score(files)
    manifest = served.models.current.manifest
    for row, image in enumerate(scores["images"]):
        assert (image["row"], image["name"]) == (row, f"{row}.img")
        assert image["loss"] == pytest.approx(float(wanted.loss[row]), rel=1e-4, abs=1e-5)
        index = int(wanted.columns["prediction"][row])
        assert (image["prediction"], image["class"]) == (index, manifest.classes[index])
        assert "embedding" not in image and "entropy" in image and "error" not in image


def test_one_file_may_be_the_body(ask: Any, files: list[bytes]) -> None:
    form = ask(files=[("image", ("a", files[1]))]).json()["images"][0]
    (body,) = ask(**of_type("image/jpeg", files[1])).json()["images"]
    assert body.pop("name") == "body" and form.pop("name") == "a"
    assert body == form


def test_a_bad_file_fails_alone(ask: Any, files: list[bytes]) -> None:
    form = [("image", ("good", files[0])), ("image", ("bad", b"text")), ("image", ("no", b""))]
    reply = ask(files=form)
    assert reply.status_code == 200
    good, bad, empty = reply.json()["images"]
    assert "loss" in good and "loss" not in bad
    assert "known format" in bad["error"] and "empty" in empty["error"]
    reply = ask(files=form[1:])
    assert reply.status_code == 422 and "first, 'bad'" in reply.json()["error"]


FORM = "multipart/form-data"
TEXT_FIELD = b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"


def of_type(kind: str, content: bytes = b"") -> dict[str, Any]:
    return {"content": content, "headers": {"content-type": kind}}


@pytest.mark.parametrize(
    ("given", "status", "reason"),
    [
        (of_type("image/png"), 400, "empty"),
        ({"json": {"image": "x"}}, 415, "'application/json'"),
        ({"content": b"x"}, 415, "send a form"),
        ({"files": [("image", ("n", b"x"))], "data": {"more": "text"}}, 400, "-F image=@FILE"),
        ({"files": [("image", ("n", b"x"))] * 257}, 413, "at most 256"),
        (of_type(FORM, b"no boundary"), 400, "form"),
        (of_type(f"{FORM}; boundary=b", TEXT_FIELD), 400, "form"),
        (of_type(f"{FORM}; boundary=b"), 400, "no file"),
    ],
)
def test_wrong_bodies_are_refused(ask: Any, given: Any, status: int, reason: str) -> None:
    reply = ask(**given)
    assert reply.status_code == status and reason in reply.json()["error"]


def test_openapi_describes_the_bodies(served: Any) -> None:
    paths = served.app.openapi()["paths"]
    post = paths["/v1/score"]["post"]
    assert set(post["requestBody"]["content"]) == {"multipart/form-data", "image/*"}
    infer = paths["/v2/models/lloss/versions/1/infer"]["post"]
    assert "application/json" in infer["requestBody"]["content"]
