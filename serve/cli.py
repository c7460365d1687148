"""``lloss score``."""

from __future__ import annotations

import typing
from pathlib import Path

import click

from lloss.labels import read_ids
from lloss.pools import open_pool

from .engine import Provider
from .run import PART, score_pool
from .scorer import BATCH, Scorer

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("model", type=PATH)
@click.argument("pool")
@click.option("-o", "--out", type=PATH, required=True, help="The scores folder.")
@click.option(
    "--provider",
    type=click.Choice(typing.get_args(Provider)),
    default="auto",
    show_default=True,
    help="What computes; auto takes the first that works of tensorrt, cuda, cpu.",
)
@click.option("--exclude", type=PATH, multiple=True, help="CSV with a column id: do not score.")
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=BATCH,
    show_default=True,
    help="Images a run of the engine.",
)
@click.option(
    "--part-size",
    type=click.IntRange(1),
    default=PART,
    show_default=True,
    help="Images a Parquet part; an interrupted run repeats one part at most.",
)
@click.option(
    "--threads",
    type=click.IntRange(0),
    default=0,
    help="Of decoding and of the CPU provider.  [default: one a core]",
)
@click.option("--fail-fast", is_flag=True, help="Stop at the first image that cannot be read.")
def score(
    model: Path,
    pool: str,
    out: Path,
    provider: str,
    exclude: tuple[Path, ...],
    batch_size: int,
    part_size: int,
    threads: int,
    fail_fast: bool,
) -> None:
    """Score every image of POOL with the artifact MODEL.

    POOL is a folder, a .npy or .npz array, a .txt/.csv list of paths, WebDataset shards
    (shards-{000..123}.tar), .parquet/.arrow files or a folder of them, a data set that Hugging Face
    saved to disk, or one of these behind a URL (s3://...). Options follow a ?, such as
    'data.parquet?id=name&image=jpeg'. Run again after an interruption, the same command goes on
    where it stopped.
    """
    images = open_pool(pool)
    without = read_ids(*exclude)
    scorer = Scorer(model, provider, batch_size, threads)
    click.echo(f"score {images.uri} with {model} on {scorer.engine.provider}", err=True)
    done = score_pool(
        scorer, images, out, exclude=without, part_size=part_size, fail_fast=fail_fast
    )
    skipped = f", {done.skipped} skipped ({out / 'skipped.parquet'})" if done.skipped else ""
    resumed = f", {done.resumed} of them before" if done.resumed else ""
    click.echo(f"{out}: {done.scored} images scored{resumed}{skipped}", err=True)
