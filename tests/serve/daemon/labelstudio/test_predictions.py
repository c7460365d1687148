from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import percentileofscore
from starlette.testclient import TestClient

from .daemons import Daemon
from .messages import ask, recorded, task


def test_a_recorded_request_is_answered_from_the_scores(client: TestClient) -> None:
    reply = client.post("/labelstudio/predict", json=recorded("predict.json"))
    results = reply.json()["results"]
    assert results[5] == []  # of no pool: a prediction without a score would come first
    losses = [3, 1, 4, 1, 5]
    for loss, result in zip(losses, results):
        rank = percentileofscore(losses, loss, kind="mean") / 100
        assert result["score"] == pytest.approx(1 - rank)
        assert result["model_version"] == "ab" * 6
    assert results[1]["result"] == [
        {"from_name": "kind", "to_name": "img", "type": "choices", "value": {"choices": ["dog"]}}
    ]
    assert results[2]["result"] == []  # the project does not offer this class


def test_unknown_tasks_get_no_prediction(client: TestClient) -> None:
    wrong = [
        task(), task("nowhere.png"), task("0.png", "raw"), task("0.png", "gone"), None, 3, [],
        {"data": []}, {"data": {"lloss_pool": 3, "lloss_id": "0.png"}}, {},
        {"data": {"lloss_pool": "wild", "lloss_id": ["0.png"]}},
        {"data": {"lloss_pool": "wild", "lloss_id": "\ud800"}},
        {"data": {"lloss_pool": "\ud800", "lloss_id": "0.png"}},
    ]  # fmt: skip
    body = json.dumps({"tasks": [*wrong, task("0.png")]})
    results = client.post("/labelstudio/predict", content=body).json()["results"]
    assert results[:-1] == [[]] * len(wrong) and results[-1]["score"] > 0


def test_a_task_with_this_prediction_gets_no_second_one(client: TestClient) -> None:
    mine, other = {"model_version": "ab" * 6, "score": 0.3}, {"model_version": "v0"}
    assert ask(client, task("0.png", predictions=[other, mine])) == [[]]
    for odd in ([other], "?", 5, {}, {"a": 1}, True, [None, 3]):
        assert ask(client, task("0.png", predictions=odd))[0]["score"] > 0


def test_an_annotator_who_waits_always_gets_an_answer(client: TestClient) -> None:
    context = {"params": {"context": {"result": []}}}
    assert ask(client, task(), **context) == [{"result": [], "model_version": ""}]
    shown = task("0.png", predictions=[{"model_version": "ab" * 6}])
    assert ask(client, shown, **context)[0]["score"] > 0


def test_scores_of_many_tasks_are_percentile_ranks(client: TestClient, daemon: Daemon) -> None:
    losses = np.random.default_rng(0).normal(size=3_000).round(2)
    daemon.put("many", losses.tolist(), "cd" * 32)
    rows = np.random.default_rng(1).permutation(3_000)[:1_000].tolist()
    results = ask(client, *(task(f"{row}.png", "many") for row in rows))
    ranks = percentileofscore(losses.astype(np.float32), losses[rows].astype(np.float32), "mean")
    np.testing.assert_allclose([one["score"] for one in results], 1 - ranks / 100, atol=1e-9)
    assert {one["model_version"] for one in results} == {"cd" * 6}
    assert all(one["result"] == [] for one in results)  # another model serves now


def test_new_scores_are_ranked_again(client: TestClient, daemon: Daemon) -> None:
    before = ask(client, task("0.png"))[0]["score"]
    daemon.put("wild", [9, 1, 4, 1, 5])
    assert ask(client, task("0.png"))[0]["score"] < before


def test_damaged_scores_are_an_error(client: TestClient, daemon: Daemon) -> None:
    scores = daemon.catalog.pools.row("wild").scores
    assert scores is not None
    (scores.folder / "part-00000.parquet").write_bytes(b"PAR1 no more")
    reply = client.post("/labelstudio/predict", json={"tasks": [task("0.png")]})
    assert reply.status_code == 409 and "part-00000.parquet" in reply.json()["error"]
