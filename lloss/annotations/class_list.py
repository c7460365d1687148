"""``classes.txt``: the names of the classes, one a line."""

from __future__ import annotations

from pathlib import Path

from lloss.errors import LabelError
from lloss.text.clean_names import clean_name
from lloss.text.csv_table import text_lines


def listed_classes(path: Path, gaps: bool = False) -> list[str]:
    """The class names of a text file, one a line: that of line N is the name of class N - 1.

    Args:
        path: UTF-8; without this file there are none.
        gaps: pass blank lines over, where the numbers of the classes do not matter.

    Raises:
        LabelError: it cannot be read, a name comes twice, or a line is blank: the names behind it
            would be of no sure number.
    """
    lines: dict[str, int] = {}
    blank = 0
    try:
        with path.open("rb") as file:
            for line, text in text_lines(file, str(path), LabelError):
                name = clean_name(text)
                if not name:
                    blank = blank or line
                elif blank and not gaps:
                    raise LabelError(
                        f"{path}, line {blank}: is blank; name class {blank - 1} there"
                    )
                elif lines.setdefault(name, line) != line:
                    both = f"{name!r} stands in line {lines[name]} too"
                    raise LabelError(f"{path}, line {line}: {both}; write each class once")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LabelError(f"{path}: cannot be read: {error.strerror or error}") from error
    return list(lines)


def known_classes(*folders: Path) -> frozenset[str] | None:
    """The names in the first ``classes.txt`` of these folders, one a line; None without one.

    Raises:
        LabelError: it cannot be read.
    """
    for folder in folders:
        path = folder / "classes.txt"
        if path.is_file():
            return frozenset(listed_classes(path, gaps=True))
    return None
