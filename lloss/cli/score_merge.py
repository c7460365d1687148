"""``lloss score`` and ``lloss merge``."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import click

from lloss.annotations import Problems
from lloss.cli.device_option import provider_option
from lloss.cli.options import empty_option
from lloss.data.label_joining import labeled_pool
from lloss.errors import SettingsError
from lloss.pools import Item, Pool, SubsetPool
from lloss.runtime import tf32
from lloss.scores.merge import merge_shards
from lloss.scores.scores_folder import ScoresFolder
from lloss.scores.shard_spec import Shard
from lloss.selection.exclusion_files import find_excluded, read_excluded
from lloss.selection.ties import constant_note
from lloss.serve.scoring.batch.pipeline import READERS
from lloss.serve.scoring.batch.profile import Profiler
from lloss.serve.scoring.batch.score_pool import PART, ScoreReport, score_pool
from lloss.serve.scoring.metrics_server import serve_metrics
from lloss.serve.scoring.scorer import Scorer

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("model", type=PATH)
@click.argument("pool")
@click.option("-o", "--out", type=PATH, required=True, help="The scores folder.")
@provider_option
@click.option(
    "--exclude",
    type=PATH,
    multiple=True,
    help="CSV with a column id, or JSON labels: do not score.",
)
@empty_option
@click.option(
    "--batch-size",
    type=click.IntRange(0),
    default=0,
    help="Images a batch.  [default: what suits the provider and the size of the images]",
)
@click.option(
    "--part-size",
    type=click.IntRange(1),
    default=PART,
    show_default=True,
    help="Images a Parquet part; an interrupted run repeats one part or two.",
)
@click.option(
    "--threads",
    type=click.IntRange(0),
    default=0,
    help="Threads that decode and (on the CPU) compute; no score changes.  [default: one a core]",
)
@click.option(
    "--readers",
    type=click.IntRange(1),
    default=READERS,
    show_default=True,
    help="Threads that fetch images from a store.",
)
@click.option("--shard", metavar="i/n", default="1/1", help="Score the i-th of n shards of POOL.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first image that cannot be read.")
@click.option(
    "--metrics-port", type=click.IntRange(1, 65535), help="Serve Prometheus metrics on 127.0.0.1."
)
@click.option("--profile", is_flag=True, help="Tell which stage bounds the run, what to change.")
def score(
    model: Path,
    pool: str,
    out: Path,
    provider: str,
    exclude: tuple[Path, ...],
    empty: str,
    batch_size: int,
    part_size: int,
    threads: int,
    readers: int,
    shard: str,
    fail_fast: bool,
    metrics_port: int | None,
    profile: bool,
) -> None:
    """Score every image of POOL with the artifact MODEL.

    POOL is a folder, a .npy or .npz array, a .txt/.csv list of paths, WebDataset shards
    (shards-{000..123}.tar), .parquet/.arrow files or a folder of them, a data set that Hugging Face
    saved to disk, or one of these behind a URL (s3://...). Options follow a ?, such as
    'data.parquet?id=name&image=jpeg'. Run again after an interruption, the same command goes on
    where it stopped.
    """
    tf32.forbid()
    part = Shard.parse(shard)
    images, without = _opened(pool, exclude, empty, out)
    said = images.remark()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as Ctrl-C does
    before = _last_written(out)
    with Scorer(model, provider, batch_size, threads, readers) as scorer:
        click.echo(_told(scorer, images.uri, model, part), err=True)
        profiler = Profiler(scorer)
        with serve_metrics(scorer.telemetry, metrics_port):
            done = score_pool(
                scorer,
                images,
                out,
                exclude=without,
                part_size=part_size,
                fail_fast=fail_fast,
                shard=part,
            )
            found = profiler.profile(images.remote)  # the server takes a moment to end
        if profile:
            click.echo(found.text(), err=True)
    remark = images.remark()
    if remark and remark != said:  # of a pool in a store it is known only now
        click.echo(remark, err=True)
    click.echo(_outcome(done, out), err=True)
    if part.count == 1 and done.resumed:
        rest = SubsetPool(images, without) if without else images
        _echo_changed(itertools.islice(rest, done.resumed), before)
    if part.count == 1:  # a shard alone is no folder to read; merge looks at all of them
        _echo_ties(out)


def _opened(uri: str, exclude: tuple[Path, ...], empty: str, out: Path) -> tuple[Pool, set[str]]:
    """The pool without folders of labels and of these scores, and the ids to leave out."""
    problems = Problems(skip=True)
    pool = labeled_pool(uri, exclude, problems, [out])
    found = find_excluded(read_excluded(exclude, problems, empty), pool.ids)
    for line in [*problems.lines(), *found.notes("the pool")]:
        click.echo(line, err=True)
    return pool, found.ids


def _told(scorer: Scorer, pool: str, model: Path, shard: Shard) -> str:
    engine = scorer.engine
    what = f"shard {shard} of {pool}" if shard.count > 1 else pool
    how = f"batches of {engine.batch_size}, {scorer.manifest.precision}"
    note = f" ({engine.note})" if engine.note else ""
    return f"score {what} with {model} on {engine.device}: {how}{note}"


def _last_written(out: Path) -> int:
    """When the last part that is there was written, in nanoseconds; 0 without any."""
    folder = ScoresFolder(out)
    numbers = folder.part_numbers() if out.is_dir() else []
    return max((folder.part_path(number).stat().st_mtime_ns for number in numbers), default=0)


def _echo_changed(scored: Iterable[Item], when: int) -> None:
    """Tell of image files that were written after their scores: of these, names are compared."""
    changed = []
    files = ((item.id, os.fsdecode(item.file)) for item in scored if isinstance(item.file, bytes))
    for id, file in files:
        with contextlib.suppress(OSError):
            if Path(file).stat().st_mtime_ns > when:
                changed.append(id)
    if changed:
        click.echo(
            f"warning: {len(changed)} image files are newer than their scores ({changed[0]!r}, for "
            "example): if they show something else now, score into a new folder",
            err=True,
        )


def _outcome(done: ScoreReport, out: Path) -> str:
    skipped = f", {done.skipped} skipped ({out / 'skipped.parquet'})" if done.skipped else ""
    resumed = f", {done.resumed} of them before" if done.resumed else ""
    return f"{out}: {done.scored} images scored{resumed}{skipped}"


@click.command()
@click.argument("shards", type=PATH, nargs=-1, required=True)
@click.option("-o", "--out", type=PATH, required=True, help="The scores folder to make.")
def merge(shards: tuple[Path, ...], out: Path) -> None:
    """Put the scores folders of all SHARDS together into one.

    It checks that all of them are there, finished, and of one model, pool and settings. The result
    is what one run over the whole pool would have written.
    """
    if out.resolve() in {shard.resolve() for shard in shards}:
        raise SettingsError(f"-o {out}: is one of the shards; choose a new folder")
    counts = merge_shards(shards, out)
    skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
    click.echo(f"{out}: {counts['scored']} images scored{skipped}", err=True)
    _echo_ties(out)


def _echo_ties(scores: Path) -> None:
    if tied := constant_note(ScoresFolder(scores).opened().scan(["loss"]), "loss"):
        click.echo(tied, err=True)
