"""``classes.txt``: the names of the classes, one a line."""

from __future__ import annotations

from pathlib import Path

from lloss.errors import LabelError
from lloss.text.clean_names import clean_name
from lloss.text.csv_table import text_lines


def read_class_list(path: Path, gaps: bool = False) -> list[str]:
    """Read class names, one a line: line N names class N - 1; [] without the file.

    With ``gaps`` blank lines are skipped; otherwise they are refused, since the numbers of the
    names behind them are in doubt. A name that comes twice is refused.
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
                    what = f"is blank; name class {blank - 1} there"
                    raise LabelError(f"{path}, line {blank}: {what}")
                elif lines.setdefault(name, line) != line:
                    what = f"{name!r} is in line {lines[name]} too"
                    raise LabelError(f"{path}, line {line}: {what}; write each class once")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LabelError(f"{path}: cannot be read: {error.strerror or error}") from error
    return list(lines)


def allowed_classes(*folders: Path) -> frozenset[str] | None:
    """The names in the first ``classes.txt`` of these folders; None without such a file."""
    for folder in folders:
        if (path := folder / "classes.txt").is_file():
            return frozenset(read_class_list(path, gaps=True))
    return None
