"""Images are labeled, skipped and returned; unknown ids change nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lloss.scores.scores_folder import ScoresFolder

from .conftest import refused


def test_images_are_given_back_and_skipped(bench: Any) -> None:
    mine, best = bench.take(4), bench.ranked()
    assert bench.labels.give_back("p", [mine[0], "unknown", best[50]]).images == 1
    assert [bench.labels.skip("p", [mine[1]]) for _ in range(2)] == [1, 0]
    assert bench.counts == (0, 2, 1)
    assert bench.take(2) == [mine[0], best[4]]
    assert bench.labels.give_back("p", [mine[1]]).images == 1
    assert bench.take(1) == [mine[1]]
    bench.labels.label("p", {mine[2]: "cat"})
    assert bench.labels.skip("p", [mine[2]]) == 0
    assert bench.labels.give_back("p", [mine[2]]).images == 0
    assert bench.stored == {mine[2]: "cat"}


def test_labels_replace_each_other_and_are_removed(bench: Any) -> None:
    best, other = bench.ranked()[:2]
    assert bench.labels.label("p", {best: "cat", "broken.png": ""}).images == 2
    assert bench.labels.label("p", {best: "dog"}).images == 1
    done = bench.labels.label("p", {best: "", other: ""})
    assert (done.images, done.kept) == (2, 1)
    assert bench.stored == {best: "dog", other: "", "broken.png": ""}
    assert bench.images.unlabel("p", [best, best, "none"]) == 1
    assert bench.take(1) == [best]


def test_odd_ids_are_ids(bench: Any) -> None:
    labels = dict.fromkeys(bench.odd, "odd")
    assert bench.labels.label("p", labels).images == len(bench.odd)
    assert bench.stored == labels
    assert set(bench.take(99)).isdisjoint(bench.odd)
    assert bench.labels.label("p", {"not scored": "cat"}).images == 1


@pytest.mark.parametrize(
    "unknown", ["none.png", "x" * 100_000, "000.png\0", "00%.png", "000.TXT", ""]
)
def test_unknown_ids_are_refused_and_none_is_marked(bench: Any, unknown: str) -> None:
    for act in (
        lambda: bench.labels.label("p", {"000.png": "cat", unknown: "cat"}),
        lambda: bench.labels.skip("p", ["000.png", unknown]),
    ):
        message = refused(act, 422)
        assert "not in the pool 'p'; none was marked" in message and len(message) < 400
    for labels in ({"000.png": "\ud800"}, {"000.png": "", "\ud800": ""}):
        message = refused(lambda labels=labels: bench.labels.label("p", labels), 422)
        assert "unpaired surrogate" in message
    assert bench.counts == (0, 0, 0)


def test_handed_out_and_shown_ids_are_not_looked_up(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mine = bench.take(5)
    bench.labels.give_back("p", mine[:2])
    shown = [f"{n:03}.png" for n in range(3)]
    (tmp_path / "list.csv").write_text("id,path\n" + "".join(f"{id},{id}\n" for id in shown))
    bench.pools.get("p").items(shown)
    monkeypatch.setattr(ScoresFolder, "scan", None)
    ids = {*mine, *shown}
    assert bench.labels.label("p", dict.fromkeys(ids, "cat")).images == len(ids)


def test_a_selection_gives_back_only_what_it_still_has(
    bench: Any, wait: Callable[[float], None]
) -> None:
    first = bench.select(3)
    mine = [image.id for image in first.images]
    wait(101)
    second = bench.select(2)
    done = bench.labels.give_back("p", [*mine, "none"], first.id)
    assert (done.images, done.others, done.unknown) == (0, 2, 1), "the third has expired"
    assert bench.counts == (0, 2, 0)
    bench.labels.skip("p", mine[:1])
    done = bench.labels.give_back("p", mine[:2], second.id)
    assert (done.images, done.others, done.unknown) == (1, 0, 0)
    assert bench.counts == (0, 0, 1)
    assert bench.labels.give_back("p", mine[:2]).images == 1
