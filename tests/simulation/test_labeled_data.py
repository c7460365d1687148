"""The share of the data that a simulation tests on: near-duplicates are drawn together."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lloss.annotations import Problems
from lloss.simulation.image_variants import variant_of
from lloss.simulation.labeled_data import DataOptions
from lloss.tasks import get_task
from lloss.training.holdout import draw_holdout

from ..data.test_near_copies import item_of, scene


def _options(data: Path, share: str, seed: int = 0) -> DataOptions:
    return DataOptions("classification", str(data), None, share, None, data, seed=seed)


def _write(folder: Path, scenes: int, frames: int) -> Path:
    for number in range(scenes):
        item = item_of(scene(number))
        for frame in range(frames):
            path = folder / ("even", "odd")[number % 2] / f"{frame}-{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            raw = variant_of(item, frame, True).read()
            if isinstance(raw, bytes):
                path.write_bytes(raw)
            else:
                Image.fromarray(raw).save(path)
    return folder


def _scenes(ids: set[str]) -> set[str]:
    return {id[-6:-4] for id in ids}


def test_near_duplicates_are_tested_on_together(tmp_path: Path) -> None:
    data, problems = _write(tmp_path / "video", 20, 3), Problems()
    options = _options(data, "20%")
    opened = options.open(problems)
    test, rest = ({item.id for item in each.items} for each in (opened.test, opened.data))
    assert (len(test), len(rest)) == (12, 48) and not _scenes(test) & _scenes(rest)
    assert problems.lines() == [
        f"{data}: 40 of 60 images are near-duplicates of others: the test images are drawn from 20 "
        "groups, none of them divided"
    ]
    labels = opened.data.labels
    assert {labels.count(name) for name in ("even", "odd")} == {24}


def test_another_process_opens_the_same_without_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = _options(_write(tmp_path / "video", 12, 3), "25%")
    opened = options.open()
    drawn = options.drawn(opened)
    monkeypatch.setattr("lloss.simulation.labeled_data.groups_among", None)
    again = drawn.open()
    assert [item.id for item in again.test.items] == [item.id for item in opened.test.items]
    assert drawn.described(again) == options.described(opened)
    named = _options(tmp_path / "video", str(tmp_path / "video"))
    assert named.drawn(named.open()) is named


@pytest.mark.parametrize("seed", [0, 3])
def test_without_near_duplicates_the_draw_is_of_single_images(tmp_path: Path, seed: int) -> None:
    data, problems = _write(tmp_path / "photos", 40, 1), Problems()
    opened = _options(data, "20%", seed).open(problems)
    task = get_task("classification")
    whole = task.open(str(data), None, data, Problems()).ordered()
    held = draw_holdout(task, whole, 0.2, seed)
    assert {item.id for item in opened.test.items} == set(held) and problems.lines() == []
