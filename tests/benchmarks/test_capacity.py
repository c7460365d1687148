"""The model of capacity, by hand, and a small run of the script."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from click.testing import CliRunner

from lloss.scores.merge import merge_shards


def _run(wall: float, rate: float) -> dict[str, float]:
    return {"wall": wall, "rate": rate, "busy": 1.0, "merge": 0.0, "differing": 0}


SUBJECT: dict[str, Any] = {
    "title": "network", "images": 1000, "part_size": 100, "image_bytes": 2000.0,
    "row_bytes": {"id": 10.0, "loss": 4.0, "embedding": 100.0}, "part_bytes": 20_000.0,
    "runs": {
        "lloss score": [_run(12.0, 100.0), _run(13.0, 100.0), _run(99.0, 100.0)],
        "1 shard of one thread": [_run(20.0, 50.0)],
        "4 shards of one thread": [_run(16.0, 100.0)],
    },
}  # fmt: skip


def test_shards_are_predicted_from_the_local_run(bench: ModuleType) -> None:
    measured = bench.Measured.of(SUBJECT, cores=2)
    # 100 images/s of two cores; 13 s less 1000 / 100.
    assert (measured.core_rate, measured.start) == (50.0, 3.0)
    assert measured.predicted(1) == 3 + 1000 / 50
    assert measured.predicted(2) == 3 + 500 / 50
    # Three of ten parts are the most that one of four shards has; two share a core.
    assert measured.predicted(4) == 2 * (3 + 300 / 50)
    lines = bench.check_table([measured])
    assert lines[2].endswith("| 1 | 23.0 | 20.0 | +15% |")
    assert lines[3].endswith("| 4 | 18.0 | 16.0 | +12% |")


def test_tables_follow_from_the_measured_costs(bench: ModuleType) -> None:
    measured = bench.Measured.of(SUBJECT, cores=2)
    costs = bench.Costs(files=1e-6, table=1e-8, merge_part=0.01, merge_row=1e-7, select_row=3e-8)
    devices = bench.device_table({"core": measured.core_rate})
    # 50 × 86,400 = 4.32 million a day.
    assert devices[2] == "| core | 50 | 4.32 million | 1 | 24 | 2,315 |"
    lines = bench.pool_table([measured], costs, 0.1)
    rows = {line.split(" | ")[0].strip("| "): line for line in lines}
    assert rows["scores of network"].endswith("| 16 MB | 1.6 GB | 160 GB |")
    assert rows["embeddings of network"].endswith("| 100 MB | 10 GB | 1 TB |")
    assert rows["parts of 10,000, each an upload"].endswith("| 100 | 10,000 | 1,000,000 |")
    assert rows["listing files of a disk, each shard"].endswith("| 1 s | 1.67 min | 2.78 h |")
    assert rows["merge"].endswith("| 1.1 s | 1.83 min | 3.06 h |")
    assert "beyond which listing takes each longer than scoring: 10,000 (files" in bench.report(
        [measured], {}, costs, 0.1
    )


def test_made_up_shards_merge(bench: ModuleType, tmp_path: Path) -> None:
    shards = bench.made_up_shards(tmp_path, 2, 3, 5)
    assert merge_shards(shards, tmp_path / "whole") == {"scored": 30, "skipped": 0}


def test_a_small_run_prints_the_tables(bench: ModuleType, tmp_path: Path) -> None:
    figures = {"cpu": "CPU", "cores": 2, "subjects": [SUBJECT]}
    (tmp_path / "s.json").write_text(json.dumps(figures), "utf-8")
    words = [str(tmp_path / "s.json"), "--files", "200", "--parts", "10", "--rows", "100",
             "--repeats", "1", "--out", str(tmp_path / "c.md")]  # fmt: skip
    found = CliRunner().invoke(bench.main, [*words, "--device", "L4 = 380.5"])
    assert found.exit_code == 0, found.output
    text = (tmp_path / "c.md").read_text("utf-8")
    # The published ones: 803,580 images in 263 s, on 8 GPUs.
    assert "| L4 | 380 |" in text and "| Daft 0.6.2 | 263 | 382 | 61 |" in text
    wrong = CliRunner().invoke(bench.main, [*words, "--device", "L4"])
    assert wrong.exit_code == 2 and "give NAME=IMAGES_PER_SECOND" in wrong.output
