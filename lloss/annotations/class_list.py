"""``classes.txt``: the names of the classes, one a line."""

from __future__ import annotations

from pathlib import Path

from lloss.errors import LabelError
from lloss.text.clean_names import clean_name
from lloss.text.csv_table import text_lines


def read_class_list(path: Path) -> list[str]:
    """Read class names, one a line: line N names class N - 1; [] without the file.

    A blank line between names is refused, since the numbers of those behind it are in doubt, and so
    is a name that comes twice.
    """
    lines: dict[str, int] = {}
    try:
        with path.open("rb") as file:
            for line, text in text_lines(file, str(path), LabelError):
                name = clean_name(text)
                if name and line > len(lines) + 1 and name not in lines:
                    what = f"is blank; name class {len(lines)} there"
                    raise LabelError(f"{path}, line {len(lines) + 1}: {what}")
                if name and lines.setdefault(name, line) != line:
                    what = f"{name!r} is in line {lines[name]} too"
                    raise LabelError(f"{path}, line {line}: {what}; write each class once")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LabelError(f"{path}: cannot be read: {error.strerror or error}") from error
    return list(lines)
