from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloss.names import clean_name, similar_note, stripped


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


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cat", "cat"),
        ("STRASSE", "stra\u00dfe"),
        ("1", "01"),
        ("1", "1.0"),
        ("0", "0.00"),
        ("+3", "3"),
        ("\uff11", "1"),
        ("class_1", "class_01"),
        ("Class 1", "class-1"),
        ("traffic light", "traffic\u00a0light"),
        ("traffic light", "Traffic_Light"),
        ("catfish", "cat\u200bfish"),
    ],
)
def test_similar_names_are_named_with_their_counts(one: str, other: str) -> None:
    note = similar_note({"dog": 1, one: 2, "bird": 4, other: 3})
    assert "(2) and " in note and "(3) differ only in case, spaces or how a number" in note
    assert "dog" not in note and "\n" not in note
    assert not similar_note({one: 2, other: 3}, known=[one, other, "dog"])
    assert similar_note({one: 2, other: 3}, known=[one]).startswith("the classes ")


@pytest.mark.parametrize(
    ("one", "other"),
    [("cat", "cats"), ("1", "10"), ("1", "-1"), ("1.1", "1.01"), ("v1.05", "v1.5"), ("c", "c++")],
)
def test_other_names_are_not(one: str, other: str) -> None:
    assert similar_note({one: 1, other: 1}) == ""


def test_invisible_characters_are_shown_and_many_pairs_are_counted() -> None:
    assert "'cat\\u200bfish' (1)" in similar_note({"catfish": 1, "cat\u200bfish": 1})
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    note = similar_note(dict.fromkeys([*letters, *map(str.upper, letters)], 1))
    assert "'c' (1) and 'C' (1); and 23 more such groups differ" in note
