"""The routes of pools, jobs, selections and labels, as a client sees them."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from lloss.serve.daemon.app import create_app
from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.model_manager import ModelManager
from lloss.serve.daemon.settings import ServeSettings
from PIL import Image

from lloss.annotations.label_csv import read_labels
from lloss.pools import open_pool

from ....waiting import PATIENCE
from ..scores import write_scores

P = "/v1/pools/p"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a pool of twenty images, some of odd names, and scores of it."""
    root = (tmp_path / "root").resolve()
    (root / "pool").mkdir(parents=True)
    names = [f"{n:02}.png" for n in range(17)] + ["é 😀.png", "a,\"b'.png", "0\nline.png"]
    for name in names:
        Image.new("RGB", (8, 8)).save(root / "pool" / name)
    ids = list(open_pool(root / "pool").ids())
    losses = np.linspace(0, 1, len(ids)).astype(np.float32)
    run = {"model_sha256": "ab" * 32, "pool": str(root / "pool"), "pool_fingerprint": ""}
    write_scores(root / "scores", ids, {"loss": losses}, excluded=0, **run)
    return root


@pytest.fixture
def daemon(root: Path, tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(
        ServeSettings(model=root / "m", data_dir=tmp_path / "data", pool_roots=(str(root),))
    )
    yield daemon
    daemon.close()


@pytest.fixture
def client(daemon: Daemon) -> TestClient:
    return TestClient(create_app(daemon), raise_server_exceptions=False)


@pytest.fixture
def pool(client: TestClient, root: Path) -> list[str]:
    """The pool ``p`` with scores; its ids, best first."""
    body = {"uri": str(root / "pool"), "scores": str(root / "scores")}
    assert client.put(P, json=body).status_code == 200
    return list(open_pool(root / "pool").ids())[::-1]


def error(reply: httpx.Response, status: int) -> str:
    assert reply.status_code == status, reply.text
    body = reply.json()
    assert list(body) == ["error"] and "\n" not in body["error"]
    return str(body["error"])


def test_a_pool_is_added_shown_and_deleted(client: TestClient, root: Path) -> None:
    body = {"uri": str(root / "pool")}
    made = client.put(P, json=body)
    assert made.status_code == 200 and client.put(P, json=body).json() == made.json()
    view = client.get(P).json()
    assert view["name"] == "p" and view["scores"] is None and view["job"] is None
    assert view["images"] == {"labeled": 0, "pending": 0, "skipped": 0}
    body["scores"] = str(root / "scores")
    scores = client.put(P, json=body).json()["scores"]
    assert scores == {"folder": body["scores"], "model_sha256": "ab" * 32,
                      "scored": 20, "skipped": 0}  # fmt: skip
    assert [one["name"] for one in client.get("/v1/pools").json()["pools"]] == ["p"]
    error(client.put(P, json={"uri": f"{root}/pool/"}), 409)
    assert client.delete(P).status_code == 204
    error(client.delete(P), 404)
    assert client.get("/v1/pools").json() == {"pools": []}


def test_no_reply_shows_the_signature_of_a_url(client: TestClient, daemon: Daemon) -> None:
    url = "https://bucket.example/data.tar?X-Amz-Signature=secret"
    daemon.catalog.pools.put("p", url)
    for reply in (client.get(P), client.get("/v1/pools"), client.put(P, json={"uri": "/x"})):
        assert "bucket.example/data.tar" in reply.text or reply.status_code == 403
        assert "secret" not in reply.text
    with pytest.raises(RequestError, match="choose another name") as caught:
        daemon.catalog.pools.put("p", "/x")
    assert "secret" not in str(caught.value)


def test_pools_outside_the_roots_are_refused(client: TestClient, tmp_path: Path) -> None:
    assert "outside every --pool-root" in error(client.put(P, json={"uri": str(tmp_path)}), 403)
    assert "is not an absolute path" in error(client.put(P, json={"uri": "pool"}), 422)


def post_json(client: TestClient, path: str, body: Any, method: str = "POST") -> httpx.Response:
    headers = {"Content-Type": "application/json"}  # json.dumps escapes lone surrogates
    return client.request(method, path, content=json.dumps(body), headers=headers)


def test_wrong_bodies_are_refused(client: TestClient) -> None:
    for body in (
        {}, [], {"uri": 5}, {"uri": None}, {"uri": "/x", "more": 1}, {"uri": "/x" * 5000},
        {"uri": "\ud800"}, {"uri": ""}, {"uri": "/x", "scores": ""},
    ):  # fmt: skip
        error(post_json(client, P, body, "PUT"), 422)
    many = {f"a{n}": n for n in range(50_000)}  # to list them all takes very long
    for path in ("/select", "/skip", "/return"):
        assert "50000 fields: give only known" in error(post_json(client, P + path, many), 422)
    for kind in ("application/x-www-form-urlencoded", "text/plain", ""):  # curl -d sends the first
        headers = {"Content-Type": kind} if kind else {}
        message = error(client.put(P, content=b'{"uri": "/x"}', headers=headers), 415)
        assert message == f"Content-Type {kind!r}: send JSON, as application/json"


def test_wrong_names_are_refused(client: TestClient, root: Path) -> None:
    for name in ("..%2f..", "-a", "a%20b", "a" * 101, "%00", "é", "a%0a"):
        reply = client.put(f"/v1/pools/{name}", json={"uri": str(root / "pool")})
        assert reply.status_code in (404, 405, 422), name
    assert client.get("/v1/pools").json() == {"pools": []}


def test_a_selection_is_json_csv_or_tasks(client: TestClient, pool: list[str]) -> None:
    reply = client.post(f"{P}/select", json={"k": 2, "exclude": [pool[0]]})
    view = reply.json()
    assert [one["id"] for one in view["images"]] == pool[1:3]
    assert view["eligible"] == 19 and view["model_sha256"] == "ab" * 32 and not view["replayed"]
    assert reply.headers["Lloss-Selection"] == view["id"]
    reply = client.post(f"{P}/select?format=csv", json={"k": 2})
    assert reply.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(reply.text, newline="")))
    assert [row["id"] for row in rows] == [pool[0], pool[3]] and rows[0]["rank"] == "1"
    pending = client.get(P).json()["images"]["pending"]
    assert "ask with format=json" in error(
        client.post(f"{P}/select?format=csv", json={"k": 16}), 409
    )
    assert client.get(P).json()["images"]["pending"] == pending  # nothing was handed out
    assert float(rows[0]["score"]) == 1.0
    (task,) = client.post(f"{P}/select?format=label-studio", json={"k": 1}).json()
    assert task["data"]["lloss_id"] == pool[4]
    error(client.post(f"{P}/select?format=ids", json={"k": 1}), 422)


def test_headers_count_unknown_ids_and_mark_replays(client: TestClient, pool: list[str]) -> None:
    body = {"k": 1, "exclude": [pool[0], f"photos/{pool[1]}", "gone.png", "lost.png"]}
    headers = {"Idempotency-Key": "k 1"}
    replies = [client.post(f"{P}/select", json=body, headers=headers) for _ in range(2)]
    for reply, replayed in zip(replies, (False, True)):
        view = reply.json()
        assert [one["id"] for one in view["images"]] == [pool[2]]
        assert (view["unknown"], view["by_name"], view["replayed"]) == (2, 1, replayed)
        assert reply.headers["Lloss-Unknown"] == "2"
        assert reply.headers["Lloss-Replayed"] == str(replayed).lower()
    reply = client.post(f"{P}/select", json={"k": 1, "exclude": pool[:1]})
    assert reply.json()["unknown"] == 0 and "Lloss-Unknown" not in reply.headers
    assert "another request" in error(
        client.post(f"{P}/select", json={"k": 4}, headers=headers), 422
    )
    for key in ("", "x" * 256):
        error(client.post(f"{P}/select", json={"k": 3}, headers={"Idempotency-Key": key}), 422)
    assert client.get(P).json()["images"]["pending"] == 2


def test_unknown_parameters_are_refused(client: TestClient, pool: list[str]) -> None:
    message = error(client.post(f"{P}/select?strategy=diverse", json={"k": 1}), 422)
    assert message == "unknown query parameter 'strategy' (known: format)"
    for method, path in (
        ("GET", f"{P}/labels?fromat=csv"),
        ("POST", f"{P}/score?anwe=true"),
        ("GET", f"{P}/preview?K=3"),
        ("GET", "/v1/jobs?pools=p"),
        ("POST", "/labelstudio/webhook?contol=kind"),
        ("POST", "/v1/score?outputs=embedding"),
    ):
        assert "unknown query parameter" in error(client.request(method, path, json={}), 422)
    assert client.get(f"{P}/pending").json()["total"] == 0


def test_wrong_selections_are_refused(client: TestClient, pool: list[str]) -> None:
    fields: list[dict[str, Any]] = [
        {"k": 0}, {"k": 1_000_001}, {"k": "3"}, {"k": 3.0}, {"k": True}, {"strategy": "best"},
        {"subset": -1}, {"subset": 1.5}, {"seed": 2**63}, {"exclude": "a"}, {"exclude": [1]},
        {"exclude": ["\ud800"]}, {"exclude": ["x" * 9000]}, {"why": 1},
        {"min_distance": -1}, {"min_distance": 2.5}, {"balance": 3}, {"balance": "x" * 101},
    ]  # fmt: skip
    for body in ({}, *({"k": 3, **some} for some in fields)):
        error(post_json(client, f"{P}/select", body), 422)
    unused = post_json(client, f"{P}/select", {"k": 3, "strategy": "random", "by": "entropy"})
    assert error(unused, 422) == "by 'entropy': random chooses by no scores; leave it out"
    lacking = ({"by": "x'; DROP TABLE pools"}, {"strategy": "diverse"}, {"balance": "predicted"})
    for body in ({"k": 3, **some} for some in (*lacking, {"min_distance": 0.5})):
        assert "has no column" in error(post_json(client, f"{P}/select", body), 409)
    assert client.get(f"{P}/pending").json() == {"total": 0, "images": []}


def test_probes_and_metrics_reply_while_all_threads_are_busy(
    client: TestClient, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, busy = threading.Event(), threading.Semaphore(0)

    def slow(*_: Any) -> None:
        busy.release()
        free.wait(PATIENCE)
        raise RequestError(404, "too late")

    monkeypatch.setattr(daemon, "not_ready", lambda: "")
    monkeypatch.setattr(daemon.catalog.pools, "row", slow)
    monkeypatch.setattr(daemon.selections, "hand_out", slow)
    with client, ThreadPoolExecutor(65) as threads:  # one loop for all
        for n in range(20):
            threads.submit(client.post, f"{P}{n}/select", json={"k": 1})
        for _ in range(45):
            threads.submit(client.get, P)
        try:
            for _ in range(16 + 40):  # selections have threads of their own
                assert busy.acquire(timeout=PATIENCE)
            for path in ("/readyz", "/v2/health/ready", "/v2/models/lloss/ready", "/metrics"):
                assert client.get(path).status_code == 200
            assert not busy.acquire(timeout=0)
        finally:
            free.set()


def test_slow_selections_of_a_pool_delay_no_other(
    client: TestClient, daemon: Daemon, root: Path, pool: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"uri": str(root / "pool"), "scores": str(root / "scores")}
    assert client.put("/v1/pools/q", json=body).status_code == 200
    free, begun, hand_out = threading.Event(), threading.Event(), daemon.selections.hand_out

    def slow(pool: str, *given: Any) -> Any:
        if pool == "p":
            begun.set()
            free.wait(PATIENCE)
        return hand_out(pool, *given)

    monkeypatch.setattr(daemon.selections, "hand_out", slow)
    with client, ThreadPoolExecutor(21) as threads:  # one loop for all
        ask = partial(client.post, json={"k": 1})
        try:
            slow_ones = [threads.submit(ask, P + "/select") for _ in range(20)]
            assert begun.wait(PATIENCE)
            other = threads.submit(ask, "/v1/pools/q/select")
            assert other.result(PATIENCE).status_code == 200
        finally:
            free.set()
    assert all(reply.result().status_code == 200 for reply in slow_ones)
    assert client.get(P).json()["images"]["pending"] == 20


def test_pending_and_preview(client: TestClient, pool: list[str]) -> None:
    view = client.post(f"{P}/select", json={"k": 2}).json()
    found = client.get(f"{P}/pending", params={"limit": 1}).json()
    assert found["total"] == 2
    assert found["images"] == [{"id": pool[0], "selection": view["id"], "rank": 1,
                                "score": 1.0, "expires": view["expires"]}]  # fmt: skip
    shown = client.get(f"{P}/preview", params={"k": 3}).json()["images"]
    assert [one["id"] for one in shown] == pool[2:5]
    for k in (0, 1001, "x"):
        error(client.get(f"{P}/preview", params={"k": k}), 422)
    body = {"ids": [pool[0], "none"], "selection": "another"}
    returned = client.post(f"{P}/return", json=body).json()
    assert returned == {"images": 0, "others": 1, "unknown": 1}
    returned = client.post(f"{P}/return", json={"ids": [pool[0]]}).json()
    assert returned == {"images": 1, "others": 0, "unknown": 0}
    assert client.post(f"{P}/skip", json={"ids": [pool[2]]}).json() == {"images": 1}
    shown = client.get(f"{P}/preview", params={"k": 3}).json()["images"]
    assert [one["id"] for one in shown] == [pool[0], *pool[3:5]]
    error(client.post(f"{P}/skip", json={"ids": ["none"]}), 422)
    error(client.post(f"{P}/return", json={"ids": []}), 422)


def test_labels_are_json_or_csv_that_training_reads(
    client: TestClient, pool: list[str], tmp_path: Path
) -> None:
    done = {"images": 0, "kept": 0, "by_name": 0, "without_class": 0, "new_classes": []}
    done |= {"disputed": 0, "notes": []}

    def label(content: Any, query: str = "") -> httpx.Response:
        if isinstance(content, list):
            return client.post(f"{P}/labels{query}", json={"labels": content})
        headers = {"Content-Type": "text/csv; charset=utf-8"}
        return client.post(f"{P}/labels{query}", content=content, headers=headers)

    given = [{"id": pool[3], "label": "cat"}, {"id": pool[4]}]
    message = error(label(given), 422)
    assert "choose a class first (or skip)" in message and repr(pool[4]) in message
    assert client.get(f"{P}/labels").json() == {"labels": []}
    assert label(given, "?without=true").json() == {**done, "images": 2}
    odd = [id for id in pool if not id[:2].isdigit() and "\n" not in id]
    text = io.StringIO()
    csv.writer(text).writerows([["label", "id", "note"], *(["owl", id, ""] for id in odd)])
    body = ("\ufeff" + text.getvalue()).encode()
    assert "nearest known one is 'cat'" in error(label(body), 422)
    reply = label(body, "?allow_new_classes=true").json()
    assert reply == {**done, "images": len(odd), "new_classes": ["owl"]}
    other = f"image;breed;category;split\n{odd[0]};x;owl;test\n"
    assert label(other).json()["notes"] == [
        "the CSV: separated by semicolons; read: image and category",
        "the CSV: only the columns image and category are read, not split: all rows are labels of "
        "the images that image names",
    ]
    alone = label(f"image,breed\n{odd[0]},owl\n", "?without=true").json()
    assert alone["notes"] == ["the CSV: read: the column image"]
    expected = {pool[3]: "cat", **dict.fromkeys(odd, "owl")}
    held = client.get(f"{P}/labels").json()["labels"]
    assert {one["id"]: one["label"] for one in held} == {**expected, pool[4]: ""}
    reply = client.get(f"{P}/labels?format=csv")
    (tmp_path / "l.csv").write_bytes(reply.content)
    assert read_labels(tmp_path / "l.csv") == expected
    assert reply.headers["Lloss-Without-Label"] == "1"
    every = client.get(f"{P}/labels?format=csv&without=true")
    assert label(every.content, "?without=true").json()["images"] == len(expected) + 1
    bare = f"id,score,rank\n{pool[3]},1,1\n{pool[5]},.5,2\n"
    assert "choose a class first" in error(label(bare), 422)
    assert label(bare, "?without=true").json() == {**done, "images": 2, "kept": 1}
    (broken,) = [id for id in pool if "\n" in id]
    label([{"id": broken, "label": "cat"}])
    assert "choose another format" in error(client.get(f"{P}/labels?format=csv"), 422)
    reply = client.delete(f"{P}/labels", params={"id": [pool[3], pool[5], "none"]})
    assert reply.json() == {"images": 2}


WRONG_CSV = {
    b"": "needs a column 'id'",
    b"id,label\n00.png,\n": "line 2: an empty id or label",
    b"id,label\n00.png,a\n00.png,b\n": "keep one of them",
    b"id\n": "no label",
    b"id\n\xff\n": "the CSV, line 2: is not UTF-8",
    b"id\n../../etc/passwd\n": "not in the pool",
    b"id,color\n00.png,cat\n": "'00.png' has no label",
}
WRONG_JSON = {
    b"": "JSON",
    b'{"labels": [{"id": "00.png", "label": "a", "label": "b"}]}': "twice",
    b'{"labels": [{"id": "00.png", "label": "a"}], "labels": '
    b'[{"id": "01.png", "label": "b"}]}': "the key 'labels' comes twice",
    b"[" * 100_000: "JSON",
    b'{"labels": []}': "labels",
    b'{"labels": [{"id": "\\ud800"}]}': "JSON",
    b'{"labels": [{"id": "00.png\\u0000"}]}': "not in the pool",
    b'{"labels": [{"id": 5}]}': "labels.0.id",
    b'{"labels": [{"id": "00.png", "x": 1}]}': "labels.0.x",
    b'{"labels": [{"id": "00.png"}], "without": true}': "without: Extra inputs",
    b'{"labels": [{"id": "00.png"}, {"id": "00.png"}]}': "comes twice",
    b'{"labels": [{"id": "00.png"}, {"id": "none"}]}': "none was marked",
    b'{"labels": [{"id": "00.png"}]}': "choose a class first",
    b'{"labels": [{"id": "00.png", "label": " "}]}': "choose a class",
}


def test_wrong_labels_are_refused(client: TestClient, pool: list[str]) -> None:
    for kind, bodies in (("text/csv", WRONG_CSV), ("application/json", WRONG_JSON)):
        for body, reason in bodies.items():
            reply = client.post(f"{P}/labels", content=body, headers={"Content-Type": kind})
            assert reason in error(reply, 422)
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        reply = client.post(f"{P}/labels", content=b"id\n", headers={"Content-Type": kind})
        assert "application/json or text/csv" in error(reply, 415)
    reply = client.post(f"{P}/labels?format=label-studio", content=b"{")
    assert "JSON" in error(reply, 422)
    assert client.get(f"{P}/labels").json() == {"labels": []}


def test_a_pool_is_scored_by_a_job(
    client: TestClient, pool: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "not loaded yet" in error(client.post(f"{P}/score"), 503)
    model = SimpleNamespace(sha256="cd" * 32, provider="cpu")
    monkeypatch.setattr(ModelManager, "current", model)
    reply = client.post(f"{P}/score")
    job = reply.json()
    assert reply.status_code == 202 and reply.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert (job["state"], job["pool"], job["rate"]) == ("queued", "p", None)
    assert client.post(f"{P}/score").json()["id"] == job["id"]
    assert client.get(reply.headers["Location"]).json() == job
    assert client.get(P).json()["job"] == job
    assert client.get("/v1/jobs", params={"pool": "p"}).json() == {"jobs": [job]}
    assert client.post(f"{P}/score", json={}).json()["id"] == job["id"]
    assert "anew" in error(client.post(f"{P}/score", json={"anew": True}), 422)
    assert job["id"] in error(client.delete(P), 409)
    assert client.delete(reply.headers["Location"]).json()["state"] == "cancelled"
    assert client.get("/v1/jobs").json()["jobs"][0]["state"] == "cancelled"
    for path in ("none", "%00", "..%2f", "x" * 101, "'; DROP TABLE jobs"):
        assert client.get(f"/v1/jobs/{path}").status_code in (404, 422)
    error(client.get("/v1/jobs", params={"pool": "none"}), 404)
    error(client.get("/v1/jobs", params={"pool": "../x"}), 422)
    error(client.post("/v1/pools/none/score"), 404)


def test_every_route_answers_404_for_an_unknown_pool(client: TestClient) -> None:
    for what in ("", "/labels", "/preview", "/pending"):
        error(client.get(f"/v1/pools/q{what}"), 404)
    ids = {"ids": ["a"]}
    bodies = {"select": {"k": 1}, "skip": ids, "return": ids, "labels": {"labels": [{"id": "a"}]}}
    for what, body in bodies.items():
        error(client.post(f"/v1/pools/q/{what}", json=body), 404)
