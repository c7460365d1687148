"""Cycles of ``lloss next`` on fully labeled data, with an oracle for a labeler.

    python benchmarks/cycles.py detection DEVKIT:trainval --images DEVKIT/VOC2007/JPEGImages \\
        --test DEVKIT:test --out FOLDER --initial 80 -k 40 --cycles 2 -- --epochs 40
    python benchmarks/cycles.py pose annot/train.json --test annot/valid.json --out FOLDER \\
        --initial 150 -k 50 --cycles 2 -- --model hourglass1-narrow

The first labels are drawn at random; after each cycle the selected images get their true labels.
What stands behind ``--`` goes to ``lloss init``. A line a cycle: the task's metric, and how the
head ranks held-out images, with entropy beside it.
"""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Any

import click
from pretrained import run_lloss

from lloss.annotations import Problems
from lloss.data.class_labels import DATA_ROOT
from lloss.files import write_text
from lloss.selection.hashing import draw_ids
from lloss.tasks import TASKS, get_task
from lloss.text.csv_table import csv_text

PATH = click.Path(path_type=Path)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("task", type=click.Choice(list(TASKS)))
@click.argument("data")
@click.option("--labels", type=PATH, help="Of DATA, where DATA is a pool.")
@click.option("--images", type=PATH, help="Folder of the images, if DATA is not a pool by itself.")
@click.option("--test", required=True, help="Labeled images to measure on.")
@click.option("--out", type=PATH, required=True, help="A new folder.")
@click.option("--initial", type=int, required=True)
@click.option("-k", "k", type=int, required=True)
@click.option("--cycles", type=int, default=2, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the first labels.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def main(
    task: str,
    data: str,
    labels: Path | None,
    images: Path | None,
    test: str,
    out: Path,
    initial: int,
    k: int,
    cycles: int,
    seed: int,
    options: tuple[str, ...],
) -> None:
    """Run the cycles."""
    out.mkdir(parents=True)
    kind = get_task(task)
    known = kind.open(data, labels, DATA_ROOT, Problems())
    truth = {item.id: label for item, label in zip(known.items, known.labels)}
    pool, file = data, out / kind.labels_file
    if images is not None:
        pool = str(out / "pool.csv")
        rows = [(id, (images / id).absolute()) for id in truth]
        write_text(Path(pool), csv_text(("id", "path"), rows))
    labeled = set(draw_ids(truth, initial, seed))
    kind.write_labels({id: truth[id] for id in truth if id in labeled}, file)
    project = out / "project"
    run_lloss("init", project, "--task", task, "--pool", pool, "--labels", file, "--test", test,
              "-k", k, *options)  # fmt: skip
    print("| labeled | metric | head: pairs right | Spearman | entropy: pairs right | minutes |")
    print("|--:|--:|--:|--:|--:|--:|")
    for cycle in range(1, cycles + 1):
        began = time.perf_counter()
        run_lloss("next", project)
        folder = project / "cycles" / f"{cycle:03d}"
        print(_row(json.loads((folder / "summary.json").read_text()), time.perf_counter() - began))
        with (folder / "selected.csv").open(newline="", encoding="utf-8") as selected:
            labeled |= {row["id"] for row in csv.DictReader(selected)}
        kind.write_labels({id: truth[id] for id in truth if id in labeled}, file)


def _row(summary: dict[str, Any], seconds: float) -> str:
    found, name = summary["evaluation"], summary["metric_name"]
    cells = (
        f"{summary['labeled']}",
        f"{name} {found[name]:.3f}",
        f"{found['head']['ranking_accuracy']:.3f}",
        f"{found['head']['spearman']:.3f}",
        f"{found['entropy']['ranking_accuracy']:.3f}",
        f"{seconds / 60:.1f}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
