"""The webhook: events of annotations become labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.label_classes import Accepted
from lloss.serve.daemon.store.image_table import Marks
from starlette.testclient import TestClient

from .daemons import Daemon
from .messages import deleted, event, recorded, task, tell


def test_the_recorded_events_mark_and_unmark(client: TestClient, daemon: Daemon) -> None:
    events = iter(recorded("webhooks.json"))
    zero, one = {"0.png": "label:dog"}, {"1.png": "label:dog"}
    two: dict[str, str] = {}  # of boxes, and of two choices of another control
    three, four = {"3.png": "label:cat"}, {"4.png": "label:cat"}
    steps: list[tuple[str, dict[str, str]]] = [
        ("ANNOTATION_CREATED", {"0.png": "label:cat"}),
        ("ANNOTATION_UPDATED", zero),
        ("ANNOTATION_CREATED", zero | {"1.png": "skipped"}),
        ("ANNOTATION_CREATED", zero | one),
        ("ANNOTATION_CREATED", zero | one | two),
        ("ANNOTATION_CREATED", zero | one | two | three),
        ("ANNOTATIONS_DELETED", zero | one | two),
        ("ANNOTATIONS_CREATED", zero | one | two | four),
        ("ANNOTATIONS_DELETED", one | two | four),
    ]
    for action, expected in steps:
        event = next(events)
        assert event["action"] == action
        tell(client, event)
        assert daemon.state == expected
    before = daemon.state
    for event in events:  # a deleted task takes no label back: its annotation may be exported
        tell(client, event, 200)
    assert daemon.state == before


def test_of_many_annotations_those_of_no_pool_are_ignored(
    client: TestClient, daemon: Daemon
) -> None:
    made = [event(1), event(2, "1.png"), event(3, "nowhere.png"), event(4)]
    made[3]["task"]["data"]["lloss_pool"] = "gone"
    bulk = {**made[0], "action": "ANNOTATIONS_CREATED"}
    bulk["annotation"] = [one["annotation"] for one in made]
    bulk["task"] = [one["task"] for one in made]
    assert tell(client, bulk) == {
        "labeled": 2, "unlabeled": 0, "skipped": 0, "ignored": 2, "disputed": 0, "without_class": 0,
        "new_classes": [],
    }  # fmt: skip
    assert set(daemon.state) == {"0.png", "1.png"}


def test_events_of_nothing_here_and_of_wrong_types_do_no_harm(
    client: TestClient, daemon: Daemon
) -> None:
    for action in ("PROJECT_UPDATED", "TASKS_DELETED", "NEWS", None, 3, ["ANNOTATION_CREATED"]):
        tell(client, {"action": action, "annotation": {}, "task": {}}, 200)
    good = event(1)
    wrong: list[dict[str, Any]] = [
        {"action": "ANNOTATION_CREATED"},
        {**good, "annotation": None}, {**good, "annotation": [], "task": {}},
        {**good, "annotation": [3], "task": [3]}, {**good, "task": {"data": {"image": "x"}}},
        {**good, "annotation": good["annotation"] | {"id": "1"}},
        {**good, "annotation": good["annotation"] | {"id": True}},
        {**good, "annotation": good["annotation"] | {"id": 1 << 63}},
        {"action": "ANNOTATIONS_DELETED", "annotations": 3},
        deleted(None, "x", 1 << 70, 1.5),
    ]  # fmt: skip
    for one in wrong:
        assert tell(client, one)["labeled"] == 0
    assert daemon.state == {}
    half = {"id": "\ud800", "created_at": "\udfff"}
    assert tell(client, {**good, "project": half})["labeled"] == 1
    assert tell(client, {**deleted(1), "project": half})["unlabeled"] == 1
    odd = {**good, "project": 3, "annotation": {"id": 5, "result": {"x": [3]}, "updated_at": "?"}}
    assert tell(client, odd)["without_class"] == 1
    assert daemon.state == {}


def test_what_cannot_be_marked_is_not_noted_either(
    client: TestClient, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise RequestError(507, "the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Marks, "label", full)
        tell(client, event(1), 507)
    tell(client, event(2, choice="dog"))
    tell(client, deleted(2))
    assert daemon.state == {}  # number 1 would still label it


def test_a_label_is_not_lost_while_the_pool_cannot_be_read(
    client: TestClient, daemon: Daemon, tmp_path: Path
) -> None:
    """One that has no scores has to be asked itself."""
    (tmp_path / "away").mkdir()
    (tmp_path / "away/0.png").write_bytes(b"")
    daemon.catalog.pools.put("away", str(tmp_path / "away"))
    made, ours = event(1), event(2)
    made["task"] = task("0.png", "away")
    bulk = {**made, "action": "ANNOTATIONS_CREATED"}
    bulk["annotation"] = [ours["annotation"], made["annotation"]]
    bulk["task"] = [ours["task"], made["task"]]
    (tmp_path / "away").rename(tmp_path / "gone")
    assert "no such pool" in tell(client, bulk, 422)["error"]
    assert daemon.state == {}, "all or nothing"
    (tmp_path / "gone").rename(tmp_path / "away")
    assert tell(client, bulk)["labeled"] == 2
    assert daemon.catalog.images.labels("away") == {"0.png": "cat"}
    tell(client, deleted(1))
    assert daemon.catalog.images.labels("away") == {}, "it was noted"


def test_what_the_scores_know_needs_no_pool(
    client: TestClient, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon.pools, "_open", None)
    assert tell(client, event(1))["labeled"] == 1
    assert tell(client, deleted(1))["unlabeled"] == 1


def test_what_came_from_elsewhere_is_not_taken_back(client: TestClient, daemon: Daemon) -> None:
    daemon.selections.label("wild", {"0.png": "owl"}, Accepted(new_classes=True))
    daemon.selections.skip("wild", ["1.png"])
    daemon.selections.skip("wild", ["2.png"])
    before = {"0.png": "label:owl", "1.png": "skipped", "2.png": "skipped"}
    tell(client, event(1, was_cancelled=True))
    assert daemon.state == before, "a skip takes no label"
    tell(client, deleted(1))
    assert daemon.state == before
    tell(client, event(3, choice="cat"))
    daemon.selections.label("wild", {"0.png": "owl"}, Accepted(new_classes=True))
    tell(client, deleted(3))
    assert daemon.state == before, "nor one that came later"
    tell(client, event(2, "1.png"))
    daemon.selections.unlabel("wild", ["1.png"])
    daemon.selections.skip("wild", ["1.png"])
    tell(client, deleted(2))
    assert daemon.state == before, "a label that is gone frees no image that was skipped since"


def test_an_annotation_without_a_class_labels_nothing_and_is_counted(
    client: TestClient, daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    tell(client, event(1))
    assert daemon.state == {"0.png": "label:cat"}
    told = tell(client, event(1, result=[]))  # the choice was taken back
    assert (told["labeled"], told["unlabeled"], told["without_class"]) == (0, 0, 1)
    assert daemon.state == {}, "it can be handed out again"
    assert "1 images were annotated without a class" in caplog.text
    daemon.models.manifest.task = "detection"
    tell(client, event(1))
    tell(client, event(1, result=[]))
    assert daemon.state == {"0.png": "label:"}, "boxes are kept elsewhere; the choice is gone"


def test_a_new_class_is_accepted_and_told(
    client: TestClient, daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    """The event comes once."""
    assert tell(client, event(1, choice="kitten"))["new_classes"] == ["kitten"]
    assert daemon.state == {"0.png": "label:kitten"} and "kitten" in caplog.text
    assert tell(client, event(2, "1.png", choice=" kitten "))["new_classes"] == []
    assert daemon.state == {"0.png": "label:kitten", "1.png": "label:kitten"}


def test_the_choice_of_a_named_control_is_the_label(client: TestClient, daemon: Daemon) -> None:
    kind = {"type": "choices", "from_name": "kind", "value": {"choices": ["cat"]}}
    light = {"type": "choices", "from_name": "light", "value": {"choices": ["dog"]}}
    made = event(1, result=[light, kind])
    assert tell(client, made)["without_class"] == 1
    reply = client.post("/labelstudio/webhook?control=kind", json=made)
    assert reply.json()["labeled"] == 1 and daemon.state == {"0.png": "label:cat"}


def test_notes_and_labels_are_one_transaction(
    client: TestClient, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever write fails, neither the note nor a mark of the event is there."""
    tell(client, event(1, choice="dog"))
    tell(client, event(2, "1.png", was_cancelled=True))
    before = daemon.state
    bulk = {**event(1), "action": "ANNOTATIONS_CREATED"}
    made = [event(1, choice="cat"), event(2, "1.png"), event(3, "2.png", was_cancelled=True)]
    bulk["annotation"] = [one["annotation"] for one in made]
    bulk["task"] = [one["task"] for one in made]

    def noted() -> list[tuple[Any, ...]]:
        with daemon.catalog.reading() as db:
            return [tuple(row) for row in db.execute("SELECT * FROM annotations")]

    notes = noted()
    for step in ("unlabel", "skip", "give_back", "label"):
        with monkeypatch.context() as patch:
            patch.setattr(Marks, step, lambda *_: (_ for _ in ()).throw(RequestError(507, "full")))
            tell(client, bulk, 507)
        assert daemon.state == before and noted() == notes, step
    tell(client, bulk)
    assert daemon.state == {"0.png": "label:cat", "1.png": "label:cat", "2.png": "skipped"}
    assert len(noted()) == 3
