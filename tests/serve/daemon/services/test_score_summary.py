"""What pages show of scores: the best images, other rows, and what is handed out next."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lloss.serve.daemon.services import score_summary as module
from lloss.serve.daemon.services.score_summary import ScoredImage, ScoreSummary

from lloss.errors import ScoresError
from lloss.scores.scores_folder import ScoresFolder, scores_table
from lloss.selection import SelectionSettings
from lloss.statistics.charts import LossHistogram, histogram

from ..scores import write_scores


def shown(bench: Any, k: int) -> list[str]:
    images = bench.selections.preview("p", k)
    assert [image.rank for image in images] == list(range(1, len(images) + 1))
    return [image.id for image in images]


def test_the_best_images_are_kept_and_others_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = np.random.default_rng(0).permutation(9000).astype(np.float32)
    columns = {"loss": losses, "prediction": losses % 10, "confidence": losses / 9000}
    ids = [f"id {int(loss)}" for loss in losses]
    folder = write_scores(tmp_path / "scores", ids, columns, part=3000)
    monkeypatch.setattr(module, "BEST", 10)
    monkeypatch.setattr(module, "_OTHERS", 5)
    summary = ScoreSummary(folder)
    assert summary.histogram is not None and summary.histogram.size == 9000
    found = summary.images(["id 8999", "id 17", "none"])
    assert found["id 17"].prediction == 7 and math.isnan(found["none"].loss)
    monkeypatch.setattr(ScoresFolder, "scan", None)  # nothing can be read
    assert summary.images(["id 17", "none"]).keys() == {"id 17", "none"}
    best = summary.images(["id 8999", "id 8990"])
    assert best["id 8999"] == ScoredImage(8999, 9, pytest.approx(8999 / 9000))


def test_scores_without_numbers_or_predictions_have_a_summary(tmp_path: Path) -> None:
    folder = ScoresFolder(tmp_path)
    losses = np.array([math.nan, math.inf], np.float32)
    folder.write_part(0, scores_table(["a", "b"], {"loss": losses}), [])
    summary = ScoreSummary(folder)
    assert summary.histogram is None and summary.images(["a"])["a"].prediction == -1
    (tmp_path / "part-00000.parquet").write_bytes(b"broken")
    with pytest.raises(ScoresError):
        ScoreSummary(folder)


@pytest.mark.parametrize("kept", [5000, 30, 5])
def test_the_next_images_are_what_select_would_give(
    bench: Any, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(module, "BEST", kept)
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    draw = random.Random(1)
    for _ in range(8):
        free = bench.ranked(bench.images.taken("p"))
        assert shown(bench, 6) == free[:6]
        draw.choice([bench.labels.label, bench.labels.skip])("p", {free[0]: "cat"})
        bench.select(1)
        bench.labels.give_back("p", draw.sample(bench.ids, 10))
    bench.images.label("p", dict.fromkeys(bench.ids, "cat"))
    assert shown(bench, 6) == []


def test_images_that_can_be_compared_are_shown_as_they_would_be_handed_out(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, losses = random.Random(1), np.random.default_rng(0).random(300, np.float32)
    vectors = np.random.default_rng(1).normal(size=(300, 8)).astype(np.float32)
    ids = [f"id {n}" for n in range(300)]
    folder = write_scores(bench.scores, ids, {"loss": losses, "embedding": vectors})
    scans, select = list[int](), module.select
    monkeypatch.setattr(module, "select", lambda *args: scans.append(1) or select(*args))  # type: ignore[func-returns-value]

    def given(k: int) -> list[str]:
        settings = SelectionSettings(k=k, at_most=True)
        chosen = select(folder, settings, bench.images.taken("p"))
        assert chosen.settings.strategy == "herding"
        return chosen.ids

    bench.images.label("p", {"id 3": "cat"})
    assert shown(bench, 6) == given(6)
    made, first = len(scans), shown(bench, 20)
    for place in range(1, 5):  # the order stays as it was while these are labeled
        bench.labels.label("p", {shown(bench, 1)[0]: "cat"})
        assert shown(bench, 6) == first[place : place + 6]
    assert len(scans) == made
    for _ in range(6):
        bench.labels.label("p", {draw.choice(given(300)): "cat"})
        bench.labels.give_back("p", draw.sample(ids, 10))
        assert shown(bench, 6) == given(6)
    bench.images.label("p", dict.fromkeys(ids[:-2], "cat"))
    assert shown(bench, 6) == given(6) and len(given(6)) == 2
    bench.images.label("p", dict.fromkeys(ids, "cat"))
    assert shown(bench, 6) == []


def test_scores_are_scanned_once_until_they_change(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans, select = list[int](), module.select
    monkeypatch.setattr(module, "select", lambda *args: scans.append(1) or select(*args))  # type: ignore[func-returns-value]
    for id in bench.ranked()[:5]:
        shown(bench, 3)
        bench.labels.label("p", {id: "cat"})
    assert len(scans) == 1
    bench.write(bench.scores, -np.array(list(bench.loss.values()), np.float32))  # in its place
    assert shown(bench, 1) == bench.ranked()[-1:]


def test_a_histogram_is_drawn_of_its_losses() -> None:
    losses = np.random.default_rng(3).gamma(2, 1, 5000).astype(np.float32)
    losses[:7] = math.nan
    assert histogram(LossHistogram.of(losses), [4.0, 5.0])
    assert LossHistogram.of(losses[:7]) is None
