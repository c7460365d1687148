"""CVAT's XML for images: boxes, polygons and tags, and how broken ones are named."""

from __future__ import annotations

import math
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lloss.annotations import Problems
from lloss.annotations.cvat import parse_tags
from lloss.data.label_formats import read_any_labels
from lloss.data.object_labels import open_objects, read_objects
from lloss.errors import LabelError
from lloss.tasks import get_task

from ..annotation_files import check_broken

BOX = '<box label="cat" source="manual" occluded="1" xtl="{}" ytl="{}" xbr="{}" ybr="{}"{}/>'
GOOD = BOX.format(10, 5, 30.5, 15, ' z_order="0"')
TAG = '<tag label="{}" source="manual"><attribute name="a">1</attribute></tag>'


def write_xml(path: Path, *shapes: str, names: Any = ("a.jpg", "b.jpg")) -> Path:
    """Write a task of two images, the first with these shapes and the second with a good box."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = "".join(
        f'<image id="{id}" name="{name}" width="40" height="30">\n{"".join(inner)}</image>\n'
        for id, (name, inner) in enumerate(zip(names, (shapes, [GOOD])))
    )
    meta = "<version>1.1</version><meta><task><name>t</name></task></meta>"
    path.write_text(
        f'<?xml version="1.0" encoding="utf-8"?><annotations>{meta}{images}</annotations>'
    )
    return path


def test_boxes_are_edges_in_pixels(tmp_path: Path) -> None:
    path = write_xml(tmp_path / "annotations.xml", GOOD, BOX.format(0, 0, 40, 30, ""))
    label = read_objects(path, Problems())["a.jpg"]
    assert (label.names, label.size) == (("cat", "cat"), (30, 40))
    assert label.boxes.tolist() == [[10, 5, 30.5, 15], [0, 0, 40, 30]]
    assert set(read_any_labels(path, Problems())) == {"a.jpg", "b.jpg"}


@pytest.mark.parametrize("degrees", [30.0, 90.0, 201.5, -45])
def test_a_rotated_box_is_the_box_around_it(tmp_path: Path, degrees: float) -> None:
    rotated = BOX.format(15, 10, 25, 16, f' rotation="{degrees}"')
    problems = Problems()
    path = write_xml(tmp_path / "a.xml", rotated)
    label = read_objects(path, problems)["a.jpg"]
    angle = math.radians(degrees)  # the four corners, turned one by one
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    corners = np.array([[-5, -3], [5, -3], [5, 3], [-5, 3]]) @ turn.T + [20, 13]
    expected = [*corners.min(0), *corners.max(0)]
    assert np.allclose(label.boxes, [expected], atol=1e-4)
    assert problems.notes == [f"{path}: 1 rotated boxes: the upright box around each is taken"]


def test_polygons_become_boxes_and_other_shapes_are_counted(tmp_path: Path) -> None:
    polygon = '<polygon label="dog" occluded="0" points="10,6;30,12.5;20,18"/>'
    points = '<points label="cat" points="1,1;2,2"/>'
    problems = Problems()
    path = write_xml(tmp_path / "a.xml", polygon, points, points, TAG.format("x"))
    label = read_objects(path, problems)["a.jpg"]
    assert (label.names, label.boxes.tolist()) == (("dog",), [[10, 6, 30, 18]])
    assert problems.notes == [
        f"{path}: 1 polygons: the upright box around each is taken",
        f"{path}: left out 2 points, 1 tag (only shapes with an area are objects)",
    ]


def test_ellipses_and_masks_become_boxes(tmp_path: Path) -> None:
    ellipse = '<ellipse label="cat" cx="20" cy="15" rx="10" ry="4" rotation="90"/>'
    mask = '<mask label="dog" rle="3, 2, 1" left="5" top="6" width="3" height="2"/>'
    problems = Problems()
    label = read_objects(write_xml(tmp_path / "a.xml", ellipse, mask), problems)["a.jpg"]
    assert label.names == ("cat", "dog")
    np.testing.assert_allclose(label.boxes, [[16, 5, 24, 25], [5, 6, 8, 8]], atol=1e-5)
    assert [note.partition(": ")[2].partition(":")[0] for note in problems.notes] == [
        "1 ellipses", "1 masks"
    ]  # fmt: skip


def test_what_a_network_found_is_counted(tmp_path: Path) -> None:
    found, problems = GOOD.replace("manual", "auto"), Problems()
    path = write_xml(tmp_path / "a.xml", found, found.replace('"cat"', '"dog"'))
    assert read_objects(path, problems)["a.jpg"].names == ("cat", "dog")
    (note,) = problems.notes
    assert note.startswith(f"{path}: 2 of 3 shapes have the source 'auto', as what a network finds")


def test_an_image_with_other_shapes_alone_is_not_background(tmp_path: Path) -> None:
    path = write_xml(tmp_path / "a.xml", '<polyline label="cat"/>')
    problems = Problems()
    assert list(read_objects(path, problems)) == ["b.jpg"]
    assert problems.notes == [
        f"{path}: 1 of 2 images has no box, but other shapes: not labeled yet",
        f"{path}: left out 1 polyline (only shapes with an area are objects)",
    ]
    write_xml(path, '<polyline label="cat"/>', names=["a.jpg"])
    path.write_text(path.read_text().replace(GOOD, '<polyline label="cat"/>'))
    with pytest.raises(LabelError, match="holds no label: left out . polyline"):
        read_objects(path, Problems())
    with pytest.raises(LabelError, match=r"holds no label: left out . polyline \(only tags are"):
        parse_tags(path, Problems())


BROKEN = {
    "outside": (BOX.format(10, 5, 42, 15, ""), "10, 5, 42, 15 .* outside the image of 40×30"),
    "turned": (BOX.format(30, 5, 10, 15, ""), "wrong order"),
    "no area": (BOX.format(10, 5, 10, 15, ""), "no area"),
    "turned, no area": (BOX.format(10, 5, 10, 15, ' rotation="9"'), "no area"),
    "number": (BOX.format("1_0", 5, 30, 15, ""), "xtl '1_0' is not a number"),
    "missing": ('<box label="cat" xtl="1"/>', "ytl '' is not a number"),
    "nameless": (GOOD.replace("cat", " "), "its label is empty"),
    "rotation": (BOX.format(1, 5, 30, 15, ' rotation="nan"'), "rotation nan is far outside"),
    "line": ('<polygon label="dog" points="1,1;2,2"/>', "not three or more of x,y"),
    "pairs": ('<polygon label="dog" points="1,1;2,2,2;3,3"/>', "not three or more of x,y"),
}


@pytest.mark.parametrize(("shape", "what"), BROKEN.values(), ids=BROKEN)
def test_a_broken_shape_is_named_or_left_out(tmp_path: Path, shape: str, what: str) -> None:
    path = write_xml(tmp_path / "a.xml", GOOD, shape)
    expected = rf"^{re.escape(str(path))}: image 1 \(a.jpg\), \w+ 2: .*{what}"
    kept = ["a.jpg", "b.jpg"] if what == "no area" else ["b.jpg"]
    check_broken(partial(read_objects, path), expected, kept)


FILES = {
    "cut off": ("<annotations><image", "is not XML: "),
    "VOC": ("<annotation/>", "is of one image; give the folder of the XML files"),
    "other": ("<html/>", "<html> is not CVAT's <annotations>"),
    "video": ("<annotations><track id='0'/></annotations>", "export it as 'CVAT for images 1.1'"),
    "nameless": ("<annotations><image/></annotations>", "image 1: lacks its name"),
    "size": ("<annotations><image name='a' width='x'/></annotations>", "not a whole number"),
    "twice": ("<annotations><image name='a'/><image name='./a'/></annotations>",
              "image 2: './a' is image 1 too"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "what"), FILES.values(), ids=FILES)
def test_a_broken_file_is_refused(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(LabelError, match=f"a.xml: .*{what}"):
        read_objects(path, Problems(skip=True))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="none.xml: cannot be read: No such file"):
        read_objects(tmp_path / "none.xml", Problems())


def test_the_images_of_an_export_are_found(tmp_path: Path, picture: Any) -> None:
    path = write_xml(tmp_path / "annotations.xml", GOOD)
    picture(tmp_path / "images" / "b.jpg")
    expected = r"image 1 \(a.jpg\): no image 'a.jpg' in"

    def ids(problems: Problems) -> list[str]:
        return [item.id for item in open_objects(str(path), problems).items]

    check_broken(ids, expected, ["b.jpg"])


def test_tags_are_classes_of_images(tmp_path: Path) -> None:
    path = write_xml(tmp_path / "a.xml", TAG.format(" sharp "), TAG.format("sharp"))
    problems = Problems()
    assert get_task("classification").read_labels(path, problems) == {"a.jpg": "sharp"}
    assert problems.notes == [
        f"{path}: 1 of 2 images has no tag: not labeled yet",
        f"{path}: left out 1 box (only tags are classes of images)",
    ]
    path.write_text(path.read_text().replace(GOOD, TAG.format("blurred")))
    assert read_any_labels(path, Problems()) == {"a.jpg": "sharp", "b.jpg": "blurred"}
    write_xml(path, TAG.format("sharp"), TAG.format("blurred"))
    path.write_text(path.read_text().replace(GOOD, TAG.format("blurred")))
    what = r"image 1 \(a.jpg\): has the tags 'blurred' and 'sharp'; keep one"
    check_broken(partial(parse_tags, path), what, ["b.jpg"])


def test_a_folder_with_the_file_is_not_a_folder_of_voc(tmp_path: Path) -> None:
    write_xml(tmp_path / "annotations.xml", GOOD)
    with pytest.raises(LabelError, match="give CVAT's file itself"):
        read_objects(tmp_path, Problems())
