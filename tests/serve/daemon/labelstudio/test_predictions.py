"""Predictions of tasks, from their pool's scores or of the images that they carry."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import percentileofscore
from starlette.testclient import TestClient

from lloss import Scorer

from .daemons import Daemon
from .messages import ask, recorded, task

# Images of a pool


def test_the_recorded_request_is_answered_by_the_pool(client: TestClient) -> None:
    reply = client.post("/labelstudio/predict", json=recorded("predict.json"))
    results = reply.json()["results"]
    assert results[5] == []  # of no pool: no prediction, for one without score came first
    losses = [3, 1, 4, 1, 5]
    for loss, result in zip(losses, results):
        rank = percentileofscore(losses, loss, kind="mean") / 100
        assert result["score"] == pytest.approx(1 - rank)
        assert result["model_version"] == "ab" * 6
    best_first = sorted(range(5), key=lambda row: results[row]["score"])
    assert best_first[:3] == [4, 2, 0]
    assert results[1]["result"] == [
        {"from_name": "kind", "to_name": "img", "type": "choices", "value": {"choices": ["dog"]}}
    ]
    assert results[2]["result"] == []  # a class that the project does not offer


def test_a_choice_is_written_as_its_alias(client: TestClient) -> None:
    assert ask(client, task("1.png"))[0]["result"][0]["value"] == {"choices": ["dog"]}


def test_what_is_not_known_gets_no_prediction(client: TestClient) -> None:
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


def test_a_prediction_that_is_there_already_is_not_given_again(client: TestClient) -> None:
    mine, other = {"model_version": "ab" * 6, "score": 0.3}, {"model_version": "v0"}
    assert ask(client, task("0.png", predictions=[other, mine])) == [[]]
    assert ask(client, task("0.png", predictions=[other]))[0]["score"] > 0
    for odd in ("?", 5, {}, {"a": 1}, True, [None, 3]):
        assert ask(client, task("0.png", predictions=odd))[0]["score"] > 0


def test_an_annotator_who_waits_always_gets_an_answer(client: TestClient) -> None:
    context = {"params": {"context": {"result": []}}}
    assert ask(client, task(), **context) == [{"result": [], "model_version": ""}]
    shown = task("0.png", predictions=[{"model_version": "ab" * 6}])
    assert ask(client, shown, **context)[0]["score"] > 0


# Images in the task


def uri(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def test_images_in_tasks_are_scored_live(
    client: TestClient, daemon: Daemon, artifact: Path, encoded: Any
) -> None:
    daemon.models.scorer = scorer = Scorer(artifact, device="cpu", batch_size=16)
    random = np.random.default_rng(3)
    pictures = random.integers(0, 256, (70, 8, 8, 3), np.uint8)
    names = "".join(f'<Choice value="{name}"/>' for name in scorer.manifest.classes)
    config = (
        '<View><Image name="i" value="$photo"/>'
        f'<Choices name="c" toName="i">{names}</Choices></View>'
    )
    tasks = [{"data": {"photo": uri(encoded(picture))}} for picture in pictures]
    broken = {"data": {"photo": uri(b"no image")}}
    results = ask(client, *tasks, broken, config=config)
    assert daemon.models.asked == [64, 7]
    assert results[-1] == []
    expected = scorer.score(pictures)
    order = np.argsort([one["score"] for one in results[:-1]], kind="stable")
    np.testing.assert_array_equal(order, np.argsort(-expected.loss, kind="stable"))
    assert all(0 < one["score"] < 1 for one in results[:-1])
    guesses = [one["result"][0]["value"]["choices"][0] for one in results[:-1]]
    classes = scorer.manifest.classes
    assert guesses == [classes[int(one)] for one in expected.columns["prediction"]]


@pytest.mark.parametrize(
    "image",
    ["http://127.0.0.1/x.png", "/data/upload/x.png", "file:///etc/passwd", "data:text/html,x",
     "data:image/png,raw", "data:image/png;base64,", "data:image/png;base64,§", "data:image/", 3],
)  # fmt: skip
def test_nothing_is_fetched_and_no_other_uri_is_read(client: TestClient, image: Any) -> None:
    assert ask(client, {"data": {"image": image}}) == [[]]  # the scorer, None, would be missed
