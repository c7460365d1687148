"""What bodies become when they are parsed: told, and bounded, before anybody parses them.

A list takes two bytes of JSON and sixty of memory, and the parser holds the whole process up
meanwhile. So the values of a body are counted, not its bytes alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lloss.serve.daemon.errors import RequestError

MAX_VALUES = 4_000_000
"""Of JSON in a body: a million labels have three million."""

MAX_FIELDS = 100_000
"""Of a form in a body, empty ones too; the routes that read forms take far fewer."""

_BYTES_A_VALUE = 64
_STEP = 1 << 20
_JSON = re.compile(rb"[\s\x00\xef\xbb\xbf\xfe\xff]*[\[{]")
"""How JSON begins, in any of its encodings; no image and no multipart form does."""

_INFER = re.compile(r"/v2/models/.*/infer", re.DOTALL)


def parsed_bytes(body: bytes, headers: Mapping[bytes, bytes], path: str) -> int:
    """About the bytes that a body's JSON takes in memory, beside itself; 0 for all else.

    Args:
        body: inflated.
        headers: of the request.
        path: that it is for: binary tensors follow JSON on the way to a model alone.

    Raises:
        RequestError: 413, it has more values or fields than anybody needs.
    """
    kind = headers.get(b"content-type", b"").strip().lower()
    if kind.startswith(b"application/x-www-form-urlencoded"):
        _counted(body, len(body), b"&", MAX_FIELDS, "fields of a form")
    if not _JSON.match(body):
        return 0
    end = len(body)
    if _INFER.fullmatch(path):
        end = _json_end(headers.get(b"inference-header-content-length"), end)
    return _BYTES_A_VALUE * _counted(body, end, b",[{", MAX_VALUES, "values of JSON")


def _json_end(given: bytes | None, length: int) -> int:
    """Where the JSON ends, and binary tensors begin."""
    text = (given or b"").strip()
    return min(int(text), length) if text.isdigit() and len(text) < 20 else length


def _counted(body: bytes, end: int, marks: bytes, most: int, what: str) -> int:
    count = 0
    for start in range(0, end, _STEP):
        stop = min(start + _STEP, end)
        count += sum(body.count(mark, start, stop) for mark in marks)
        if count > most:
            raise RequestError(413, f"the body has more than {most:,} {what}: send fewer at a time")
    return count
