from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.label_classes import Accepted
from lloss.serve.daemon.store.image_table import Marks
from starlette.testclient import TestClient

from .daemons import Daemon
from .messages import bulk, deleted, event, recorded, send, task


def test_recorded_events_label_and_unlabel(client: TestClient, daemon: Daemon) -> None:
    events = iter(recorded("webhooks.json"))
    zero, one = {"0.png": "label:dog"}, {"1.png": "label:dog"}
    three, four = {"3.png": "label:cat"}, {"4.png": "label:cat"}
    steps: list[tuple[str, dict[str, str]]] = [
        ("ANNOTATION_CREATED", {"0.png": "label:cat"}),
        ("ANNOTATION_UPDATED", zero),
        ("ANNOTATION_CREATED", zero | {"1.png": "skipped"}),
        ("ANNOTATION_CREATED", zero | one),
        ("ANNOTATION_CREATED", zero | one),  # boxes, and two choices of another control
        ("ANNOTATION_CREATED", zero | one | three),
        ("ANNOTATIONS_DELETED", zero | one),
        ("ANNOTATIONS_CREATED", zero | one | four),
        ("ANNOTATIONS_DELETED", one | four),
    ]
    for action, expected in steps:
        event = next(events)
        assert event["action"] == action
        send(client, event)
        assert daemon.state == expected
    before = daemon.state
    for event in events:  # a deleted task keeps its label: its annotation may be exported
        send(client, event, 200)
    assert daemon.state == before


def test_annotations_of_unknown_pools_and_images_are_ignored(
    client: TestClient, daemon: Daemon
) -> None:
    gone = event(4)
    gone["task"]["data"]["lloss_pool"] = "gone"
    assert send(client, bulk(event(1), event(2, "1.png"), event(3, "nowhere.png"), gone)) == {
        "labeled": 2, "unlabeled": 0, "skipped": 0, "ignored": 2, "disputed": 0, "without_class": 0,
        "new_classes": [],
    }  # fmt: skip
    assert set(daemon.state) == {"0.png", "1.png"}


def test_malformed_and_other_events_change_nothing(client: TestClient, daemon: Daemon) -> None:
    for action in ("PROJECT_UPDATED", "TASKS_DELETED", None, 3, ["ANNOTATION_CREATED"]):
        send(client, {"action": action, "annotation": {}, "task": {}}, 200)
    good = event(1)
    wrong: list[dict[str, Any]] = [
        {"action": "ANNOTATION_CREATED"},
        {**good, "annotation": None}, {**good, "annotation": [], "task": {}},
        {**good, "annotation": [3], "task": [3]}, {**good, "task": {"data": {"image": "x"}}},
        *({**good, "annotation": good["annotation"] | {"id": id}} for id in ("1", True, 1 << 63)),
        {"action": "ANNOTATIONS_DELETED", "annotations": 3},
        deleted(None, "x", 1 << 70, 1.5),
    ]  # fmt: skip
    for one in wrong:
        assert send(client, one)["labeled"] == 0
    assert daemon.state == {}
    surrogates = {"id": "\ud800", "created_at": "\udfff"}
    assert send(client, {**good, "project": surrogates})["labeled"] == 1
    assert send(client, {**deleted(1), "project": surrogates})["unlabeled"] == 1
    odd = {**good, "project": 3, "annotation": {"id": 5, "result": [3, {}], "updated_at": "?"}}
    assert send(client, odd)["without_class"] == 1
    assert daemon.state == {}


def test_a_pool_that_cannot_be_read_refuses_the_whole_event(
    client: TestClient, daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "away/0.png").write_bytes(b"")
    daemon.catalog.pools.put("away", str(tmp_path / "away"))
    both = bulk(event(2), event(1))
    both["task"][1] = task("0.png", "away")
    (tmp_path / "away").rename(tmp_path / "gone")
    assert "no such pool" in send(client, both, 422)["error"]
    assert daemon.state == {}
    (tmp_path / "gone").rename(tmp_path / "away")
    assert send(client, both)["labeled"] == 2
    assert daemon.catalog.images.labels("away") == {"0.png": "cat"}
    send(client, deleted(1))
    assert daemon.catalog.images.labels("away") == {}


def test_labels_and_skips_from_elsewhere_stay(client: TestClient, daemon: Daemon) -> None:
    daemon.labels.label("wild", {"0.png": "owl"}, Accepted(new_classes=True))
    daemon.labels.skip("wild", ["1.png"])
    daemon.labels.skip("wild", ["2.png"])
    before = {"0.png": "label:owl", "1.png": "skipped", "2.png": "skipped"}
    send(client, event(1, was_cancelled=True))
    assert daemon.state == before, "a skip removes no label"
    send(client, deleted(1))
    assert daemon.state == before
    send(client, event(3, choice="cat"))
    daemon.labels.label("wild", {"0.png": "owl"}, Accepted(new_classes=True))
    send(client, deleted(3))
    assert daemon.state == before, "a later label stays"
    send(client, event(2, "1.png"))
    daemon.labels.unlabel("wild", ["1.png"])
    daemon.labels.skip("wild", ["1.png"])
    send(client, deleted(2))
    assert daemon.state == before, "a later skip stays"


def test_an_annotation_without_a_class_labels_nothing(
    client: TestClient, daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    send(client, event(1))
    reply = send(client, event(1, result=[]))  # the annotator removed the choice
    assert (reply["labeled"], reply["unlabeled"], reply["without_class"]) == (0, 0, 1)
    assert daemon.state == {}
    assert "1 images were annotated without a class" in caplog.text
    daemon.models.current.manifest.task = "detection"
    send(client, event(1))
    send(client, event(1, result=[]))
    assert daemon.state == {"0.png": "label:"}, "boxes are in the export"


def test_a_new_class_is_accepted_and_reported(
    client: TestClient, daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    assert send(client, event(1, choice="kitten"))["new_classes"] == ["kitten"]
    assert "kitten" in caplog.text
    assert send(client, event(2, "1.png", choice=" kitten "))["new_classes"] == []
    assert daemon.state == {"0.png": "label:kitten", "1.png": "label:kitten"}


def test_the_named_control_gives_the_label(client: TestClient, daemon: Daemon) -> None:
    kind = {"type": "choices", "from_name": "kind", "value": {"choices": ["cat"]}}
    light = {"type": "choices", "from_name": "light", "value": {"choices": ["dog"]}}
    made = event(1, result=[light, kind])
    assert send(client, made)["without_class"] == 1
    reply = client.post("/labelstudio/webhook?control=kind", json=made)
    assert reply.json()["labeled"] == 1 and daemon.state == {"0.png": "label:cat"}


def test_annotations_and_labels_are_written_in_one_transaction(
    client: TestClient, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(client, event(1, choice="dog"))
    send(client, event(2, "1.png", was_cancelled=True))
    before = daemon.state
    three = bulk(event(1), event(2, "1.png"), event(3, "2.png", was_cancelled=True))
    three["annotation"][0]["result"] = []

    def rows() -> list[tuple[Any, ...]]:
        with daemon.catalog.reading() as db:
            return [tuple(row) for row in db.execute("SELECT * FROM annotations")]

    stored = rows()
    for step in ("unlabel", "skip", "label"):
        with monkeypatch.context() as patch:
            patch.setattr(Marks, step, lambda *_: (_ for _ in ()).throw(RequestError(507, "full")))
            send(client, three, 507)
        assert daemon.state == before and rows() == stored, step
    send(client, three)
    assert daemon.state == {"1.png": "label:cat", "2.png": "skipped"}
    assert len(rows()) == 3


# Several annotations of one image


def test_the_newest_annotation_that_is_left_counts(client: TestClient, daemon: Daemon) -> None:
    send(client, event(1, choice="cat", updated_at="2026-01-01T00:00:00Z"))
    send(client, event(2, choice="dog", updated_at="2026-01-01T00:00:00.5Z"))
    send(client, event(3, was_cancelled=True, updated_at="2026-01-02T00:00:00Z"))
    assert daemon.state == {"0.png": "label:dog"}
    send(client, deleted(2, project=7))  # the same number in another project
    assert daemon.state == {"0.png": "label:dog"}
    send(client, deleted(2))
    assert daemon.state == {"0.png": "label:cat"}
    assert send(client, deleted(1))["skipped"] == 1
    assert daemon.state == {"0.png": "skipped"}
    assert send(client, deleted(3, 3, 99))["unlabeled"] == 1
    assert daemon.state == {}


def test_an_older_event_that_arrives_later_changes_nothing(
    client: TestClient, daemon: Daemon
) -> None:
    send(client, event(1, choice="dog", updated_at="2026-01-01T00:00:09Z"))
    send(client, event(1, choice="cat", updated_at="2026-01-01T00:00:01Z"))
    assert daemon.state == {"0.png": "label:dog"}
    send(client, deleted(1, 2))
    for number in (1, 2):
        late = event(number, choice="dog", updated_at="2099-01-01T00:00:00Z")
        assert send(client, late)["labeled"] == 0
    assert daemon.state == {}


def test_annotations_of_different_classes_are_counted(client: TestClient, daemon: Daemon) -> None:
    send(client, event(1, choice="cat", updated_at="2026-01-01T00:00:00Z"))
    assert send(client, event(2, choice="cat"))["disputed"] == 0
    skip = event(3, choice="dog", was_cancelled=True, updated_at="2026-01-02T00:00:00Z")
    assert send(client, skip)["disputed"] == 0
    newer = event(4, choice="dog", updated_at="2026-01-02T00:00:00Z")
    assert send(client, newer)["disputed"] == 1
    assert daemon.state == {"0.png": "label:dog"}
    assert send(client, deleted(4))["disputed"] == 0


def test_annotations_are_removed_with_their_pool(client: TestClient, daemon: Daemon) -> None:
    send(client, event(1, choice="cat", updated_at="2026-01-01T00:00:00Z"))
    daemon.catalog.pools.remove("wild")
    daemon.put("wild", [3, 2, 1])
    send(client, event(2, choice="dog", updated_at="2026-01-02T00:00:00Z"))
    send(client, deleted(2))
    assert daemon.state == {}


@pytest.mark.parametrize(
    ("result", "label"),
    [
        ([], ""),
        ([{"type": "choices", "value": {"choices": ["cat"]}}], "cat"),
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
    client: TestClient, daemon: Daemon, result: Any, label: str
) -> None:
    reply = send(client, event(1, result=result))
    assert (reply["labeled"], reply["without_class"]) == ((1, 0) if label else (0, 1))
    daemon.models.current.manifest.task = "detection"
    reply = send(client, event(2, "1.png", result=result))
    assert (reply["labeled"], reply["without_class"]) == (1, 0)
    classified = {"0.png": f"label:{label}"} if label else {}
    assert daemon.state == {**classified, "1.png": f"label:{label}"}
