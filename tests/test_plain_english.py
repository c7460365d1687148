"""Words that this project once over-used, and that a reader had to decode."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("lloss", "export", "serve", "tests", "benchmarks", "docs")
SUFFIXES = {".py", ".md", ".html", ".js", ".css", ".yml", ".toml", ".service", ".conf"}
WORDS = re.compile(
    r"""(?<![a-z])(
        told | tells | (?<!\.)(?<!def[ ])tell | whoever | whatsoever | meanwhile | afresh
      | (?<=[a-z][ ])(?<!if[ ])anew(?=[ .,])
      | lie | lies | lay[ ]under | rooms? | houses? | called[ ]so | such[ ]a[ ]one
      | of[ ]that(?=[.,;:)]) | there[ ]is[ ]none | may[ ]not[ ]be
      | (?<!there[ ])is[ ]no[ ](?!longer|more\b|\w+[ ]than)[a-z]+
    )(?![a-z])""",
    re.IGNORECASE | re.VERBOSE,
)


def texts() -> list[Path]:
    inside = [path for name in FOLDERS for path in (ROOT / name).rglob("*")]
    inside = [p for p in inside if p.suffix in SUFFIXES or p.name == "Dockerfile"]
    return [*inside, *ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "pyproject.toml"]


def test_every_text_is_in_plain_english() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]!r}: {line.strip()[:80]}"
        for path in texts()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for match in WORDS.finditer(line)
    ]
    assert not found, "\n".join(found)
