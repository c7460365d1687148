"""How often a token may be tried: by each client, and by all together."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

_CLIENT = (10, 0.1)
_ALL = (50, 1.0)
"""Failures at once, and those that are forgiven a second."""

_CLIENTS = 1024
"""That are remembered, the latest ones; against more of them the limit of all is there."""

_ROUNDING = 1e-6

_SITE = 64
"""Bits of an IPv6 address that name who was given it."""


@dataclass
class _Bucket:
    """Failures that are still allowed."""

    most: int
    rate: float
    left: float
    at: float

    def wait(self, now: float) -> float:
        """Seconds until one more is allowed; 0 if one is now."""
        self.left = min(self.most, self.left + (now - self.at) * self.rate)
        self.at = now
        return 0.0 if self.left > 1 - _ROUNDING else (1 - self.left) / self.rate


class Attempts:
    """Counts attempts that failed; memory does not grow with them or with clients."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all = _full(_ALL)
        self._clients: OrderedDict[str, _Bucket] = OrderedDict()

    def wait(self, client: str) -> float:
        """Seconds that a client must wait until it may try; 0 if it may now.

        Args:
            client: its address.
        """
        now = time.monotonic()
        with self._lock:
            own = self._clients.get(_site(client))
            return max(self._all.wait(now), own.wait(now) if own else 0.0)

    def failed(self, client: str) -> None:
        """Count a failure of a client."""
        site = _site(client)
        with self._lock:
            own = self._clients.setdefault(site, _full(_CLIENT))
            self._clients.move_to_end(site)
            if len(self._clients) > _CLIENTS:
                self._clients.popitem(last=False)
            for bucket in (own, self._all):
                bucket.wait(time.monotonic())
                bucket.left -= 1


def _full(limit: tuple[int, float]) -> _Bucket:
    most, rate = limit
    return _Bucket(most, rate, most, time.monotonic())


def _site(client: str) -> str:
    """An IPv4 address, or the network of an IPv6 one: who has one has all of that."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client[:64]
    if address.version == 6 and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    if address.version == 6:
        return str(ipaddress.ip_network((int(address), _SITE), strict=False))
    return str(address)
