"""What is known of images from the scores of their pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.stats import percentileofscore
from starlette.testclient import TestClient

from lloss.scores.scores_folder import ScoresFolder

from .daemons import Daemon
from .messages import ask, task


def test_ten_thousand_tasks_are_answered_in_one_pass(
    client: TestClient, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = np.random.default_rng(0).normal(size=30_000).round(2)
    daemon.put("many", losses.tolist(), "cd" * 32)
    rows = np.random.default_rng(1).permutation(30_000)[:10_000].tolist()
    passes, scan = 0, ScoresFolder.scan

    def counted(self: ScoresFolder, columns: Sequence[str]) -> Any:
        nonlocal passes
        passes += 1
        return scan(self, columns)

    monkeypatch.setattr(ScoresFolder, "scan", counted)
    results = ask(client, *(task(f"{row}.png", "many") for row in rows))
    assert passes == 1
    ranks = percentileofscore(losses.astype(np.float32), losses[rows].astype(np.float32), "mean")
    np.testing.assert_allclose([one["score"] for one in results], 1 - ranks / 100, atol=1e-9)
    assert {one["model_version"] for one in results} == {"cd" * 6}
    assert all(one["result"] == [] for one in results)  # made by a model that does not serve now


def test_scores_that_were_made_anew_are_ranked_anew(client: TestClient, daemon: Daemon) -> None:
    before = ask(client, task("0.png"))[0]["score"]
    daemon.put("wild", [9, 1, 4, 1, 5])
    assert ask(client, task("0.png"))[0]["score"] < before


def test_damaged_scores_are_an_error_and_not_a_guess(client: TestClient, daemon: Daemon) -> None:
    scores = daemon.catalog.pools.row("wild").scores
    assert scores is not None
    (scores / "part-00000.parquet").write_bytes(b"PAR1 no more")
    reply = client.post("/labelstudio/predict", json={"tasks": [task("0.png")]})
    assert reply.status_code == 409 and "part-00000.parquet" in reply.json()["error"]
