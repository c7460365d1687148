from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloss.text.clean_names import clean_name, stripped


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (" cat\t", "cat"),
        ("\u00a0cat\u200b", "cat"),
        ("\ufeffcat\u2060", "cat"),
        ("cafe\u0301", "caf\u00e9"),
        ("traffic\r\n  light", "traffic light"),
        ("light\u2028blue", "light blue"),
        ("traffic  light", "traffic  light"),
        ("\u0645\u06cc\u200c\u062e\u0648", "\u0645\u06cc\u200c\u062e\u0648"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),
        ("", ""),
        (" \u200b\u00a0\t\u200e\n", ""),
    ],
)  # fmt: skip
def test_a_name_is_stripped_in_nfc_and_on_one_line(written: str, name: str) -> None:
    assert clean_name(written) == name


@given(st.text(max_size=20))
def test_cleaning_is_done_once_and_whatever_the_form(text: str) -> None:
    name = clean_name(text)
    assert clean_name(name) == name == stripped(name)
    assert clean_name(unicodedata.normalize("NFD", text)) == name
    assert len(name.splitlines()) <= 1 and name == name.strip()
