"""VOC XML: what a file says, and how a broken one is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lloss.annotations.problems import Problems
from lloss.data.object_labels import read_objects
from lloss.data.voc_folders import read_split
from lloss.errors import LabelError

from ..annotation_files import check_broken

GOOD = ("cat", 0, (11, 6, 30, 15))
Xml = Callable[..., Path]


def test_boxes_are_edges_of_what_is_counted_from_one(tmp_path: Path, voc_xml: Xml) -> None:
    objects = [("cat", 0, (0, 0, 41, 31)), ("dog", 1, (11, 6.5, 30, 15))]  # the first is clipped
    voc_xml(tmp_path / "x.xml", objects, "a.jpg")
    label = read_objects(tmp_path, Problems())["x"]
    assert (label.names, label.size) == (("cat", "dog"), (30, 40))
    assert label.boxes.tolist() == [[0, 0, 40, 30], [10, 5.5, 30, 15]]
    assert label.difficult.tolist() == [False, True] and not label.crowd.any()


def test_labels_have_the_files_own_names(tmp_path: Path, voc_xml: Xml) -> None:
    voc_xml(tmp_path / "one.xml", [GOOD])
    voc_xml(tmp_path / "inner" / "two.xml", [], "other.png", None)
    voc_xml(tmp_path / "inner" / "three.xml", [], r"C:\photos\three.jpg")
    (tmp_path / "._one.xml").write_bytes(b"\0\5")
    problems = Problems()
    labels = read_objects(tmp_path, problems)
    assert sorted(labels) == ["inner/three", "inner/two", "one"]
    assert labels["inner/two"].boxes.shape == (0, 4) and labels["inner/two"].size is None
    assert problems.notes[-1] == (
        f"{tmp_path}: 1 annotation files have a <filename> that is not their own name, which "
        "counts ('inner/two.xml' with 'other.png', for example)"
    )


def test_parts_of_a_person_are_no_objects(tmp_path: Path, voc_xml: Xml) -> None:
    path = voc_xml(tmp_path / "a.xml", [("person", 0, (1, 1, 20, 20))])
    part = "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>3</xmax><ymax>3</ymax>"
    text = path.read_text().replace("<name>person", part + "</bndbox></part><name>person")
    path.write_text(text)
    label = read_objects(tmp_path, Problems())["a"]
    assert label.names == ("person",) and label.boxes.tolist() == [[0, 0, 20, 20]]


BROKEN_OBJECTS = {
    "outside": (("cat", 0, (11, 6, 42, 15)), "11, 6, 42, 15 .* outside the image of 40×30"),
    "negative": (("cat", 0, (-3, 6, 30, 15)), "outside the image"),
    "no area": (("cat", 0, (11, 6, 11, 15)), "no area"),
    "shares": (("cat", 0, (0.1, 0.1, 0.5, 0.6)), "looks like shares of the image"),
    "turned": (("cat", 0, (30, 6, 11, 15)), "wrong order"),
    "underline": (("cat", 0, ("1_0", 6, 30, 15)), "<xmin> '1_0' is not a number"),
    "digits": (("cat", 0, (11, "\u0666", 30, 15)), "<ymin> '\u0666' is not a number"),
    "nan": (("cat", 0, ("nan", 6, 30, 15)), "<xmin> nan is far outside"),
    "infinite": (("cat", 0, (11, "-inf", 30, 15)), "<ymin> -inf is far outside"),
    "empty": (("cat", 0, (11, 6, 30, "")), "<ymax> '' is not a number"),
    "nameless": ((" \u200b", 0, (11, 6, 30, 15)), "class is empty"),
    "flag": (("cat", "maybe", (11, 6, 30, 15)), "<difficult> 'maybe' is not a number"),
}


@pytest.mark.parametrize(("row", "what"), BROKEN_OBJECTS.values(), ids=BROKEN_OBJECTS)
def test_a_broken_object_is_named_or_left_out(
    tmp_path: Path, voc_xml: Xml, row: Any, what: str
) -> None:
    path = voc_xml(tmp_path / "a.xml", [row, GOOD])
    expected = f"^{re.escape(str(path))}: object 1: .*{what}"
    # The other object alone would teach that there is nothing where the broken one is.
    kept = ["a"] if what == "no area" else []
    check_broken(partial(read_objects, tmp_path), expected, kept)
    if kept:
        label = read_objects(tmp_path, Problems(skip=True))["a"]
        assert label.names == ("cat",) and label.boxes.tolist() == [[10, 5, 30, 15]]


BOMB = "<!DOCTYPE a [" + "".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
) + '<!ENTITY a "aaaaaaaaaa">]><annotation>&j;</annotation>'  # fmt: skip
BROKEN_FILES = {
    "cut off": ("<annotation>\n<object>\n", "is not XML: no element found: line 3"),
    "no XML": ("hello", "is not XML: syntax error: line 1"),
    "bomb": (BOMB, "is not XML: limit on input amplification"),
    "other": ("\n<html/>", "<html> is not VOC's <annotation>"),
    "size": ("<annotation><size><width>x</width><height>3</height></size></annotation>",
             "<width> 'x' is not a number"),
    "half a size": ("<annotation><size><width>3</width></size></annotation>",
                    "<size> lacks <height>"),
    "encoding": ('<?xml version="1.0" encoding="klingon"?><annotation/>', "is not XML: "),
}  # fmt: skip


@pytest.mark.parametrize(("text", "what"), BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_a_broken_file_is_named_or_left_out(
    tmp_path: Path, voc_xml: Xml, text: str, what: str
) -> None:
    voc_xml(tmp_path / "good.xml", [GOOD])
    path = tmp_path / "bad.xml"
    path.write_text(text)
    check_broken(partial(read_objects, tmp_path), f"^{re.escape(str(path))}: {what}", ["good"])


def test_one_file_is_not_the_folder(tmp_path: Path, voc_xml: Xml) -> None:
    path = voc_xml(tmp_path / "a.xml", [GOOD])
    with pytest.raises(LabelError, match="a.xml: is of one image; give the folder of the XML"):
        read_objects(path, Problems())


@pytest.mark.parametrize("tag", ["bndbox", "ymin", "name"])
def test_a_missing_element_is_named(tmp_path: Path, voc_xml: Xml, tag: str) -> None:
    path = voc_xml(tmp_path / "a.xml", [GOOD])
    path.write_text(
        path.read_text().replace(f"<{tag}>", "<other>").replace(f"</{tag}>", "</other>")
    )
    with pytest.raises(LabelError, match=f"a.xml: object 1: <.*> lacks <{tag}>"):
        read_objects(tmp_path, Problems())


def test_two_files_of_one_name_are_refused(tmp_path: Path, voc_xml: Xml) -> None:
    for name in ("a.xml", "a.XML"):
        voc_xml(tmp_path / name)
    with pytest.raises(LabelError, match="has its name in other letters; remove one"):
        read_objects(tmp_path, Problems(skip=True))


def test_an_image_of_a_split_may_have_any_image_suffix(tmp_path: Path, voc_xml: Xml) -> None:
    year, names = tmp_path / "VOC2007", ["a.JPG", "b.PNG", "c.jfif", "d.jpg"]
    for folder in ("JPEGImages", "ImageSets/Main"):
        (year / folder).mkdir(parents=True)
    for name in names:
        (year / "JPEGImages" / name).write_bytes(b"x")
        voc_xml(year / "Annotations" / f"{name[0]}.xml")
    (year / "ImageSets" / "Main" / "train.txt").write_text("a\nb\nc\nd\n")
    assert [item.id for item, _ in read_split([year], "train", Problems())] == names
