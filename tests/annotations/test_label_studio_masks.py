"""Masks in Label Studio's JSON export."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lloss.annotations import Problems
from lloss.annotations.label_studio_masks import parse_masks, unpack
from lloss.annotations.problems import AnnotationError
from lloss.errors import LabelError
from lloss.tasks import get_task

SIZE = {"original_width": 6, "original_height": 4}


def packed(runs: list[tuple[int, bytes]]) -> list[int]:
    """Encode runs of a length and either one value or all of them, by hand."""
    count = sum(length for length, _ in runs)
    bits = f"{count:032b}" + f"{7:05b}" + "".join(f"{width - 1:04b}" for width in (3, 4, 8, 16))
    for length, values in runs:
        bits += f"{int(len(values) == 1)}" + "11" + f"{length - 1:016b}"
        bits += "".join(f"{value:08b}" for value in values)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


def brush(mask: NDArray[np.bool_]) -> list[int]:
    values = np.repeat(mask.ravel().astype(np.uint8) * 255, 4).tobytes()
    half = len(values) // 2
    return packed([(half, values[:half]), *((1, bytes([one])) for one in values[half:])])


def region(kind: str, name: str, **value: Any) -> dict[str, Any]:
    return {"type": kind, **SIZE, "value": {**value, kind: [name]}}


def export(*results: Any) -> Any:
    return [
        {"data": {"image": f"{number}.png"}, "annotations": [{"result": result}]}
        for number, result in enumerate(results)
    ]


def test_runs_are_values() -> None:
    runs = [(5, b"\xff"), (3, b"\x01\x02\x03"), (65536, b"\x00")]
    expected = [255] * 5 + [1, 2, 3] + [0] * 65536
    assert unpack(packed(runs), "x").tolist() == expected
    for broken in ([], [1, 2, 3], packed(runs)[:15], [255] * 40):
        with pytest.raises(AnnotationError, match="is not a brush's run-length encoding"):
            unpack(broken, "x")


def test_regions_are_painted_in_their_order() -> None:
    left = np.zeros((4, 6), np.bool_)
    left[:, :3] = True
    document = export(
        [
            region("brushlabels", "water", format="rle", rle=brush(left)),
            region("rectanglelabels", "boat", x=0, y=0, width=20, height=30),
        ],
        [region("polygonlabels", "boat", points=[[0, 0], [100, 0], [100, 100], [0, 100]])],
        [],
    )
    problems = Problems()
    one, other = parse_masks(document, "x", problems)
    assert one.classes == ("background", "boat", "water")
    expected = np.where(left, 2, 0)
    expected[:2, :2] = 1
    assert one.pixels.tolist() == expected.tolist()
    assert other.classes == ("background", "boat") and other.pixels.min() == 1
    assert "x: 1 annotated image has no region: not labeled yet" in problems.notes


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (region("brushlabels", "a", rle=packed([(7, b"\0")])), r"7 values, not 4 for each of 6×4"),
        (region("brushlabels", "a", rle=[300]), r"rle\[0\]: 300: expected int <= 255"),
        (region("ellipselabels", "a"), "type 'ellipselabels'; masks are brushlabels, polygon"),
    ],
)
def test_a_broken_region_is_named_or_its_image_left_out(result: Any, message: str) -> None:
    document = export([result])
    with pytest.raises(LabelError, match=rf"x: task 1: annotations\[0\].result\[0\].*{message}"):
        list(parse_masks(document, "x", Problems()))
    problems = Problems(skip=True)
    assert list(parse_masks(document, "x", problems)) == []
    assert problems.unusable == {"x": {"0.png"}}


def test_an_export_labels_images_for_segmentation(
    tmp_path: Path, picture: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("0.png", "1.png"):
        picture(tmp_path / "images" / name, 6, 4)
    mask = np.eye(4, 6, dtype=np.bool_)
    path = tmp_path / "export.json"
    brushes = region("brushlabels", "water", rle=brush(mask))
    path.write_text(json.dumps(export([brushes], [brushes])))
    task = get_task("segmentation")
    labeled = task.open(str(tmp_path / "images"), path, tmp_path, Problems())
    assert [item.id for item in labeled.items] == ["0.png", "1.png"]
    assert labeled.labels[0].names == {"0": "background", "1": "water"}
    assert task.read_labels(path, Problems())["0.png"] == labeled.labels[0]
    assert len(list((tmp_path / "home/.cache/lloss/masks").iterdir())) == 1
