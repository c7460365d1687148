"""Pending images expire by a clock that never goes back, also over restarts."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest
from lloss.serve.daemon.store.catalog import Catalog
from lloss.serve.daemon.store.clock import Clock
from lloss.serve.daemon.store.records import StoredReply

HOUR, DAY = 3600.0, 86_400.0
IN_2027, IN_2099 = 1_800_000_000.0, 4_080_000_000.0


class SystemTime:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.monotonic = IN_2027, 0.0
        monkeypatch.setattr(time, "time", lambda: self.now)
        monkeypatch.setattr(time, "monotonic", lambda: self.monotonic)

    def wait(self, seconds: float, jump: float = 0.0) -> None:
        self.now += seconds + jump
        self.monotonic += seconds


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> SystemTime:
    return SystemTime(monkeypatch)


def hand_out(catalog: Catalog, id: str, hours: float = 1, **reply: object) -> None:
    expires = catalog.now() + hours * HOUR
    catalog.images.hand_out("p", "s", [(id, 1.0)], expires, **reply)  # type: ignore[arg-type]


def pending(catalog: Catalog) -> dict[str, float]:
    return {image.id: image.expires for image in catalog.images.pending("p", 9)}


def test_it_continues_when_the_system_goes_back(system: SystemTime) -> None:
    clock = Clock(0)
    for jump, expected in ((0, 10), (-HOUR, 20), (0, 30)):
        system.wait(10, jump)
        assert clock.now() == IN_2027 + expected
    system.wait(5, jump=2 * HOUR)
    assert clock.now() == system.now


@pytest.mark.parametrize(
    ("now", "latest", "kept"),
    [
        (IN_2027, IN_2027 + 23 * HOUR, True),
        (IN_2027, IN_2027 + 25 * HOUR, False),
        (1e9, IN_2027, True),  # an empty battery
    ],
)
def test_a_restart_keeps_the_time_unless_it_was_in_the_future(
    system: SystemTime, now: float, latest: float, kept: bool
) -> None:
    system.now = now
    assert Clock(latest).now() == (latest if kept else now)


def test_images_expire_over_jumps_and_restarts(tmp_path: Path, system: SystemTime) -> None:
    with closing(Catalog(tmp_path)) as catalog:
        catalog.pools.put("p", "/p")
        hand_out(catalog, "first")
        system.wait(1, jump=-HOUR)
        hand_out(catalog, "second")
        assert set(pending(catalog)) == {"first", "second"}
        system.wait(1, jump=HOUR + DAY)
        assert pending(catalog) == {}
        hand_out(catalog, "third")
        system.wait(1, jump=-DAY)
        assert pending(catalog)["third"] - catalog.now() == HOUR - 1
    with closing(Catalog(tmp_path)) as catalog:
        assert HOUR - 60 < pending(catalog)["third"] - catalog.now() <= HOUR
        system.wait(1, jump=DAY + 2 * HOUR)
        assert pending(catalog) == {}


def test_a_process_in_the_future_spoils_nothing(
    tmp_path: Path, system: SystemTime, caplog: pytest.LogCaptureFixture
) -> None:
    reply = StoredReply("fingerprint", b"content")
    with closing(Catalog(tmp_path)) as catalog:
        catalog.pools.put("p", "/p")
        hand_out(catalog, "before")
    system.now = IN_2099
    with closing(Catalog(tmp_path)) as catalog:
        hand_out(catalog, "then", hours=2, key="key", reply=reply)
        catalog.images.label("p", {"labeled": "cat"})
        assert catalog.restamped == 0
    system.now = now = IN_2027 + 60
    with closing(Catalog(tmp_path)) as catalog:
        assert catalog.now() == now and catalog.restamped == 1
        assert pending(catalog) == {"before": IN_2027 + HOUR, "then": now + 2 * HOUR}
        assert "clock_was_ahead" in caplog.text
        assert catalog.images.reply("p", "key") == reply
        system.wait(2 * HOUR + 1)
        assert pending(catalog) == {} and catalog.images.counts("p").labeled == 1
        system.wait(8 * DAY)
        hand_out(catalog, "after")
        assert catalog.images.reply("p", "key") is None, "it is a week old"
    with closing(Catalog(tmp_path)) as catalog:
        assert catalog.restamped == 0
