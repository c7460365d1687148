"""What would be handed out next, without a scan for every look."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lloss.serve.daemon.services import next_images

from lloss.scores.scores_folder import ScoresFolder

from ....waiting import PATIENCE


def shown(bench: Any, k: int, pool: str = "p") -> list[str]:
    images = bench.selections.preview(pool, k)
    assert [image.rank for image in images] == list(range(1, len(images) + 1))
    return [image.id for image in images]


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An item for each scan of a scores folder."""
    scans: list[int] = []
    select = next_images.select
    monkeypatch.setattr(next_images, "select", lambda *args: scans.append(1) or select(*args))  # type: ignore[func-returns-value]
    return scans


@pytest.mark.parametrize("depth", [5000, 30, 5])
def test_it_is_what_select_would_give(
    bench: Any, monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    monkeypatch.setattr(next_images, "_DEPTH", depth)
    draw = random.Random(1)
    for _ in range(8):
        free = bench.ranked(bench.images.taken("p"))
        assert shown(bench, 6) == free[:6]
        draw.choice([bench.labels.label, bench.labels.skip])("p", {free[0]: "cat"})
        bench.select(1)
        bench.labels.give_back("p", draw.sample(bench.ids, 10))
    bench.images.label("p", dict.fromkeys(bench.ids, "cat"))
    assert shown(bench, 6) == []


def test_scores_are_scanned_once(bench: Any, scans: list[int]) -> None:
    for id in bench.ranked()[:5]:
        shown(bench, 3)
        bench.labels.label("p", {id: "cat"})
    assert len(scans) == 1
    bench.write(bench.scores, -np.array(list(bench.loss.values()), np.float32))  # in its place
    assert shown(bench, 1) == bench.ranked()[-1:]


def test_few_scans_when_the_best_are_taken(
    bench: Any, scans: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(next_images, "_DEPTH", 20)
    best = bench.ranked()
    for taken in range(60):
        assert shown(bench, 3) == best[taken : taken + 3]
        bench.labels.label("p", {best[taken]: "cat"})
    assert len(scans) <= 1 + 60 // 17 + 1
    before = len(scans)
    bench.labels.unlabel("p", best[:1])
    assert shown(bench, 1) == best[:1] and len(scans) == before, "one of the best of all"
    bench.labels.unlabel("p", [best[30]])
    assert shown(bench, 3)[:2] == [best[0], best[30]] and len(scans) == before + 1


def test_other_folders_do_not_wait(bench: Any, tmp_path: Path) -> None:
    again = bench.write(tmp_path / "again", np.zeros(len(bench.ids), np.float32))
    bench.catalog.pools.put("q", "/q", again)
    looks: list[Any] = []
    look = threading.Thread(target=lambda: looks.append(shown(bench, 3, "q")), daemon=True)
    with bench.selections._previews.get(ScoresFolder(bench.scores))._lock:
        look.start()
        look.join(PATIENCE)
    assert len(looks) == 1
