"""Rates, ratios and checks of the benchmark of actors and shards, and a small run of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from lloss.scores.part_file import write_part
from lloss.scores.scores_folder import scores_table

from ..pools.pool_files import random_images


def test_the_rate_is_of_the_time_in_which_all_workers_score(bench: ModuleType) -> None:
    early = [(3.0, 10), (5.0, 10), (7.0, 10), (9.0, 10)]
    late = [(6.0, 10), (4.0, 10), (8.0, 10)]  # in any order; idle after its third
    # From 4 to 8: half a part, one and half a part of the one; two of the other.
    assert bench.part_rate([early, late]) == (5 + 10 + 5 + 20) / 4
    assert bench.part_rate([early]) == 30 / 6
    assert math.isnan(bench.part_rate([early, [(4.0, 10)]]))


def subject(bench: ModuleType, **runs: list[Any]) -> Any:
    names = {"local": "lloss score", "ray": "lloss score --on ray",
             "one": "1 shard of one thread", "four": "4 shards of one thread"}  # fmt: skip
    named = {names[name]: each for name, each in runs.items()}
    return bench.Subject("network", 1000, 100, 5000.0, {"loss": 4.0}, 2000.0, named)


def test_ratios_are_of_rounds_and_fixed_costs_are_apart(bench: ModuleType) -> None:
    from scale_out_report import table, verdicts  # type: ignore[import-not-found]

    run = bench.Run
    made = subject(
        bench,
        local=[run(12.0, 100.0, 20.0), run(22.0, 50.0, 20.0), run(12.0, 100.0, 20.0)],
        ray=[run(20.0, 95.0, 25.0), run(28.0, 47.5, 25.0), run(30.0, 50.0, 25.0)],
        one=[run(22.0, 50.0, 20.0)],
        four=[run(14.0, 95.0, 20.0, merge=1.5)],
    )
    lines = table(made)
    # Of rounds: walls 12/20, 22/28, 12/30; rates .95, .95, .5; fixed seconds 9.5, 6.9, 10.
    cells = [cell.strip() for cell in lines[5].split("|")]
    assert cells[2:9] == ["28.0", "36", "0.60", "50", "0.95", "9.5", "25.00"]
    text = "\n".join(verdicts(made, 2))
    assert "0.95 of the local rate while scoring (target 0.9: reached)" in text
    assert "4 shards: 1.90 of 1 (at most 2: " in text and "merge 1.5 s" in text


def test_too_few_images_decide_nothing(bench: ModuleType) -> None:
    from scale_out_report import table, verdicts

    made = subject(
        bench,
        local=[bench.Run(1.0, 100.0, 2.0)] * 3,
        ray=[bench.Run(1.0, 100.0, 2.0), bench.Run(1.0, math.nan, 2.0), bench.Run(1.0, 90.0, 2.0)],
    )
    assert "| nan | nan | nan |" in table(made)[5]
    lines = verdicts(made, 2)
    assert lines[0] == "nan: too few images for a verdict."
    assert "(target 0.9: too few images for a verdict); and so by wall clock" in lines[2]


def test_other_bytes_are_refused_by_name(bench: ModuleType, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_bytes(b"same")
    bench.check_same(tmp_path / "a", tmp_path / "b")
    (tmp_path / "a/part").write_bytes(b"other")
    (tmp_path / "b/more").touch()
    with pytest.raises(click.ClickException, match=r"local run: more, part$"):
        bench.check_same(tmp_path / "a", tmp_path / "b")


def test_rows_are_compared_by_id_to_the_last_bit(bench: ModuleType, tmp_path: Path) -> None:
    loss = np.array([0.5, 1.0, 2.0], np.float32)
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    for name in ("local", "other"):
        (tmp_path / name).mkdir()
    columns = {"loss": loss, "embedding": vectors}
    write_part(scores_table(["a", "b", "c/d"], columns), tmp_path / "local/part-00000.parquet")

    def found(order: list[int], names: list[str], off: float = 0.0) -> int:
        paths = [f"{tmp_path}/pool/{name}" for name in names]
        changed = loss.copy()
        changed[1] += np.float32(off)
        table = {"path": paths, "loss": changed[order], "embedding": vectors[order].tolist()}
        pq.write_table(
            pa.table(table, schema=pa.schema([("path", pa.string()), ("loss", pa.float32()),
                                              ("embedding", pa.list_(pa.float32()))])),
            tmp_path / "other/0.parquet",
        )  # fmt: skip
        rows: int = bench.differing_rows(tmp_path / "other", tmp_path / "local", tmp_path / "pool")
        return rows

    assert found([2, 0, 1], ["c/d", "a", "b"]) == 0
    assert found([2, 0, 1], ["c/d", "a", "b"], off=1e-6) == 1
    with pytest.raises(click.ClickException, match="other values of loss"):
        found([2, 0, 1], ["c/d", "a", "b"], off=0.1)
    with pytest.raises(click.ClickException, match="other images"):
        found([2, 0, 1], ["c/d", "a", "x"])


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    for number, image in enumerate(random_images(600, 8, 8, 3)):
        path = tmp_path / f"pool/{number % 3}/{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "pool"


def run(bench: ModuleType, onnx_file: Path, pool: Path, out: Path, *more: str) -> str:
    words = ["--model", str(onnx_file), "--pool", str(pool), "--images", "480", "--repeats", "1"]
    more = (*more, "--out", str(out / "table.md"), "--json", str(out / "figures.json"))
    found = CliRunner().invoke(bench.main, [*words, *more], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return (out / "table.md").read_text("utf-8")


def test_a_small_run_compares_shards(
    bench: ModuleType, onnx_file: Path, pool: Path, tmp_path: Path
) -> None:
    text = run(bench, onnx_file, pool, tmp_path, "--only", "2 shards of one thread")
    assert "480 files" in text and "parts of 30" in text
    assert "| 2 shards of one thread |" in text and "--on ray" not in text
    (only,) = json.loads((tmp_path / "figures.json").read_text("utf-8"))["subjects"]
    assert list(only["runs"]) == ["lloss score", "2 shards of one thread"]
    assert all(each[0]["wall"] > 0 and not each[0]["differing"] for each in only["runs"].values())
    assert only["row_bytes"]["loss"] >= 4 and only["row_bytes"]["embedding"] > 0
    assert only["part_bytes"] > 100
    unknown = CliRunner().invoke(bench.main, ["--only", "spark"])
    assert unknown.exit_code == 2 and "spark" in unknown.output


@pytest.mark.distributed
def test_a_small_run_on_ray(bench: ModuleType, onnx_file: Path, pool: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: make test-distributed installs it")
    text = run(bench, onnx_file, pool, tmp_path)
    for name in bench.contestants():
        assert f"| {name} |" in text
    assert "of ours on Ray while scoring" in text and "of decoding in the actors" in text
