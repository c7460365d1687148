"""Names of images as paths."""

from __future__ import annotations

from urllib.parse import unquote


def path_parts(name: str) -> list[str]:
    """The parts of a path or a URL; ``\\`` separates, ``.`` is dropped, ``..`` resolved."""
    parts: list[str] = []
    if "://" in name:
        server, slash, path = name.partition("://")[2].partition("/")
        name = server + slash + unquote(path.partition("?")[0].partition("#")[0])
    for part in name.replace("\\", "/").split("/"):
        if part == "..":
            parts[-1:] = []
        elif part not in ("", "."):
            parts.append(part)
    return parts


def image_path(name: str) -> str:
    """A name as a path in its one spelling."""
    return "/".join(path_parts(name))
