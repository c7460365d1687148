"""Signed links to single images, for labeling tools and pages: they need no token."""

from __future__ import annotations

import hmac
import re
import secrets
import time
from pathlib import Path
from urllib.parse import parse_qs, urlencode

from starlette.types import Scope

from lloss.files import atomic_write

DAY = 24 * 3600
LINK_SECONDS = 30 * DAY

_IMAGE = re.compile(r"/v1/pools/([^/]+)/images")
_KEY_BYTES = 32


class ImageLinks:
    """Signs links with the key in a data dir, and checks them.

    Removing ``secret.key`` ends all links at the next start.
    """

    def __init__(self, data_dir: Path) -> None:
        self._key = _read_key(data_dir / "secret.key")

    def signed_query(self, pool: str, id: str, seconds: float = LINK_SECONDS) -> str:
        """Sign a link to one image: ``/v1/pools/POOL/images?QUERY`` then needs no token.

        The query is the same for a whole day, so that browsers keep what they fetched. It is valid
        for at least ``seconds``, across restarts.
        """
        expires = int((time.time() + seconds) // DAY + 1) * DAY
        query = {"id": id, "expires": expires, "sig": self._signature(pool, id, expires)}
        return urlencode(query, errors="surrogatepass")

    def valid(self, scope: Scope) -> bool:
        """Return whether a request is for an image and bears a valid signature for it."""
        if b"sig=" not in scope["query_string"] or scope["method"] not in ("GET", "HEAD"):
            return False
        matched = _IMAGE.fullmatch(scope["path"])
        try:
            query = parse_qs(
                scope["query_string"].decode("ascii"),
                keep_blank_values=True,
                errors="surrogatepass",
                max_num_fields=16,
            )
            # One of each: the route would serve a second id.
            (id,), (expires,), (given,) = query["id"], query["expires"], query["sig"]
            if matched is None or int(expires) < time.time():
                return False
            right = self._signature(matched[1], id, int(expires))
        except (ValueError, KeyError):
            return False
        return hmac.compare_digest(given.encode(errors="replace"), right.encode())

    def _signature(self, pool: str, id: str, expires: int) -> str:
        message = f"{expires}\n{pool}\n{id}".encode(errors="surrogatepass")
        return hmac.digest(self._key, message, "sha256").hex()


def _read_key(file: Path) -> bytes:
    """Read the key; make one, for this user only, where it is missing."""
    key = file.read_bytes() if file.exists() else b""
    if len(key) != _KEY_BYTES:
        key = secrets.token_bytes(_KEY_BYTES)
        with atomic_write(file) as aside:
            aside.touch(0o600)
            aside.write_bytes(key)
    return key
