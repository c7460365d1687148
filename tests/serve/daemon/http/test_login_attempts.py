"""Attempts to log in: how many fail before a client, or all of them, must wait."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from lloss.serve.daemon.http import login_attempts as attempts
from lloss.serve.daemon.http.login_attempts import LoginAttempts


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(attempts, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def fail(tried: LoginAttempts, client: str, times: int) -> None:
    for _ in range(times):
        tried.failed(client)


def test_a_client_waits_for_itself_alone(clock: SimpleNamespace) -> None:
    tried = LoginAttempts()
    fail(tried, "10.0.0.1", 9)
    assert tried.wait("10.0.0.1") == 0
    fail(tried, "10.0.0.1", 1)
    assert tried.wait("10.0.0.1") == pytest.approx(10)
    assert tried.wait("10.0.0.2") == 0
    clock.now += 4
    assert tried.wait("10.0.0.1") == pytest.approx(6)
    clock.now += 6
    assert tried.wait("10.0.0.1") == pytest.approx(0, abs=1e-6)


def test_addresses_of_one_network_are_one_client(clock: SimpleNamespace) -> None:
    tried = LoginAttempts()
    for n in range(10):
        tried.failed(f"2001:db8:0:1::{n:x}")
    assert tried.wait("2001:db8:0:1:ffff::1") > 0 and tried.wait("2001:db8:0:2::1") == 0
    fail(tried, "::ffff:10.0.0.1", 10)
    assert tried.wait("10.0.0.1") > 0 and tried.wait("::ffff:10.0.0.2") == 0
    for odd in ("", "testclient", "fe80::1%eth0", "x" * 10_000):
        tried.failed(odd)


def test_all_together_wait_too_and_memory_does_not_grow(clock: SimpleNamespace) -> None:
    tried = LoginAttempts()
    for n in range(50):
        assert tried.wait(f"10.0.0.{n}") == 0
        tried.failed(f"10.0.0.{n}")
    assert tried.wait("10.1.0.1") == pytest.approx(1)
    clock.now += 1e6
    assert tried.wait("10.1.0.1") == 0
    for n in range(5000):
        tried.failed(f"10.{n // 256}.{n % 256}.1")
    assert len(tried._clients) == 1024
