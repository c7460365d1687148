"""Browser sessions, by a signed cookie."""

from __future__ import annotations

import hmac
import secrets
import time

COOKIE = "lloss_session"
SESSION_SECONDS = 12 * 3600


class Sessions:
    """Cookie values with an expiry, signed with this process's key."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._ended: dict[str, float] = {}

    def new(self) -> str:
        """Return a cookie value."""
        content = f"{int(time.time()) + SESSION_SECONDS}.{secrets.token_hex(8)}"
        return f"{content}.{self._sign(content)}"

    def valid(self, value: str) -> bool:
        """Return whether it is signed, in time and not ended."""
        content, _, signature = value.rpartition(".")
        if not content or not hmac.compare_digest(signature.encode(), self._sign(content).encode()):
            return False
        return int(content.partition(".")[0]) > time.time() and content not in self._ended

    def end(self, value: str) -> None:
        """End a session."""
        if self.valid(value):
            now = time.time()
            self._ended = {ended: until for ended, until in self._ended.items() if until > now}
            self._ended[value.rpartition(".")[0]] = now + SESSION_SECONDS

    def _sign(self, content: str) -> str:
        return hmac.digest(self._key, content.encode(), "sha256").hex()


def session_cookie(cookie: bytes) -> str:
    """Return the session's cookie; of several the last, as the framework does."""
    pairs = (part.partition(b"=") for part in cookie.split(b";"))
    values = [value for name, _, value in pairs if name.strip() == COOKIE.encode()]
    return values[-1].strip().decode("latin-1") if values else ""
