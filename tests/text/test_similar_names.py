"""Class names that may be misspelled."""

from __future__ import annotations

import pytest

from lloss.text.similar_names import lone_classes, nearest, similar_note


def test_the_nearest_name_is_found_among_names_of_any_length() -> None:
    known = [f"class {number}" for number in range(1000)] + ["y" * 8000]
    assert nearest("x" * 8000, known) and len(nearest("y" * 8000, known)) == 100
    assert nearest("clas 77", known) == "class 77"
    assert nearest("CAT", ["dog", "cat"]) == "cat"
    assert nearest("zebra", ["dog", "cow"], 0.6) == "" and nearest("zebra", []) == ""


def test_new_classes_of_one_image_are_named() -> None:
    counts = {"cat": 9, "dog": 8, "kat": 1}
    line = lone_classes(counts)
    assert line.startswith("new classes of one image: 'kat' ('cat'?); check the spelling")
    assert lone_classes(counts, {"kat": 1}) == "" and lone_classes({"cat": 9}) == ""
    many = {f"{letter * 9}": 1 for letter in "abcdef"}
    line = lone_classes({**many, "cat": 2}, ["aaaaaaaaa"])
    assert "one image: 'bbbbbbbbb', 'ccccccccc', 'ddddddddd' and 2 more; check" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cat", "cat"),
        ("1", "01"),
        ("1", "1.0"),
        ("\uff11", "1"),
        ("class_1", "class_01"),
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
    [("cat", "cats"), ("1", "10"), ("1.1", "1.01"), ("v1.05", "v1.5"), ("c", "c++")],
)
def test_other_names_are_not(one: str, other: str) -> None:
    assert similar_note({one: 1, other: 1}) == ""


def test_invisible_characters_are_shown_and_many_pairs_are_counted() -> None:
    assert "'cat\\u200bfish' (1)" in similar_note({"catfish": 1, "cat\u200bfish": 1})
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    note = similar_note(dict.fromkeys([*letters, *map(str.upper, letters)], 1))
    assert "'c' (1) and 'C' (1); and 23 more such groups differ" in note
