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


def test_a_damaged_file_is_told_with_the_remedy(client: TestClient, daemon: Daemon) -> None:
    path = daemon.settings.data_dir / "labelstudio.sqlite"
    path.write_bytes(b"no database at all" * 100)
    assert "remove it" in tell(client, event(1), 500)["error"]
    path.unlink()
    path.mkdir()
    assert "cannot be written" in tell(client, event(1), 503)["error"]
    assert daemon.state == {}
