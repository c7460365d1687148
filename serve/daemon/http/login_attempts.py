"""How often a token may be tried: by each client, and by all together."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict

_MAX_CLIENTS = 1024
"""Remembered, the latest ones; against more of them the limit of all helps."""

_ROUNDING = 1e-6
_NETWORK_BITS = 64
"""Of an IPv6 address; its owner has all addresses of that network."""


class TokenBucket:
    """Failures that are still allowed: ``most`` at once, and ``rate`` more each second."""

    def __init__(self, most: int, rate: float) -> None:
        self.most, self.rate = most, rate
        self.left, self._at = float(most), time.monotonic()

    def wait(self) -> float:
        """Return seconds until one more is allowed; 0 if one is now."""
        now = time.monotonic()
        self.left = min(self.most, self.left + (now - self._at) * self.rate)
        self._at = now
        return 0.0 if self.left > 1 - _ROUNDING else (1 - self.left) / self.rate


class LoginAttempts:
    """Counts failed attempts, in bounded memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all = TokenBucket(50, 1.0)
        self._clients: OrderedDict[str, TokenBucket] = OrderedDict()

    def wait(self, client: str) -> float:
        """Return seconds until the client at an address may try; 0 if it may now."""
        with self._lock:
            own = self._clients.get(_network(client))
            return max(self._all.wait(), own.wait() if own else 0.0)

    def failed(self, client: str) -> None:
        """Count a failure of the client at an address."""
        network = _network(client)
        with self._lock:
            own = self._clients.setdefault(network, TokenBucket(10, 0.1))
            self._clients.move_to_end(network)
            if len(self._clients) > _MAX_CLIENTS:
                self._clients.popitem(last=False)
            for bucket in (own, self._all):
                bucket.wait()
                bucket.left -= 1


def _network(client: str) -> str:
    """Return an IPv4 address, or the network of an IPv6 one."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client[:64]
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), _NETWORK_BITS), strict=False))
