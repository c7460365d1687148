"""Annotations that the webhook told of: which of them counts, and their file."""

from __future__ import annotations

from starlette.testclient import TestClient

from .daemons import Daemon
from .messages import deleted, event, tell


def test_of_two_annotations_the_newest_that_is_left_counts(
    client: TestClient, daemon: Daemon
) -> None:
    tell(client, event(1, choice="cat", updated_at="2026-01-01T00:00:00Z"))
    tell(client, event(2, choice="dog", updated_at="2026-01-01T00:00:00.5Z"))
    tell(client, event(3, was_cancelled=True, updated_at="2026-01-02T00:00:00Z"))
    assert daemon.state == {"0.png": "label:dog"}
    tell(client, deleted(2, project=7))  # the same number of another project
    assert daemon.state == {"0.png": "label:dog"}
    tell(client, deleted(2))
    assert daemon.state == {"0.png": "label:cat"}
    assert tell(client, deleted(1))["skipped"] == 1
    assert daemon.state == {"0.png": "skipped"}
    assert tell(client, deleted(3, 3, 99))["unlabeled"] == 1
    assert daemon.state == {}


def test_an_event_that_is_overtaken_changes_nothing(client: TestClient, daemon: Daemon) -> None:
    tell(client, event(1, choice="dog", updated_at="2026-01-01T00:00:09Z"))
    tell(client, event(1, choice="cat", updated_at="2026-01-01T00:00:01Z"))
    assert daemon.state == {"0.png": "label:dog"}


def test_annotations_that_differ_are_counted(client: TestClient, daemon: Daemon) -> None:
    tell(client, event(1, choice="cat", updated_at="2026-01-01T00:00:00Z"))
    assert tell(client, event(2, choice="cat"))["disputed"] == 0
    skip = event(3, choice="dog", was_cancelled=True, updated_at="2026-01-02T00:00:00Z")
    assert tell(client, skip)["disputed"] == 0
    newer = event(4, choice="dog", updated_at="2026-01-02T00:00:00Z")
    assert tell(client, newer)["disputed"] == 1
    assert daemon.state == {"0.png": "label:dog"}
    assert tell(client, deleted(4))["disputed"] == 0


def test_annotations_are_forgotten_with_their_pool(client: TestClient, daemon: Daemon) -> None:
    tell(client, event(1, choice="cat", updated_at="2026-01-01T00:00:00Z"))
    daemon.catalog.pools.remove("wild")
    daemon.put("wild", [3, 2, 1])
    tell(client, event(2, choice="dog", updated_at="2026-01-02T00:00:00Z"))
    tell(client, deleted(2))
    assert daemon.state == {}


def test_what_comes_after_its_deletion_changes_nothing(client: TestClient, daemon: Daemon) -> None:
    tell(client, deleted(1))
    assert tell(client, event(1, choice="cat"))["labeled"] == 0
    tell(client, event(2, choice="dog"))
    tell(client, deleted(2))
    late = event(2, choice="dog", updated_at="2099-01-01T00:00:00Z")
    assert tell(client, late)["labeled"] == 0
    assert tell(client, deleted(1, 2))["ignored"] == 0
    assert daemon.state == {}
