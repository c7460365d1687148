"""Who has which image: none twice, the same for the same key, until it expires."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from lloss.serve.daemon.services import hand_out
from lloss.serve.daemon.services.hand_out import HandedOut
from lloss.serve.daemon.store.records import PoolScores

from lloss.errors import SelectionError
from lloss.selection import SelectionSettings

from ..scores import write_scores
from .conftest import refused

T = TypeVar("T")


async def select(bench: Any, k: int, key: str = "", **settings: Any) -> HandedOut:
    """As the HTTP routes do."""
    handed: HandedOut = await bench.selections.select(
        "p", SelectionSettings(k=k, **settings), key=key
    )
    return handed


async def at_once(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    return list(await asyncio.gather(*calls))


def during_a_selection(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Call ``act`` once, between a selection and its hand-out."""
    choose, acts = hand_out.select, [act]

    def interrupted(*args: Any) -> Any:
        chosen = choose(*args)
        while acts:
            acts.pop()()
        return chosen

    monkeypatch.setattr(hand_out, "select", interrupted)


def test_the_best_are_handed_out_and_then_the_next_best(bench: Any) -> None:
    first, second = bench.select(10), bench.select(10)
    chosen = [image.id for image in first.images + second.images]
    assert chosen == bench.ranked()[:20]
    assert [image.rank for image in second.images] == list(range(1, 11))
    assert [image.score for image in first.images] == [bench.loss[id] for id in chosen[:10]]
    assert (first.eligible, second.eligible) == (len(bench.ids) - 1, len(bench.ids) - 11)
    assert first.model_sha256 == "ab" * 32 and first.id != second.id
    assert bench.counts == (0, 20, 0)
    pending = bench.images.pending("p", 9)
    assert [image.id for image in pending] == chosen[:9]
    assert pending[0].selection == first.id and pending[0].expires == first.expires
    assert (pending[0].rank, pending[0].score) == (1, bench.loss[chosen[0]])


def test_settings_and_exclusions_are_respected(bench: Any) -> None:
    worst = bench.take(3, by="other", order="highest", exclude=bench.ranked()[-1:])
    assert worst == bench.ranked()[::-1][1:4]
    assert bench.take(5, strategy="random", seed=3) != bench.ranked()[:5]
    assert len(bench.take(1000, at_most=True)) == len(bench.ids) - 1 - 8
    assert "no images are left" in refused(lambda: bench.select(1), 409)


def _add(bench: Any, name: str, ids: list[str], columns: dict[str, Any]) -> None:
    """Add a pool of these scores."""
    scores = write_scores(bench.scores.parent / name, ids, columns)
    row = bench.catalog.pools.row("p")
    bench.catalog.pools.put(name, row.uri, PoolScores(scores.path, "ab" * 32, len(ids), 0))


def test_what_is_taken_is_covered_already(bench: Any) -> None:
    vectors = np.repeat(np.eye(8, dtype=np.float32), 2, 0)  # each image twice
    ids = [f"{n:02}.png" for n in range(16)]
    columns = {"loss": np.ones(16, np.float32), "embedding": vectors, "other": vectors[::-1]}
    _add(bench, "twins", ids, columns)
    settings = SelectionSettings(k=4, strategy="coverage", by="")
    first, second = (bench.selections.hand_out("twins", settings) for _ in range(2))
    kinds = [int(image.id[:2]) // 2 for image in (*first.images, *second.images)]
    assert sorted(kinds) == list(range(8))
    assert (first.labeled, second.labeled) == (0, 4)
    assert first.images[0].reason == "adds 13 % coverage"


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"k": 0}, 422),
        ({"k": 1, "strategy": "best"}, 422),
        ({"k": 1, "by": "id"}, 422),
        ({"k": 1, "by": "none"}, 409),
        ({"k": 1, "strategy": "diverse"}, 409),
        ({"k": 1, "subset": -1}, 422),
        ({"k": 1, "exclude": ["\ud800"]}, 422),
        ({"k": 1, "key": "\ud800"}, 422),
        ({"k": 500}, 409),
    ],
)
def test_an_invalid_request_takes_nothing(bench: Any, given: dict[str, Any], status: int) -> None:
    refused(lambda: bench.select(**given), status)
    assert bench.counts == (0, 0, 0)


def test_near_duplicates_are_passed_over_and_groups_balanced(bench: Any) -> None:
    ids = [f"{n:02}.png" for n in range(16)]
    columns = {
        "loss": np.arange(16, 0, -1, np.float32),
        "embedding": np.repeat(np.eye(4, dtype=np.float32), 4, 0),
        "prediction": np.repeat(np.float32([0, 1]), [12, 4]),
    }
    _add(bench, "copies", ids, columns)
    settings = SelectionSettings(k=2, strategy="top", min_distance=0.5, balance="predicted")
    first = bench.selections.hand_out("copies", settings)
    assert [image.id for image in first.images] == ["00.png", "12.png"]
    assert "balanced by predicted: 1 of 12 in '0'; 1 of 4 in '1'" in first.notes
    fewer = SelectionSettings(k=4, strategy="top", min_distance=0.5, at_most=True)
    second = bench.selections.hand_out("copies", fewer)  # what is pending counts as labeled
    assert [image.id for image in second.images] == ["04.png", "08.png"]
    assert any(note.startswith("12 near-duplicates passed over") for note in second.notes)
    message = refused(lambda: bench.selections.hand_out("copies", replace(fewer, k=10_001)), 422)
    assert "min_distance hands out at most 10,000" in message


def test_large_diverse_selections_are_refused_at_once(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.pools, "reading", None)
    message = refused(lambda: bench.select(10_001, strategy="diverse"), 422)
    assert "at most 10,000" in message and "strategy top" in message


def test_missing_pools_and_scores_are_reported(bench: Any) -> None:
    refused(lambda: bench.selections.hand_out("none", SelectionSettings(k=1)), 404)
    refused(lambda: bench.selections.preview("none", 1), 404)
    refused(lambda: bench.labels.label("\ud800", {"a": "b"}), 422)
    bench.catalog.pools.put("bare", "/bare")
    message = refused(lambda: bench.selections.hand_out("bare", SelectionSettings(k=1)), 409)
    assert "POST /v1/pools/bare/score" in message


def test_concurrent_labelers_never_get_the_same_image(bench: Any) -> None:
    got: list[str] = []

    async def labeler(seed: int) -> None:
        draw = random.Random(seed)
        while True:
            try:
                handed = await select(bench, draw.randint(1, 7), at_most=True)
            except SelectionError:
                return
            mine = [image.id for image in handed.images]
            got.extend(mine)
            await asyncio.to_thread(bench.labels.label, "p", dict.fromkeys(mine[::2], "cat"))

    asyncio.run(at_once(labeler(seed) for seed in range(6)))
    assert sorted(got) == sorted(set(bench.ids) - {"007.png"})


def test_an_image_that_is_labeled_during_a_selection_is_not_handed_out(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = bench.ranked()[0]
    during_a_selection(monkeypatch, lambda: bench.labels.label("p", {best: "cat"}))
    assert bench.take(3) == bench.ranked()[1:4]
    assert bench.stored == {best: "cat"}


def test_the_same_key_gives_the_same_images(bench: Any) -> None:
    first = bench.select(5, "key 1")
    again = bench.select(5, "key 1")
    assert (again.id, again.expires, list(again.images)) == (
        first.id, first.expires, list(first.images),
    )  # fmt: skip
    assert again.replayed and not first.replayed
    bench.labels.label("p", {image.id: "cat" for image in first.images})
    bench.restart()
    assert bench.select(5, "key 1").id == first.id
    assert bench.take(5, key="key 2") == bench.ranked()[5:10]


def test_a_key_is_of_one_request_and_one_pool(bench: Any) -> None:
    bench.select(5, "key", ["a", "b"])
    assert bench.select(5, "key", ["b", "a", "a"]).replayed
    assert bench.select(5, "key", ["a", "b"], subset=0.0).replayed
    for other in ({"k": 6, "exclude": ["a", "b"]}, {"k": 5}, {"k": 5, "seed": 1}):
        assert "another request" in refused(
            lambda given=other: bench.select(key="key", **given), 422
        )
    bench.catalog.pools.put("q", "/q", bench.write(bench.scores, np.ones(108, np.float32)))
    assert not bench.selections.hand_out("q", SelectionSettings(k=1), key="key").replayed


def test_concurrent_retries_get_one_selection(bench: Any) -> None:
    got = asyncio.run(at_once(select(bench, 5, "key") for _ in range(8)))
    assert len({handed.id for handed in got}) == 1
    assert sum(not handed.replayed for handed in got) == 1
    assert bench.counts == (0, 5, 0)


def test_images_expire_before_their_key(bench: Any, wait: Callable[[float], None]) -> None:
    first = bench.select(5, "key")
    wait(99)
    assert bench.counts == (0, 5, 0)
    wait(2)
    assert bench.counts == (0, 0, 0)
    assert bench.take(5) == [image.id for image in first.images]
    assert bench.select(5, "key").id == first.id
    wait(8 * 86400)
    bench.select(1)  # deletes old replies
    assert not bench.select(6, "key").replayed


def test_images_of_a_clock_in_the_future_expire_in_time(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 4_080_000_000.0)
        bench.take(2)
    before = time.time()
    bench.restart()
    pending = bench.images.pending("p", 9)
    assert len(pending) == 2
    assert all(before + 100 <= image.expires <= time.time() + 100 for image in pending)


def test_a_selection_that_cannot_be_written_hands_nothing_out(bench: Any) -> None:
    full = "CREATE TRIGGER full BEFORE INSERT ON answers BEGIN SELECT RAISE(ROLLBACK, 'full'); END"
    with bench.catalog.writing() as db:
        db.execute(full)
    with pytest.raises(sqlite3.IntegrityError):
        bench.select(5, "key")
    assert bench.counts == (0, 0, 0)
    with bench.catalog.writing() as db:
        db.execute("DROP TRIGGER full")
    assert bench.take(5, key="key") == bench.ranked()[:5]


def test_notes_say_what_was_left_out_and_what_ties(bench: Any) -> None:
    broken, highest = bench.select(3).notes
    assert broken == "1 without a finite score" and "no embeddings to compare" in highest
    assert bench.select(3, strategy="top").notes == [broken]
    losses = np.full(len(bench.ids), 2, np.float32)
    losses[0] = np.inf
    bench.write(bench.scores, losses)
    infinite, tied = bench.select(3, "key", strategy="top").notes
    assert infinite == "1 without a finite score"
    assert tied.startswith("all 3 selected images have the same loss")
    assert bench.select(3, "key", strategy="top").notes == [infinite, tied]


def test_images_are_counted_once(bench: Any) -> None:
    def counted() -> tuple[float | None, ...]:
        value = bench.metrics.registry.get_sample_value
        return value("lloss_selected_images_total"), value("lloss_labeled_images_total")

    for _ in range(2):
        chosen = bench.take(5, key="key")
    refused(lambda: bench.select(500), 409)
    assert counted() == (5, 0)
    bench.labels.label("p", {chosen[0]: "cat", chosen[1]: ""})
    refused(lambda: bench.labels.label("p", {"unknown": "cat"}), 422)
    assert counted() == (5, 2)


def test_scoring_again_keeps_labels_and_pending_images(bench: Any, tmp_path: Path) -> None:
    mine = bench.take(4)
    bench.labels.label("p", {mine[0]: "cat"})
    bench.labels.skip("p", [mine[1]])
    again = bench.write(tmp_path / "again", -np.array(list(bench.loss.values()), np.float32))
    bench.catalog.pools.put("p", bench.catalog.pools.row("p").uri, again)
    assert bench.counts == (1, 2, 1)
    rest = bench.take(200, at_most=True)
    assert set(rest).isdisjoint(mine) and rest[0] == bench.ranked()[-1]


def test_images_are_compared_unless_the_request_says_how_to_choose(bench: Any) -> None:
    ids = [f"{n}.png" for n in range(20)]
    random = np.random.default_rng(0)
    vectors = random.normal(size=(20, 4)).astype(np.float32)
    _add(bench, "apart", ids, {"loss": random.random(20, np.float32), "embedding": vectors})
    handed = bench.selections.hand_out("apart", SelectionSettings(k=3))
    assert all("coverage" in image.reason for image in handed.images)
    bench.labels.give_back("apart", [image.id for image in handed.images])
    same = bench.selections.hand_out("apart", SelectionSettings(k=3, strategy="herding"))
    assert same.images == handed.images
