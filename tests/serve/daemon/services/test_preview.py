"""What would be handed out next, looked at again and again."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lloss.serve.daemon.services import preview
from lloss.serve.daemon.services.selections import SelectionRequest

from lloss.scores.scores_folder import ScoresFolder
from lloss.selection import SelectionSettings

from ....waiting import PATIENCE


def test_the_preview_is_what_select_would_give(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(1)
    for most in (5000, 30, 5):  # kept of the best; the others are found by a scan
        monkeypatch.setattr(preview, "_DEPTH", most)
        bench.restart()
        for _ in range(8):
            shown = bench.selections.preview("p", 6)
            taken = bench.catalog.images.taken("p")
            assert [one.id for one in shown] == bench.ranked(taken)[:6]
            assert [one.rank for one in shown] == list(range(1, len(shown) + 1))
            free = bench.ranked(taken)[:5]
            act = draw.choice([bench.selections.label, bench.selections.skip])
            act("p", dict.fromkeys(free[:1], "cat"))  # type: ignore[operator]
            bench.selections.select("p", SelectionRequest(SelectionSettings(k=1)))
            bench.selections.give_back("p", draw.sample(bench.ids, 10))
    bench.selections.label("p", dict.fromkeys(bench.ids, "cat"))
    assert bench.selections.preview("p", 6) == []


def test_the_preview_reads_no_scores_twice(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = 0
    choose = preview.select

    def counted(*given: Any) -> Any:
        nonlocal scans
        scans += 1
        return choose(*given)

    monkeypatch.setattr(preview, "select", counted)
    for id in bench.ranked()[:5]:
        bench.selections.preview("p", 3)
        bench.selections.label("p", {id: "cat"})
    assert scans == 1
    bench.write(bench.scores, -np.array(list(bench.loss.values()), np.float32))  # in its place
    assert bench.selections.preview("p", 1)[0].id == bench.ranked()[-1]


def test_the_preview_scans_no_more_when_the_best_are_taken(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans, choose = 0, preview.select

    def counted(*given: Any) -> Any:
        nonlocal scans
        scans += 1
        return choose(*given)

    monkeypatch.setattr(preview, "select", counted)
    monkeypatch.setattr(preview, "_DEPTH", 20)
    for taken in range(60):
        free = bench.ranked()[taken:]
        assert [one.id for one in bench.selections.preview("p", 3)] == free[:3]
        bench.selections.label("p", {free[0]: "cat"})
    assert scans <= 1 + 60 // 17 + 1
    before = scans
    bench.selections.unlabel("p", [bench.ranked()[0]])
    assert bench.selections.preview("p", 1)[0].id == bench.ranked()[0]
    assert scans == before, "it is one of the best of all"
    bench.selections.unlabel("p", [bench.ranked()[30]])
    assert [one.id for one in bench.selections.preview("p", 3)][:2] == [
        bench.ranked()[0], bench.ranked()[30],
    ]  # fmt: skip
    assert scans == before + 1


def test_who_looks_at_one_folder_does_not_wait_for_another(bench: Any, tmp_path: Path) -> None:
    previews = bench.selections._previews
    bench.write(tmp_path / "again", np.zeros(len(bench.ids), np.float32))
    bench.catalog.pools.put("q", "/q", bench.made)
    shown: list[Any] = []
    look = threading.Thread(
        target=lambda: shown.append(bench.selections.preview("q", 3)), daemon=True
    )
    with previews.get(ScoresFolder(bench.scores))._lock:
        look.start()
        look.join(PATIENCE)
    assert len(shown) == 1
