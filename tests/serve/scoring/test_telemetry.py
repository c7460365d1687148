"""What is counted, against counts by hand."""

from __future__ import annotations

import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from lloss.serve.scoring.telemetry import STAGES, Telemetry
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from lloss import Scorer
from lloss.errors import ImageError
from lloss.pools import Item, Pool


def samples(telemetry: Telemetry) -> dict[tuple[str, ...], float]:
    """Samples as a scraper reads them, by name and values of the labels (by the labels' names)."""
    text = generate_latest(telemetry.registry).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_images_are_counted_by_what_became_of_them() -> None:
    telemetry = Telemetry()
    telemetry.ran(np.zeros(5, np.float32), 0)
    telemetry.ran(np.zeros(3, np.float32), 2)
    telemetry.ran(np.zeros(0, np.float32), 4)
    found = samples(telemetry)
    assert found["lloss_images_total", "scored"] == 8
    assert found["lloss_images_total", "skipped"] == 6
    assert telemetry.images == 14
    assert (found["lloss_batch_size_count",], found["lloss_batch_size_sum",]) == (2, 8)
    assert found["lloss_batch_size_bucket", "4.0"] == 1


def test_predicted_losses_fall_into_buckets_as_counted_by_hand() -> None:
    telemetry = Telemetry()
    losses = np.random.default_rng(0).normal(0, 5, 1000).astype(np.float32)
    losses[:4] = [0.5, 16, 1e9, -8]  # on the edges, and beyond
    telemetry.ran(losses, 0)
    telemetry.ran(np.array([np.nan, np.inf, 1.0], np.float32), 0)
    found = samples(telemetry)
    finite = np.append(losses, 1.0)
    buckets = {key[1]: value for key, value in found.items()
               if key[0] == "lloss_predicted_loss_bucket"}  # fmt: skip
    assert buckets.pop("+Inf") == 1001
    assert len(buckets) == 17
    for edge, count in buckets.items():
        assert count == (finite <= float(edge)).sum(), edge


def test_seconds_are_those_that_passed() -> None:
    telemetry = Telemetry()
    with telemetry.timed("decode"):
        time.sleep(0.02)
    with pytest.raises(ValueError), telemetry.timed("write"):
        raise ValueError
    telemetry.spent("read", 0.004)
    telemetry.spent("read", 0.04)
    found, spent = samples(telemetry), telemetry.spent_so_far()
    assert 0.02 <= spent["decode"] < 0.5
    assert found["lloss_decode_duration_seconds_sum",] == pytest.approx(spent["decode"])
    assert found["lloss_write_duration_seconds_count",] == 1
    assert found["lloss_read_duration_seconds_count",] == 2
    assert found["lloss_read_duration_seconds_bucket", "0.005"] == 1
    assert spent["read"] == pytest.approx(0.044) and set(spent) == {*STAGES, "queue"}


def test_what_runs_is_named() -> None:
    telemetry = Telemetry()
    telemetry.model("ab12", "cuda:1", "fp16")
    telemetry.queued(7)
    found = samples(telemetry)
    assert found["lloss_model_info", "cuda:1", "fp16", "cuda", "ab12"] == 1
    assert found["lloss_queue_size",] == 7


def test_threads_lose_no_count() -> None:
    telemetry = Telemetry()

    def work(_: int) -> None:
        for _ in range(200):
            telemetry.ran(np.ones(3, np.float32), 1)
            telemetry.spent("infer", 1.0)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    found = samples(telemetry)
    assert found["lloss_images_total", "scored"] == 2400 and telemetry.images == 3200
    assert found["lloss_predicted_loss_bucket", "+Inf"] == 2400
    assert telemetry.spent_so_far()["infer"] == 800


class Some(Pool):
    """50 images, two of them broken."""

    uri, unique = "some", True

    def __init__(self, remote: bool) -> None:
        self.remote = remote
        self.images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), np.uint8)

    def __iter__(self):  # type: ignore[no-untyped-def]
        return (Item(str(n), lambda n=n: self._read(n)) for n in range(50))

    def _read(self, number: int) -> np.ndarray:
        if number in (3, 30):
            raise ImageError("broken")
        return self.images[number]


@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
def test_every_batch_is_counted_once_in_every_stage(artifact: Path, remote: bool) -> None:
    with Scorer(artifact, "cpu", batch_size=8, threads=2) as scorer:
        losses = np.concatenate([batch.loss for batch in scorer.stream(Some(remote))])
        scorer.score(np.zeros((0, 8, 8, 3), np.uint8))
        found = samples(scorer.telemetry)
    assert found["lloss_images_total", "scored"] == 48 == len(losses)
    assert found["lloss_images_total", "skipped"] == 2
    for stage in ("read", "decode", "infer", "queue"):
        assert found[f"lloss_{stage}_duration_seconds_count",] == 7, stage
    assert found["lloss_batch_size_count",] == 7
    assert found["lloss_predicted_loss_bucket", "0.0"] == (losses <= 0).sum()
    assert found["lloss_model_info", "cpu", "fp32", "cpu", scorer.engine.sha256] == 1
    assert found["lloss_queue_size",] == 0


def test_one_model_is_named_at_a_time() -> None:
    telemetry = Telemetry()
    for sha256 in ("aa", "bb", "bb", "aa"):
        telemetry.model(sha256, "cpu", "fp32")
        named = [key for key in samples(telemetry) if key[0] == "lloss_model_info"]
        assert len(named) == 1 and sha256 in named[0]


def test_scorers_may_share_one(artifact: Path) -> None:
    telemetry = Telemetry()
    telemetry.model("of who shares it", "cpu", "fp32")
    images = np.zeros((2, 8, 8, 3), np.uint8)
    for _ in range(2):
        with Scorer(artifact, "cpu", telemetry=telemetry) as scorer:
            scorer.score(images)
            assert scorer.telemetry is telemetry
            again = pickle.loads(pickle.dumps(scorer))
            assert again.telemetry is not telemetry
            again.close()
    found = samples(telemetry)
    assert found["lloss_images_total", "scored"] == 4
    (named,) = [key for key in found if key[0] == "lloss_model_info"]
    assert "of who shares it" in named
