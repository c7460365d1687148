from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from .conftest import Daemon
from .messages import bulk, event, recorded

Send = Callable[..., dict[str, Any]]


@pytest.fixture
def send(client: TestClient) -> Send:
    """Send an event; returns what it changed."""

    def post(event: Any, code: int = 201, query: str = "") -> Any:
        reply = client.post(f"/labelstudio/webhook{query}", content=json.dumps(event))
        assert reply.status_code == code, reply.text
        return {name: count for name, count in reply.json().items() if count}

    return post


def logged(caplog: pytest.LogCaptureFixture, name: str) -> dict[str, Any]:
    """The fields of the newest event of this name."""
    said = [record for record in caplog.records if record.message == name]
    fields: dict[str, Any] = vars(said[-1])["lloss_fields"]
    return fields


def test_recorded_events_label_and_skip(
    send: Send, daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    zero, one = {"0.png": "label:dog"}, {"1.png": "label:dog"}
    three, four = {"3.png": "label:cat"}, {"4.png": "label:cat"}
    steps: list[tuple[dict[str, int], dict[str, str]]] = [
        ({"labeled": 1}, {"0.png": "label:cat"}),
        ({"labeled": 1, "relabeled": 1}, zero),
        ({"skipped": 1}, zero | {"1.png": "skipped"}),
        ({"labeled": 1}, zero | one),
        ({"without_class": 1}, zero | one),  # boxes, and two choices of another control
        ({"labeled": 1}, zero | one | three),
        ({"deleted": 1}, zero | one | three),
        ({"labeled": 1}, zero | one | three | four),
        ({"deleted": 1}, zero | one | three | four),
    ]
    events = recorded("webhooks.json")
    for sent, (changed, state) in zip(events, steps):
        assert send(sent) == changed
        assert daemon.state == state
    fields = logged(caplog, "label_studio_deleted")
    assert fields["annotations"] == 1 and "DELETE /v1/pools" in fields["note"]
    (deleted_task,) = events[len(steps) :]
    send(deleted_task, 200)
    assert daemon.state == steps[-1][1]


def test_annotations_of_unknown_pools_and_images_are_ignored(send: Send, daemon: Daemon) -> None:
    gone = event(4, pool="gone")
    some = bulk(event(1), event(2, "1.png"), event(3, "nowhere.png"), gone)
    assert send(some) == {"labeled": 2, "ignored": 2}
    assert set(daemon.state) == {"0.png", "1.png"}


def test_malformed_and_other_events_change_nothing(send: Send, daemon: Daemon) -> None:
    for action in ("PROJECT_UPDATED", "TASKS_DELETED", "START_TRAINING", None, 3, ["x"]):
        send({"action": action, "annotation": {}, "task": {}}, 200)
    good = event(1)
    wrong: list[dict[str, Any]] = [
        {"action": "ANNOTATION_CREATED"},
        {**good, "annotation": None}, {**good, "annotation": [], "task": {}},
        {**good, "annotation": [3], "task": [3]}, {**good, "task": {"data": {"image": "x"}}},
        *(event(1, id) for id in ("", "\ud800")), event(1, pool="\ud800"),
        *({**good, "annotation": good["annotation"] | {"id": id}} for id in ("1", True)),
    ]  # fmt: skip
    for one in wrong:
        assert send(one) == {"ignored": 1}, one
    odd = {**good, "annotation": {"id": 5, "result": [3, {}], "updated_at": "?"}}
    assert send(odd) == {"without_class": 1}
    assert daemon.state == {}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100_000, b"\xff"])
def test_a_body_that_is_not_an_object_is_refused(client: TestClient, body: bytes) -> None:
    reply = client.post("/labelstudio/webhook", content=body)
    assert reply.status_code == 422 and "\n" not in reply.json()["error"]


def test_a_pool_that_cannot_be_read_is_an_error(send: Send, daemon: Daemon, tmp_path: Path) -> None:
    daemon.catalog.pools.put("away", str(tmp_path / "away"))
    assert "no such pool" in str(send(event(1, pool="away"), 422)["error"])


def test_a_skip_changes_no_label(send: Send, daemon: Daemon) -> None:
    both = bulk(event(1, choice="dog"), event(2, was_cancelled=True))
    assert send(both) == {"labeled": 1}
    assert send(event(3, was_cancelled=True)) == {}
    assert daemon.state == {"0.png": "label:dog"}


def test_of_several_annotations_in_an_event_the_newest_counts(send: Send, daemon: Daemon) -> None:
    new = event(1, choice="dog", updated_at="2026-01-01T00:00:00.5Z")
    old = event(2, choice="cat", updated_at="2026-01-01T00:00:00Z")
    assert send(bulk(new, old)) == {"labeled": 1}
    assert daemon.state == {"0.png": "label:dog"}


def test_an_annotation_without_a_class_labels_nothing(
    send: Send, daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    assert send(event(1, result=[])) == {"without_class": 1}
    assert daemon.state == {}
    assert logged(caplog, "label_studio_doubts")["without_class"] == 1
    daemon.models.current.manifest.outputs = {}
    assert send(event(1, result=[])) == {"labeled": 1}
    assert daemon.state == {"0.png": "label:"}, "boxes are in the export"


def test_a_new_class_is_accepted_and_reported(
    send: Send, daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    assert send(event(1, choice="kitten"))["new_classes"] == ["kitten"]
    assert logged(caplog, "label_studio_doubts")["new_classes"] == ["kitten"]
    assert send(event(2, "1.png", choice=" kitten ")) == {"labeled": 1}
    assert daemon.state == {"0.png": "label:kitten", "1.png": "label:kitten"}


def test_the_named_control_gives_the_label(send: Send, daemon: Daemon) -> None:
    kind = {"type": "choices", "from_name": "kind", "value": {"choices": ["cat"]}}
    light = {"type": "choices", "from_name": "light", "value": {"choices": ["dog"]}}
    made = event(1, result=[light, kind])
    assert send(made) == {"without_class": 1}
    assert send(made, query="?control=kind") == {"labeled": 1}
    assert daemon.state == {"0.png": "label:cat"}


@pytest.mark.parametrize(
    ("result", "label"),
    [
        ([{"type": "choices", "value": {"choices": ["cat", "dog"]}}], ""),
        ([{"type": "choices", "value": {"choices": ["cat"]}}] * 2, ""),
        ([{"type": "choices", "value": {"choices": ["cat"], "x": 1, "width": 5}}], ""),
        ([{"type": "rectanglelabels", "value": {"rectanglelabels": ["cat"]}},
          {"type": "choices", "value": {"choices": ["dog"]}}], "dog"),
        ([{"type": "choices", "value": {"choices": [3]}}], ""),
        ([{"type": "choices", "value": []}, 3], ""),
    ],
)  # fmt: skip
def test_the_label_is_the_only_choice_for_the_whole_image(
    send: Send, daemon: Daemon, result: Any, label: str
) -> None:
    assert send(event(1, result=result)) == {"labeled" if label else "without_class": 1}
    assert daemon.state == ({"0.png": f"label:{label}"} if label else {})


def test_connecting_a_model_is_refused_with_the_remedy(client: TestClient) -> None:
    reply = client.get("/labelstudio/health")
    assert reply.status_code == 404 and "select?format=label-studio" in reply.json()["error"]
