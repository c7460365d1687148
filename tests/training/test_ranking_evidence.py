from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lloss.selection.automatic import Evidence, automatic_choice
from lloss.statistics.ranking_metrics import ranking_figures, ranking_intervals
from lloss.training.ranking_evidence import (
    CROSS_VALIDATION,
    comparison,
    evidence_of,
    finite,
    read_cross_validation,
)


def figures(noise: float, other: float, **also: Any) -> tuple[dict[str, Any], Evidence]:
    """Those of ``evaluation.json``, and what they are to say."""
    random = np.random.default_rng(0)
    loss = random.random(120)
    head, entropy = (loss + random.normal(0, each, 120) for each in (noise, other))
    content = {
        "images": 120,
        "head": asdict(ranking_figures(head, loss)),
        "entropy": asdict(ranking_figures(entropy, loss)),
        "intervals": {
            n: ranking_intervals(v, loss) for n, v in (("head", head), ("entropy", entropy))
        },
        "comparison": comparison(loss, head, entropy),
        **also,
    }
    written: dict[str, Any] = json.loads(json.dumps(finite(content)))
    return written, Evidence.measured(500, loss, head, entropy)


def test_figures_read_from_json_are_the_evidence_that_was_measured() -> None:
    written, wanted = figures(0.3, 0.8)
    found = evidence_of(written, 500, has_entropy=True)
    assert found.images == wanted.images == 120 and found.advantage == wanted.advantage
    assert wanted.head and wanted.entropy and found.head and found.entropy
    assert (found.head.low, found.entropy.low) == (wanted.head.low, wanted.entropy.low)
    assert automatic_choice(found) == automatic_choice(wanted)


def test_a_task_without_an_entropy_of_its_own_chooses_by_the_loss() -> None:
    written, _ = figures(0.4, 0.05)
    assert automatic_choice(evidence_of(written, 500, has_entropy=True)).by == "entropy"
    found = evidence_of(written, 500, has_entropy=False, lift=1.5, picks=30)
    assert found.entropy is None and found.advantage is None and found.lift == 1.5
    assert automatic_choice(found).by == "loss"


def test_figures_of_earlier_versions_have_95_percent_intervals_alone() -> None:
    written, _ = figures(0.3, 0.8)
    del written["comparison"]
    found = evidence_of(written, 500, has_entropy=True)
    assert found.head and found.head.low == found.head.interval[0]
    assert found.advantage is None and automatic_choice(found).by == "loss"


@pytest.mark.parametrize("content", [None, {}, {"images": 50, "head": None}])
def test_nothing_measured_is_no_evidence(content: dict[str, Any] | None) -> None:
    assert evidence_of(content, 60, has_entropy=True) == Evidence(labeled=60)


def test_equal_losses_are_measured_but_rank_nothing() -> None:
    loss = np.ones(60)
    compared = finite(comparison(loss, np.arange(60.0), np.arange(60.0)))
    nothing = {"ranking_accuracy": None, "spearman": None, "lift": None}
    content = {"images": 60, "head": nothing, "entropy": nothing, "comparison": compared}
    found = evidence_of(content, 200, has_entropy=True)
    assert found.images == 60 and found.head is None
    assert "the same loss" in automatic_choice(found).reason
    assert comparison(loss, None, loss) == {}


def test_figures_on_the_labels_are_read_where_they_are(tmp_path: Path) -> None:
    assert read_cross_validation(tmp_path) is None
    (tmp_path / CROSS_VALIDATION).write_text("{")
    assert read_cross_validation(tmp_path) is None
    (tmp_path / CROSS_VALIDATION).write_text('{"images": 3}')
    assert read_cross_validation(tmp_path) == {"images": 3}


def test_finite_replaces_what_json_lacks() -> None:
    assert finite({"a": [1, math.nan, (math.inf, "x")], "b": None}) == {
        "a": [1, None, [None, "x"]],
        "b": None,
    }
