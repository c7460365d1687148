"""Label Studio itself beside the daemon itself: ``make label-studio``.

Not run without ``LLOSS_LABEL_STUDIO``, the path of the ``label-studio`` command in a virtual
environment of its own: its hundred packages pin versions that lloss need not have.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from lloss.annotations import Problems
from lloss.data.object_labels import read_objects

from ..processes import Process
from ..waiting import PATIENCE, until

COMMAND = os.environ.get("LLOSS_LABEL_STUDIO", "")

pytestmark = pytest.mark.skipif(
    not COMMAND, reason="LLOSS_LABEL_STUDIO is not set: make label-studio installs and runs it"
)

TOKEN = "a-token-of-the-daemon"
KEY = "0123456789abcdef0123456789abcdef01234567"
CONFIG = (
    '<View><Image name="img" value="$image"/><Choices name="kind" toName="img">'
    '<Choice value="bright"/><Choice value="dark"/><Choice value="red"/></Choices>'
    '<RectangleLabels name="box" toName="img"><Label value="spot"/></RectangleLabels></View>'
)
SETTINGS = {
    "COLLECT_ANALYTICS": "false",
    "LATEST_VERSION_CHECK": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "FEATURE_FLAGS_OFFLINE": "true",
    # It may reach a daemon on this machine.
    "USE_DEFAULT_BANNED_SUBNETS": "false",
    "USER_ADDITIONAL_BANNED_SUBNETS": "169.254.0.0/16",
}
"""It uses no network."""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Label Studio itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("studio")
    command = [
        COMMAND, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port),
        "--data-dir", str(folder / "data"), "--username", "who@example.org", "--password",
        "a-password", "--user-token", KEY, "--enable-legacy-api-token",
    ]  # fmt: skip
    environment = {**os.environ, **SETTINGS, "HOME": str(folder), "DEBUG": "false"}
    base, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Token {KEY}"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=log,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        with httpx.Client(base_url=base, headers=headers, timeout=PATIENCE) as client:

            def up() -> bool:
                assert process.poll() is None, (folder / "log").read_text()[-2000:]
                with suppress(httpx.TransportError):
                    return client.get("/api/version").status_code == 200
                return False

            until(up, 300)
            yield client
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.fixture(scope="module")
def daemon(
    tmp_path_factory: pytest.TempPathFactory, onnx_file: Path, photos: Path
) -> Iterator[httpx.Client]:
    """``lloss serve`` on the tiny exported model, with a token and the pool ``photos``, scored."""
    folder = tmp_path_factory.mktemp("daemon")
    options = ("--pool-root", str(photos), "--threads", "1")
    with closing(Process(folder, *options, model=onnx_file, token=TOKEN)) as process:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        url = f"http://127.0.0.1:{process.port}"
        with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE) as client:
            process.ready()
            score(client, photos)
            yield client


def score(daemon: httpx.Client, photos: Path) -> None:
    done(daemon.put("/v1/pools/photos", json={"uri": str(photos)}))
    done(daemon.post("/v1/pools/photos/score"), 202)
    until(lambda: done(daemon.get("/v1/pools/photos"))["scores"])


def done(reply: httpx.Response, code: int = 200) -> Any:
    assert reply.status_code == code, f"{reply.request.url}: {reply.status_code} {reply.text[:500]}"
    return reply.json() if reply.content else None


class Project:
    """A project of Label Studio."""

    def __init__(self, studio: httpx.Client) -> None:
        self.studio = studio
        fields = {"title": "photos", "label_config": CONFIG, "sampling": "Uncertainty sampling"}
        self.id = done(studio.post("/api/projects", json=fields), 201)["id"]

    def load(self, tasks: list[dict[str, Any]]) -> None:
        reply = done(self.studio.post(f"/api/projects/{self.id}/import", json=tasks), 201)
        assert reply["task_count"] == len(tasks)

    def send_events(self, daemon: httpx.Client, **headers: str) -> None:
        url = str(daemon.base_url.join("/labelstudio/webhook"))
        fields = {"url": url, "project": self.id, "headers": headers, "send_payload": True}
        done(self.studio.post("/api/webhooks/", json=fields), 201)

    def next(self) -> dict[str, Any] | None:
        reply = self.studio.get(f"/api/projects/{self.id}/next")
        return None if reply.status_code == 404 else done(reply)

    def annotate(self, task: int, *result: Any, **fields: Any) -> int:
        body = {"result": list(result), **fields}
        made: int = done(self.studio.post(f"/api/tasks/{task}/annotations/", json=body), 201)["id"]
        return made

    def export(self) -> Any:
        params = {"exportType": "JSON", "download_all_tasks": "true"}
        return done(self.studio.get(f"/api/projects/{self.id}/export", params=params))


def choice(name: str) -> dict[str, Any]:
    value = {"choices": [name]}
    return {"from_name": "kind", "to_name": "img", "type": "choices", "value": value}


def box(x: float, y: float, width: float, height: float) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
    size = {"original_width": 8, "original_height": 8, "image_rotation": 0}
    names = {"from_name": "box", "to_name": "img", "type": "rectanglelabels", "id": f"r{x}"}
    return {**names, **size, "value": {**value, "rectanglelabels": ["spot"]}}


def labels(daemon: httpx.Client) -> dict[str, str]:
    listed = done(daemon.get("/v1/pools/photos/labels"))["labels"]
    return {one["id"]: one["label"] for one in listed}


def label_all_but_the_third(project: Project, daemon: httpx.Client) -> list[int]:
    """The annotations, the fourth with a box; the webhook sends each, and the skip."""
    served, numbers = [], []
    while (task := project.next()) is not None:
        id = task["data"]["lloss_id"]
        served.append(task["data"]["lloss_loss"])
        if len(served) == 3:
            project.annotate(task["id"], was_cancelled=True)
            continue
        marks = [box(0, 25, 50, 50)] if len(served) == 4 else []
        numbers.append(project.annotate(task["id"], choice(id.split("/")[0]), *marks))
        assert labels(daemon)[id] == id.split("/")[0]
    assert served == sorted(served, reverse=True), "the largest loss first"
    return numbers


def test_a_selection_is_labeled_in_both_places(
    studio: httpx.Client, daemon: httpx.Client, photos: Path, tmp_path: Path
) -> None:
    tasks = done(daemon.post("/v1/pools/photos/select?format=label-studio", json={"k": 8}))
    first, origin = tasks[0]["data"], {"Origin": str(studio.base_url)}
    image = httpx.get(first["image"], headers={**origin, "Sec-Fetch-Site": "cross-site"})
    assert image.content == (photos / first["lloss_id"]).read_bytes(), "without a token"
    assert image.headers["access-control-allow-origin"] == "*"
    project = Project(studio)
    project.send_events(daemon, Authorization=f"Bearer {TOKEN}")
    project.load(tasks[::-1])
    numbers = label_all_but_the_third(project, daemon)
    ids = [task["data"]["lloss_id"] for task in tasks]
    expected = {id: id.split("/")[0] for id in ids if id != ids[2]}
    assert labels(daemon) == expected
    rest = done(daemon.post("/v1/pools/photos/select", json={"k": 1000, "at_most": True}))
    left = {one["id"] for one in rest["images"]}
    assert len(left) == 60 - 8 and not left & set(ids)

    document = project.export()
    done(studio.delete(f"/api/annotations/{numbers[0]}/"), 204)
    assert labels(daemon) == expected, "a deletion changes nothing"
    done(daemon.delete("/v1/pools/photos/labels", params={"id": list(expected)}))
    url = "/v1/pools/photos/labels?format=label-studio&control=kind"
    assert done(daemon.post(url, json=document))["images"] == len(expected)
    assert labels(daemon) == expected

    made = daemon.post("/labelstudio/coco?pool=photos", json=document)
    path = tmp_path / "objects.json"
    path.write_text(made.text, encoding="utf-8")
    objects = read_objects(path, Problems())
    assert set(objects) == set(expected)
    boxes = {id: found.boxes for id, found in objects.items() if len(found.boxes)}
    assert list(boxes) == [ids[3]]
    np.testing.assert_allclose(boxes[ids[3]], [[0, 2, 4, 6]])
