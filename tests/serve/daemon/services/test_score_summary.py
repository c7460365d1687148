from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from lloss.serve.daemon.services import score_summary as module
from lloss.serve.daemon.services.score_summary import ScoredImage, ScoreSummary, score_summary

from lloss.errors import ScoresError
from lloss.scores.scores_folder import RUN, ScoresFolder, scores_table
from lloss.statistics.charts import Spread, histogram

from ..scores import write_scores


@pytest.fixture
def folder(tmp_path: Path) -> ScoresFolder:
    """9,000 rows in three parts, the loss a permutation of 0 to 8,999."""
    losses = np.random.default_rng(0).permutation(9000).astype(np.float32)
    columns = {"loss": losses, "prediction": losses % 10, "confidence": losses / 9000}
    ids = [f"id {int(loss)}" for loss in losses]
    return write_scores(tmp_path / "scores", ids, columns, part=3000)


def test_the_best_images_are_kept_and_others_are_found(
    folder: ScoresFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEST", 10)
    monkeypatch.setattr(module, "_OTHERS", 5)
    summary = ScoreSummary(folder)
    assert summary.spread is not None and summary.spread.size == 9000
    with monkeypatch.context() as patch:
        patch.setattr(ScoresFolder, "scan", None)  # nothing can be read
        best = summary.images(["id 8999", "id 8990"])
        assert best["id 8999"] == ScoredImage(8999, 9, pytest.approx(8999 / 9000))
    found = summary.images(["id 8999", "id 17", "none"])
    assert found["id 17"].prediction == 7 and math.isnan(found["none"].loss)
    for number in range(20):
        summary.images(["id 8999", f"id {number}"])
    monkeypatch.setattr(ScoresFolder, "scan", None)
    assert set(summary.images(["id 8999", "id 19", "id 16"])) == {"id 8999", "id 19", "id 16"}
    with pytest.raises(TypeError):
        summary.images(["id 0"])  # the least recently used one was dropped


def test_a_folder_is_read_once_until_it_changes(folder: ScoresFolder) -> None:
    first = score_summary(folder)
    assert score_summary(ScoresFolder(folder.path)) is first
    os.utime(folder.path / RUN, ns=(1, 1))
    assert score_summary(folder) is not first


def test_scores_without_numbers_or_predictions_have_a_summary(tmp_path: Path) -> None:
    folder = ScoresFolder(tmp_path)
    losses = np.array([math.nan, math.inf], np.float32)
    folder.write_part(0, scores_table(["a", "b"], {"loss": losses}), [])
    summary = ScoreSummary(folder)
    assert summary.spread is None and summary.images(["a"])["a"].prediction == -1
    (tmp_path / "part-00000.parquet").write_bytes(b"broken")
    with pytest.raises(ScoresError):
        ScoreSummary(folder)


def test_a_spread_draws_the_histogram_of_its_values() -> None:
    losses = np.random.default_rng(3).gamma(2, 1, 5000).astype(np.float32)
    losses[:7] = math.nan
    assert histogram(Spread.of(losses), [4.0, 5.0])
    assert Spread.of(losses[:7]) is None
