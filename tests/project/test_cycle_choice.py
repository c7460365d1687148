from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lloss.errors import SelectionError
from lloss.pools import open_pool
from lloss.project.cycle_choice import distance_note, pick_images, refuse_too_few
from lloss.project.picks_file import RANDOM
from lloss.project.project import Project
from lloss.scores.score_source import TableScores
from lloss.scores.scores_folder import scores_table
from lloss.selection.automatic import Evidence, Ranking
from lloss.selection.hashing import draw_ids
from lloss.tasks.presets import resolve_settings

GOOD = Ranking(accuracy=0.8, interval=(0.7, 0.9), low=0.72)
TRUSTED = Evidence(labeled=200, images=100, head=GOOD)
IDS = [f"{n:03d}" for n in range(100)]


def project(**values: Any) -> Project:
    defaults = {
        "pool": "pool",
        "labels": "labels.csv",
        "k": 10,
        "strategy": "herding",
        "by": "auto",
    }
    return Project(root=Path("p"), train=resolve_settings("default"), **{**defaults, **values})


@pytest.fixture
def scores() -> TableScores:
    """Ten places of four images of high loss each, and ten of six images of low loss."""
    random = np.random.default_rng(0)
    high = np.arange(100) < 40
    place = np.arange(100) % 10 + np.where(high, 0, 10)
    columns = {
        "loss": np.where(high, 5.0, 0.05).astype(np.float32) + random.random(100) / 100,
        "entropy": random.random(100),
        "embedding": (np.eye(20)[place] + random.normal(0, 0.02, (100, 20))),
    }
    return TableScores(scores_table(IDS, {n: v.astype(np.float32) for n, v in columns.items()}))


def test_auto_weights_by_a_loss_that_ranks_and_covers_where_none_does(scores: TableScores) -> None:
    trusted = pick_images(project(), 1, scores, (), TRUSTED)
    assert (trusted.choice.strategy, trusted.choice.by) == ("herding", "loss")
    unknown = pick_images(project(), 1, scores, (), Evidence(labeled=60))
    assert (unknown.choice.strategy, unknown.choice.by) == ("coverage", "")
    assert "not measured yet" in unknown.choice.reason
    high = [sum(int(id) < 40 for id in one.selection.ids) for one in (trusted, unknown)]
    assert high[0] > high[1] == 0
    assert np.isfinite(unknown.selection.scores).all()  # shown, though nothing is decided by them


def test_below_the_least_number_of_labels_picks_are_random(scores: TableScores) -> None:
    asked = project(class_weight="balanced")
    picks = pick_images(asked, 4, scores, (), replace(TRUSTED, least=201))
    assert (picks.choice.strategy, picks.choice.by) == ("random", "")
    assert picks.selection.ids == draw_ids(IDS, 10, 4)
    assert "fewer than 201 labels" in picks.choice.reason


def test_what_the_settings_ask_for_is_not_overruled(scores: TableScores) -> None:
    by = pick_images(project(strategy="top", by="entropy"), 1, scores, (), Evidence(labeled=9))
    entropy = scores.table["entropy"].to_numpy()
    assert by.selection.ids == [IDS[row] for row in np.argsort(-entropy)[:10]]
    assert by.choice.reason == ""
    drawn = pick_images(project(strategy="random"), 4, scores, (), TRUSTED)
    assert drawn.selection.ids == draw_ids(IDS, 10, 4) and drawn.choice.by == ""


def test_monitored_images_are_a_random_sample_of_what_is_unlabeled(scores: TableScores) -> None:
    asked, labeled = project(monitor=0.3), IDS[:50]
    picks = pick_images(asked, 1, scores, labeled, TRUSTED)
    assert len(picks.selection) == 10 and picks.random == 3
    assert picks.selection.ids[7:] == draw_ids(IDS[50:], 3, asked.monitoring_seed)
    assert list(picks.selection.reasons[7:]) == [RANDOM] * 3
    assert len({*picks.selection.ids, *labeled}) == 60
    again = pick_images(asked, 2, scores, [*labeled, *picks.selection.ids], TRUSTED)
    order = draw_ids(IDS, 100, asked.monitoring_seed)
    last = max(order.index(id) for id in again.selection.ids[7:])
    known = {*labeled, *picks.selection.ids, *again.selection.ids}
    assert set(order[: last + 1]) <= known  # so all of these are labeled: a random sample


def test_images_that_cannot_be_read_are_found_before_training(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(SelectionError, match=r"^k = 2: 0 of 3 images left to label in .* can be "
                       r"read \('0\.png': not an image .*\); mend or add images$"):  # fmt: skip
        refuse_too_few(project(k=2), open_pool(tmp_path), at_most=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    refuse_too_few(project(k=2), open_pool(tmp_path), at_most=True)
    with pytest.raises(SelectionError, match=r"^k = 2: 1 of 3 .*, or pass --at-most to take"):
        refuse_too_few(project(k=2), open_pool(tmp_path), at_most=False)
    Image.new("RGB", (8, 8)).save(tmp_path / "2.png")
    refuse_too_few(project(k=2), open_pool(tmp_path), at_most=False)


def test_too_few_beside_the_monitored_images_name_both_numbers(scores: TableScores) -> None:
    asked = project(monitor=0.1, k=40, min_distance=0.5)
    with pytest.raises(SelectionError) as refused:
        pick_images(asked, 1, scores, (), TRUSTED)
    assert re.match(r"k = 36, but \d+ images are left at least 0\.5 from ", str(refused.value))
    assert str(refused.value).endswith("(of the 40 wanted, 4 are drawn at random: monitor)")


def test_fewer_images_than_k_are_all_selected_only_if_asked_for(scores: TableScores) -> None:
    for left in (1, 3, 6):
        asked = project(monitor=0.3)
        with pytest.raises(SelectionError, match=rf"k = 10, but {left} (image is|images are) left"):
            pick_images(asked, 1, scores, IDS[left:], TRUSTED)
        picks = pick_images(asked, 1, scores, IDS[left:], TRUSTED, at_most=True)
        assert sorted(picks.selection.ids) == IDS[:left] and picks.random == min(left, 3)


def test_an_automatic_distance_never_leaves_too_few(scores: TableScores) -> None:
    for distance in (0.2, 1.9):
        asked = project(min_distance=-1, strategy="top", by="entropy")
        picks = pick_images(asked, 1, scores, (), TRUSTED, distance=distance)
        assert len(picks.selection) == 10
        assert picks.selection.settings.min_distance == (0.2 if distance == 0.2 else 0)
        assert ("not passed over" in distance_note(distance, picks.selection)) == (distance == 1.9)
        places = {int(id) % 10 + 10 * (int(id) >= 40) for id in picks.selection.ids}
        assert len(places) >= (10 if distance == 0.2 else 1)
    with pytest.raises(SelectionError, match="1 image is left"):
        pick_images(project(min_distance=1.9), 1, scores, (), TRUSTED)


def test_an_image_without_a_loss_is_never_selected(scores: TableScores) -> None:
    loss = scores.table["loss"].to_numpy().copy()
    loss[::2] = np.nan
    table = scores.table.set_column(1, "loss", pa.array(loss))
    picks = pick_images(project(monitor=0.3), 1, TableScores(table), (), TRUSTED)
    assert all(int(id) % 2 for id in picks.selection.ids) and picks.selection.unscored == 50
