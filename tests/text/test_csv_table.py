from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloss.errors import LabelError, LlossError
from lloss.text.csv_table import Table, csv_text, text_lines


def _table(text: str | bytes) -> Table:
    data = text if isinstance(text, bytes) else text.encode()
    return Table(io.BytesIO(data), "l.csv", LabelError)


def _rows(text: str | bytes) -> list[list[str]]:
    return [row for _, row in _table(text)]


def _refused(text: str | bytes) -> str:
    with pytest.raises(LabelError) as refused:
        list(_table(text))
    assert "\n" not in str(refused.value)
    return str(refused.value)


_values = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=8)
_ends = st.sampled_from(["\n", "\r\n", "\r"])


@given(st.lists(st.lists(_values, min_size=2, max_size=2), max_size=8), _ends, st.booleans())
def test_what_pythons_csv_writes_is_read_as_python_reads_it(
    rows: list[list[str]], end: str, quoted: bool
) -> None:
    text = io.StringIO()
    style = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    csv.writer(text, lineterminator=end, quoting=style).writerows([["id", "label"], *rows])
    expected = list(csv.DictReader(io.StringIO(text.getvalue(), newline="")))
    if any([row[one] for one in ("id", "label")] == ["id", "label"] for row in expected):
        assert "repeats the header" in _refused(text.getvalue())
    else:
        assert _rows(text.getvalue()) == [[row["id"], row["label"]] for row in expected] == rows


@given(st.lists(st.tuples(_values, _values), max_size=6))
def test_what_is_written_reads_back(rows: list[tuple[str, str]]) -> None:
    text = csv_text(("name", "value"), rows)
    if ("name", "value") not in rows:
        assert _rows(text) == list(map(list, rows))


def test_what_would_not_read_back_is_not_written() -> None:
    for broken in ("a\nb", "a\rb", "a\0b"):
        with pytest.raises(LlossError, match="has a line break or a NUL in it"):
            csv_text(("id",), [("a",), (broken,)])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('a.png,"green', "has a stray double quote: 'a.png,\"green'; quotes enclose a whole field"),
        ('"a.png\nb.png",green', "stray double quote"),
        ('a.png,gre"en', "stray double quote"),
        ('a.png, "green"', "stray double quote"),
        ('a.png,"green"red', "stray double quote"),
        ("a.png,green,red", "has 3 fields, the header has 2 (id, label): 'a.png,green,red'"),
        ("a.png,green,", "has 3 fields"),
        ("a.png;green", "has 1 field, the header has 2"),
        ("id,label", "repeats the header"),
        ("\ufeffid,label", "repeats the header"),
        ("a\0.png,green", "holds a NUL"),
        (b"caf\xe9.png,green", "is not UTF-8 text (byte 0xe9)"),
    ],
)
def test_a_row_that_could_lose_something_is_refused_by_its_line(
    line: str | bytes, reason: str
) -> None:
    data = line if isinstance(line, bytes) else line.encode()
    before = b"id,label\r\n0.png,red\r\r"  # four lines, the last two of them blank
    message = _refused(before + data + b"\nz.png,red\n")
    assert message.startswith("l.csv, line 4: ") and reason in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ID,label,id\n1,a,b\n", "has the columns 'ID' and 'id'"),
        ("id,label, label\n1,a,b\n", "has the columns 'label' and 'label'"),
        ("id;label;x, y\na;b;c, d\n", "(found: id;label;x, y); begin it with the line sep=;"),
        ("a.png,cat\n", "needs a column 'id' and 'label' (found: a.png, cat); give a CSV with"),
        ("", "(found: an empty file)"),
        ("\n \n", "(found: an empty file)"),
    ],
)
def test_a_column_that_is_missing_is_explained(text: str, reason: str) -> None:
    with pytest.raises(LabelError) as refused:
        _table(text).needed("id", "label")
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "id;label\na,b;c\n",
        "\ufeffid\tlabel\r\na,b\tc\r\n",
        "id|label\na,b|c\n",
        'sep=;\nid;label\n"a,b";c\n',
        '\ufeff"sep=\t"\n"id"\tlabel\na,b\t"c"\n',
        'sep=;\nid;label;"x, y"\na,b;c;d\n',
        'id,label\n"a,b",c\n',
    ],
)
def test_the_mark_of_the_header_separates(text: str) -> None:
    assert [row[:2] for row in _rows(text)] == [["a,b", "c"]]


def test_other_marks_are_refused() -> None:
    assert "has semicolons and tabs between its names; use one" in _refused("id;a\tb\n1;2\t3\n")
    assert "line 1: 'sep=x': save it with commas or semicolons" in _refused("sep=x\nidxlabel\n")
    message = _refused("id;label\na;b;c\n")
    assert "has 3 fields" in message and "fields are separated by semicolons" in message


def test_columns_are_found_by_names_of_any_case_with_spaces_around() -> None:
    table = _table("\ufeff\n\u00a0Label ,note, ID\u200b\ncat,,a.png\n")
    assert table.header == ("Label", "note", "ID") and table.needed("id", "label") == (2, 0)
    assert table.column("path") is None
    assert list(table) == [(3, ["cat", "", "a.png"])]


def test_a_column_without_a_name_holds_row_numbers_or_nothing() -> None:
    assert _rows(",id,label\n0,a,cat\n") == [["0", "a", "cat"]]
    assert _rows("id,label,,\na,cat,,\n") == [["a", "cat", "", ""]]
    assert "line 3: has a value in a column without" in _refused("id,label,\na,cat,\nb,cat,dog\n")


@pytest.mark.parametrize("code", ["utf-16", "utf-32", "utf-16-le", "utf-16-be"])
def test_text_that_is_not_utf8_is_refused_with_the_remedy(code: str) -> None:
    assert 'Excel: "CSV UTF-8"' in _refused("id,label\na,b\n".encode(code))


def test_lines_end_as_text_files_do_and_nowhere_else() -> None:
    names = ["a", "b\u2028b", "c\x85c", "d\x0bd", "e\x1ce", "", "f"]
    text = "\ufeff" + "\r\n".join(names[:3]) + "\r" + "\n".join(names[3:])
    lines = list(text_lines(io.BytesIO(text.encode()), "l.txt", LabelError))
    assert lines == list(enumerate(names, 1))
