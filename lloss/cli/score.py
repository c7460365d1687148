"""``lloss score``."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from lloss.annotations import Problems
from lloss.cli.options import (
    FOLDER_OR_URL,
    PATH,
    automatic_option,
    empty_option,
    exclude_option,
    print_notes,
    provider_option,
)
from lloss.data.label_joining import labeled_pool
from lloss.errors import SettingsError
from lloss.pools import Item, Pool, SubsetPool
from lloss.pools.uri import PoolUri
from lloss.runtime import tf32
from lloss.runtime.onnx_runtime import import_onnxruntime
from lloss.scores.scores_folder import SKIPPED, ScoresFolder
from lloss.scores.shard_spec import Shard
from lloss.selection.exclusions import find_excluded, read_excluded
from lloss.serve.scoring.batch.pipeline import READERS
from lloss.serve.scoring.batch.profiler import Profiler
from lloss.serve.scoring.batch.score_pool import score_pool
from lloss.serve.scoring.batch.scoring_run import PART, ScoreReport
from lloss.serve.scoring.scorer import Scorer
from lloss.serve.scoring.telemetry import serve_metrics


@click.command("score")
@click.argument("model", type=PATH)
@click.argument("pool")
@click.option(
    "-o",
    "--out",
    type=FOLDER_OR_URL,
    required=True,
    help="The scores folder, or its URL in an object store (s3://...).",
)
@provider_option
@exclude_option
@empty_option
@automatic_option("--batch-size", "what suits the provider and the image size", "Images per batch.")
@click.option(
    "--part-size",
    type=click.IntRange(1),
    default=PART,
    help="Images per Parquet part; after an interruption one or two parts are repeated.",
)
@automatic_option(
    "--threads",
    "one per core",
    "Threads that decode and (on the CPU) compute; scores do not depend on it.",
)
@click.option(
    "--readers",
    type=click.IntRange(1),
    default=READERS,
    help="Threads that fetch images from remote storage.",
)
@click.option("--shard", metavar="i/n", default="1/1", help="Score the i-th of n shards of POOL.")
@click.option(
    "--metrics-port", type=click.IntRange(1, 65535), help="Serve Prometheus metrics on 127.0.0.1."
)
@click.option("--profile", is_flag=True, help="Report the slowest stage and how to speed it up.")
def command(
    model: Path,
    pool: str,
    out: Path | str,
    provider: str,
    exclude: tuple[Path, ...],
    empty: str,
    part_size: int,
    shard: str,
    metrics_port: int | None,
    profile: bool,
    **scoring: Any,
) -> None:
    """Score every image of POOL with the exported MODEL.

    POOL is a folder, a .npy or .npz array, a .txt/.csv list of paths, WebDataset shards
    (shards-{000..123}.tar), .parquet/.arrow files or a folder of them, a data set that Hugging Face
    datasets saved to disk, or one of these behind a URL (s3://...). Options follow a question mark:
    'data.parquet?id=name&image=jpeg'. After an interruption the same command resumes the run.
    """
    tf32.forbid()
    import_onnxruntime()  # if it is missing, fail before the pool is read
    part, folder = Shard.parse(shard), ScoresFolder(out)
    _check_outside(folder, pool)
    images, excluded = _open(pool, exclude, empty, folder)
    remark = images.remark()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop as on Ctrl-C
    last_written = folder.files.modified(folder.parts() if folder.run() else ())
    with Scorer(model, provider, **scoring) as scorer:
        print_notes(_announcement(scorer, images.uri, model, part))
        profiler = Profiler(scorer)
        with serve_metrics(scorer.telemetry, metrics_port):
            report = score_pool(
                scorer,
                images,
                out,
                exclude=excluded,
                part_size=part_size,
                shard=part,
            )
            stages = profiler.text(images.remote)  # before the metrics server shuts down
        if profile:
            print_notes(stages)
    if images.remark() != remark:  # a remote pool has one only after it was read
        print_notes(images.remark())
    print_notes(_summary(report, folder))
    if part.count > 1:
        return  # one shard is not a readable scores folder; merge checks all of them
    if report.resumed:
        pending = SubsetPool(images, excluded) if excluded else images
        print_notes(_newer_files(itertools.islice(pending, report.resumed), last_written))


def _check_outside(folder: ScoresFolder, pool: str) -> None:
    """Raise SettingsError for scores in the store's folder that the pool lists."""
    root = PoolUri.parse(pool).path.rstrip("/") + "/"
    if folder.local is None and f"{folder}/".startswith(root):
        raise SettingsError(f"-o {folder}: is inside of the pool {pool}; choose one beside it")


def _open(
    uri: str, exclude: tuple[Path, ...], empty: str, folder: ScoresFolder
) -> tuple[Pool, set[str]]:
    """Open the pool without folders of labels and of these scores; find the ids to leave out."""
    problems = Problems(skip=True)
    pool = labeled_pool(uri, exclude, problems, [folder.local] if folder.local else [])
    named = read_excluded(exclude, problems, empty)
    excluded = find_excluded(named, pool.ids, "the pool", problems)
    print_notes(*problems.lines())
    return pool, excluded


def _announcement(scorer: Scorer, pool: str, model: Path, shard: Shard) -> str:
    engine = scorer.engine
    what = f"shard {shard} of {pool}" if shard.count > 1 else pool
    how = f"batches of {engine.batch_size}, {scorer.manifest.precision}"
    note = f" ({engine.note})" if engine.note else ""
    return f"score {what} with {model} on {engine.device}: {how}{note}"


def _newer_files(scored: Iterable[Item], written: int) -> str:
    """Warn of image files changed after they were scored: a resumed run compares names only."""
    changed = []
    files = ((item.id, os.fsdecode(item.file)) for item in scored if isinstance(item.file, bytes))
    for id, file in files:
        with contextlib.suppress(OSError):
            if Path(file).stat().st_mtime_ns > written:
                changed.append(id)
    if not changed:
        return ""
    return (
        f"warning: {len(changed)} image files are newer than their scores (for example "
        f"{changed[0]!r}): if their content changed, score into a new folder"
    )


def _summary(report: ScoreReport, folder: ScoresFolder) -> str:
    where = folder.files.where(SKIPPED)
    skipped = f", {report.skipped} skipped ({where})" if report.skipped else ""
    resumed = f", {report.resumed} of them before" if report.resumed else ""
    return f"{folder}: {report.scored} images scored{resumed}{skipped}"
