"""Rates, digests of scores, and how figures are written."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from lloss.scores.folder import RUN, ScoresFolder, scores_table
from lloss.serve.daemon.services import score_summary as digests
from lloss.serve.daemon.services.score_summary import Digest, Digests, Guess
from lloss.serve.daemon.ui.image_details import Batch
from lloss.serve.daemon.ui.request_rate import Rate
from lloss.serve.daemon.ui.templates import duration, quoted, rate

from lloss.errors import ScoresError
from lloss.statistics.charts import Spread, histogram

from ..scores import write_scores


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    counter = Rate(clock)
    assert counter.seen(0) is None
    clock.now += 0.1
    assert counter.seen(10) is None, "too soon"
    for second in range(1, 40):
        clock.now = 100.0 + second
        found = counter.seen(50 * second if second < 20 else 1000 + 8 * (second - 20))
    assert found == pytest.approx(8), "what was long ago does not count"


def test_a_rate_begins_anew_where_a_counter_went_back_or_nobody_looked() -> None:
    clock = Clock()
    counter = Rate(clock)
    counter.seen(500)
    clock.now += 2
    assert counter.seen(100) is None
    clock.now += 2
    assert counter.seen(120) == 10
    clock.now += 3600
    assert counter.seen(10**9) is None


@pytest.fixture
def folder(tmp_path: Path) -> ScoresFolder:
    """9,000 rows in three parts, the loss a permutation of 0 to 8,999."""
    losses = np.random.default_rng(0).permutation(9000).astype(np.float32)
    columns = {"loss": losses, "prediction": losses % 10, "confidence": losses / 9000}
    ids = [f"id {int(loss)}" for loss in losses]
    return write_scores(tmp_path / "scores", ids, columns, part=3000)


def test_a_digest_knows_the_best_and_finds_the_others(
    folder: ScoresFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = Digest.of(folder)
    assert len(digest._guesses) == digests.BEST
    assert digest.spread is not None and digest.spread.size == 9000
    found = digest.guesses(["id 8999", "id 17", "none"])
    assert found["id 8999"] == Guess(9, pytest.approx(8999 / 9000))
    assert found["id 17"].prediction == 7 and found["none"] == Guess()
    monkeypatch.setattr(ScoresFolder, "scan", None)  # from now on nothing is read
    assert digest.guesses(["id 17", "none", "id 8000"])["id 8000"].prediction == 0


def test_guesses_that_are_looked_at_are_kept(
    folder: ScoresFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "BEST", 10)
    monkeypatch.setattr(digests, "_OTHERS", 5)
    digest = Digest.of(folder)
    for number in range(20):
        digest.guesses(["id 8999", f"id {number}"])
    assert len(digest._guesses) == 15 and "id 0" not in digest._guesses
    monkeypatch.setattr(ScoresFolder, "scan", None)
    assert digest.guesses(["id 8999", "id 19"])["id 8999"].prediction == 9


def test_digests_are_made_once(folder: ScoresFolder) -> None:
    kept = Digests()
    first = kept.of(folder)
    assert kept.of(ScoresFolder(folder.path)) is first
    os.utime(folder.path / RUN, ns=(1, 1))
    assert kept.of(folder) is not first, "it was scored anew"


def test_scores_without_guesses_or_numbers_have_a_digest_too(tmp_path: Path) -> None:
    folder = ScoresFolder(tmp_path)
    losses = np.array([math.nan, math.inf], np.float32)
    folder.write_part(0, scores_table(["a", "b"], {"loss": losses}), [])
    digest = Digest.of(folder)
    assert digest.spread is None and digest.guesses(["a"]) == {"a": Guess()}
    (tmp_path / "part-00000.parquet").write_bytes(b"broken")
    with pytest.raises(ScoresError):
        Digest.of(folder)


def test_a_spread_draws_what_its_values_draw() -> None:
    losses = np.random.default_rng(3).gamma(2, 1, 5000).astype(np.float32)
    losses[:7] = math.nan
    assert histogram(Spread.of(losses) or losses, [4.0, 5.0]) == histogram(losses, [4.0, 5.0])
    assert Spread.of(losses[:7]) is None


@pytest.mark.parametrize(("seconds", "told"), [
    (-3, "0 s"), (0.4, "0 s"), (89, "89 s"), (100, "2 min"), (3600, "60 min"), (5430, "1 h 30 min"),
    (86400, "24 h"), (200_000, "2 d"),
])  # fmt: skip
def test_durations_are_told_at_a_glance(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_rates_are_told_at_a_glance() -> None:
    assert [rate(v) for v in (None, 0.0, 0.31, 9.96, 1234.5)] == ["–", "0", "0.3", "10.0", "1,234"]


def test_ids_in_forms_are_ascii_without_line_ends() -> None:
    for id in ("a\r\nb\n", "\udc80", "é+& %2f", "\0"):
        assert quoted(id).isascii() and quoted(id).isprintable()


def test_a_batch_is_known_by_its_name() -> None:
    assert Batch.parse(str(Batch(24, "a.key"))) == Batch(24, "a.key")
    for broken in ("", "24", "24.", "x.y", "-1.y", "99999.y", "²4.y", f"1.{'y' * 101}"):
        assert Batch.parse(broken) is None
