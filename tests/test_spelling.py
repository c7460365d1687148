"""Class names that may be misspelled."""

from __future__ import annotations

from lloss.spelling import lone_classes, nearest


def test_the_nearest_name_is_found_among_names_of_any_length() -> None:
    known = [f"class {number}" for number in range(1000)] + ["y" * 8000]
    assert nearest("x" * 8000, known) and len(nearest("y" * 8000, known)) == 100
    assert nearest("clas 77", known) == "class 77"
    assert nearest("CAT", ["dog", "cat"]) == "cat"
    assert nearest("zebra", ["dog", "cow"], 0.6) == "" and nearest("zebra", []) == ""


def test_new_classes_of_one_image_are_named() -> None:
    counts = {"cat": 9, "dog": 8, "kat": 1}
    line = lone_classes(counts)
    assert line.startswith("the new class 'kat' ('cat'?) has one image; check the spelling")
    assert lone_classes(counts, {"kat": 1}) == "" and lone_classes({"cat": 9}) == ""
    many = {f"{letter * 9}": 1 for letter in "abcdef"}
    line = lone_classes({**many, "cat": 2}, ["aaaaaaaaa"])
    assert line.startswith("5 new classes: 'bbbbbbbbb', 'ccccccccc', 'ddddddddd' and 2 more have")
    assert "\n" not in line
