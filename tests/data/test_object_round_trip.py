"""One set of objects, written as each format has it, is read as the same boxes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lloss.annotations import Problems
from lloss.data.label_joining import labeled_pool
from lloss.data.object_labels import join_objects, read_objects

WIDTH, HEIGHT = 40, 30

Objects = dict[str, list[tuple[str, tuple[float, float, float, float]]]]

OBJECTS: Objects = {
    "a": [("cat", (10, 5, 30.5, 15)), ("dog", (1, 2, 4.25, 6))],
    "sub/b": [("dog", (0, 0, 40, 30))],
    "sub/c": [],
}
"""Classes and edges in pixels, by the image's path without its suffix."""

NAMES = ("cat", "dog")


def as_coco(folder: Path) -> Path:
    images = [
        {"id": number, "file_name": f"{id}.png", "width": WIDTH, "height": HEIGHT}
        for number, id in enumerate(OBJECTS)
    ]
    annotations = [
        {
            "id": number,
            "image_id": list(OBJECTS).index(id),
            "category_id": NAMES.index(name),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
        }
        for number, (id, name, (x0, y0, x1, y1)) in enumerate(_rows())
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    return _write(folder / "coco.json", json.dumps(document))


def as_voc(folder: Path) -> Path:
    """Edges count pixels from 1, and belong to the box."""
    for id, objects in OBJECTS.items():
        body = "".join(
            f"<object><name>{name}</name><bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin>"
            f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
            for name, (x0, y0, x1, y1) in objects
        )
        _write(folder / "voc" / f"{id}.xml", f"<annotation>{body}</annotation>")
    return folder / "voc"


def as_yolo(folder: Path) -> Path:
    _write(folder / "yolo/classes.txt", "\n".join(NAMES))
    for id, objects in OBJECTS.items():
        lines = [
            f"{NAMES.index(name)} {(x0 + x1) / 2 / WIDTH} {(y0 + y1) / 2 / HEIGHT} "
            f"{(x1 - x0) / WIDTH} {(y1 - y0) / HEIGHT}"
            for name, (x0, y0, x1, y1) in objects
        ]
        _write(folder / "yolo" / f"{id}.txt", "\n".join(lines))
    return folder / "yolo"


def as_cvat(folder: Path) -> Path:
    images = "".join(
        f'<image name="{id}.png" width="{WIDTH}" height="{HEIGHT}">'
        + "".join(
            f'<box label="{name}" xtl="{x0}" ytl="{y0}" xbr="{x1}" ybr="{y1}"/>'
            for name, (x0, y0, x1, y1) in objects
        )
        + "</image>"
        for id, objects in OBJECTS.items()
    )
    return _write(folder / "cvat.xml", f"<annotations>{images}</annotations>")


def as_labelme(folder: Path) -> Path:
    for id, objects in OBJECTS.items():
        shapes = [
            {"label": name, "points": [[x0, y0], [x1, y1]], "shape_type": "rectangle"}
            for name, (x0, y0, x1, y1) in objects
        ]
        _write(folder / "labelme" / f"{id}.json", json.dumps({"shapes": shapes}))
    return folder / "labelme"


def as_metadata(folder: Path) -> Path:
    rows = [
        {
            "file_name": f"{id}.png",
            "objects": {
                "bbox": [[x0, y0, x1 - x0, y1 - y0] for _, (x0, y0, x1, y1) in objects],
                "categories": [name for name, _ in objects],
            },
        }
        for id, objects in OBJECTS.items()
    ]
    return _write(folder / "metadata.jsonl", "\n".join(map(json.dumps, rows)))


def as_csv(folder: Path) -> Path:
    rows = [f"{id}.png;{name};" + ";".join(map(_comma, box)) for id, name, box in _rows()]
    rows += [f"{id}.png;;;;;" for id, objects in OBJECTS.items() if not objects]
    text = "\r\n".join(["sep=;", "filename;class;xmin;ymin;xmax;ymax", *rows])
    return _write(folder / "boxes.csv", text)


def as_label_studio(folder: Path) -> Path:
    tasks = [
        {
            "data": {"image": f"/data/local-files/?d={id}.png"},
            "annotations": [{"result": [_region(name, box) for name, box in objects]}],
        }
        for id, objects in OBJECTS.items()
    ]
    return _write(folder / "export.json", json.dumps(tasks))


def as_fiftyone(folder: Path) -> Path:
    samples = [
        {
            "filepath": f"data/{id}.png",
            "ground_truth": {
                "_cls": "Detections",
                "detections": [
                    {
                        "label": name,
                        "bounding_box": [
                            x0 / WIDTH, y0 / HEIGHT, (x1 - x0) / WIDTH, (y1 - y0) / HEIGHT
                        ],
                    }
                    for name, (x0, y0, x1, y1) in objects
                ],
            },
        }
        for id, objects in OBJECTS.items()
    ]  # fmt: skip
    return _write(folder / "samples.json", json.dumps({"samples": samples}))


def _rows() -> list[tuple[str, str, tuple[float, float, float, float]]]:
    return [(id, name, box) for id, objects in OBJECTS.items() for name, box in objects]


def _region(name: str, box: tuple[float, float, float, float]) -> dict[str, object]:
    x0, y0, x1, y1 = box
    place = {"x": x0 * 100 / WIDTH, "y": y0 * 100 / HEIGHT}
    place |= {"width": (x1 - x0) * 100 / WIDTH, "height": (y1 - y0) * 100 / HEIGHT}
    size = {"original_width": WIDTH, "original_height": HEIGHT}
    return {"type": "rectanglelabels", **size, "value": {**place, "rectanglelabels": [name]}}


def _comma(number: float) -> str:
    return str(number).replace(".", ",")


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "write",
    [
        as_coco, as_voc, as_yolo, as_cvat, as_labelme, as_metadata, as_csv, as_label_studio,
        as_fiftyone,
    ],
)  # fmt: skip
def test_the_boxes_are_the_same(
    tmp_path: Path, picture: Callable[..., Path], write: Callable[[Path], Path]
) -> None:
    pool = tmp_path / "images"
    for id in OBJECTS:
        picture(pool / f"{id}.png", WIDTH, HEIGHT)
    path = write(tmp_path)
    problems = Problems()
    labels = read_objects(path, problems)
    labeled = join_objects(labeled_pool(pool, [path]), labels, str(path), problems)
    found = {item.id: label for item, label in zip(labeled.items, labeled.labels)}
    assert sorted(found) == [f"{id}.png" for id in OBJECTS]
    for id, objects in OBJECTS.items():
        label = found[f"{id}.png"]
        assert list(label.names) == [name for name, _ in objects]
        expected = np.array([box for _, box in objects]).reshape(-1, 4)
        np.testing.assert_allclose(label.boxes, expected, atol=1e-3)
