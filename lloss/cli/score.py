"""``lloss score``."""

from __future__ import annotations

import contextlib
import os
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
from lloss.data.label_joining import labeled_pool, mask_folders
from lloss.errors import SettingsError
from lloss.pools import Item, Pool, SubsetPool
from lloss.pools.uri import PoolUri
from lloss.runtime import tf32
from lloss.runtime.onnx_runtime import import_onnxruntime
from lloss.scores.folder_files import folder_files
from lloss.scores.scores_folder import SKIPPED, ScoresFolder, part_name
from lloss.scores.shard_spec import Shard
from lloss.selection.exclusions import find_excluded, read_excluded
from lloss.serve.scoring.batch.pipeline import READERS
from lloss.serve.scoring.batch.profiler import Profiler
from lloss.serve.scoring.batch.score_pool import score_pool
from lloss.serve.scoring.batch.scoring_run import PART, EngineFacts, ScoreReport, engine_facts
from lloss.serve.scoring.scorer import Scorer
from lloss.serve.scoring.telemetry import serve_metrics
from lloss.text.counts import counted


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
@click.option(
    "--shard",
    metavar="[i/n|from-env]",
    default="1/1",
    help="Score the i-th of n shards of POOL; from-env: as Kubernetes, Slurm or AWS Batch number "
    "the tasks of an array.",
)
@click.option(
    "--metrics-port", type=click.IntRange(1, 65535), help="Serve Prometheus metrics on 127.0.0.1."
)
@click.option(
    "--on",
    type=click.Choice(["this-machine", "ray"]),
    default="this-machine",
    help="Where to score; ray: by Ray Data, on a cluster or on this machine.",
)
@click.option(
    "--ray-address",
    default="",
    show_default="RAY_ADDRESS, or a new Ray on this machine",
    help="Cluster of --on ray: its address, or auto.",
)
@automatic_option(
    "--ray-actors", "one per GPU, or else per --threads cores", "Scorers of --on ray."
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
    on: str,
    ray_address: str,
    ray_actors: int,
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
    if on == "ray":
        import ray  # noqa: F401  likewise
    part, folder = Shard.parse(shard), ScoresFolder(out)
    _check_outside(folder, pool)
    images, excluded = _open(pool, exclude, empty, folder)
    remark = images.remark()
    done = folder.part_numbers() if folder.run() else []
    last_written = folder.files.modified([part_name(number) for number in done])
    run: dict[str, Any] = {"out": out, "part_size": part_size, "shard": part}
    if on == "ray":
        if profile or metrics_port:
            raise SettingsError("--profile and --metrics-port: are of one process; not of --on ray")
        cluster = {"address": ray_address, "actors": ray_actors, "provider": provider, **scoring}
        source = (pool, [*mask_folders(exclude), *([folder.local] if folder.local else [])])
        report = _score_on_ray(model, images, source, excluded, cluster, run)
    else:
        if ray_address or ray_actors:
            raise SettingsError("--ray-address and --ray-actors: give --on ray with them")
        with Scorer(model, provider, **scoring) as scorer:
            facts = engine_facts(scorer)
            print_notes(_announcement(facts, images.uri, model, part))
            profiler = Profiler(scorer)
            with serve_metrics(scorer.telemetry, metrics_port):
                report = score_pool(scorer, images, exclude=excluded, **run)
                stages = profiler.text(images.remote)  # before the metrics server shuts down
            if profile:
                print_notes(stages)
    if images.remark() != remark:  # a remote pool has one only after it was read
        print_notes(images.remark())
    print_notes(_summary(report, folder))
    if part.count > 1:
        return  # one shard is not a readable scores folder; merge checks all of them
    if report.resumed and not images.remote:
        pending = SubsetPool(images, excluded) if excluded else images
        finished = set(done)
        before = (item for at, item in enumerate(pending) if at // part_size in finished)
        print_notes(_newer_files(before, last_written))


def _score_on_ray(
    model: Path,
    images: Pool,
    source: tuple[str, list[Path]],
    excluded: set[str],
    cluster: dict[str, Any],
    run: dict[str, Any],
) -> ScoreReport:
    from lloss.serve.scoring.batch.ray_actor import PoolSource
    from lloss.serve.scoring.batch.ray_run import RayOptions, score_on_ray

    uri = PoolUri.parse(source[0], Path.cwd()).text
    leave_out = [folder.absolute() for folder in source[1]]
    pool = PoolSource(uri, leave_out, frozenset(excluded))

    def announce(facts: EngineFacts, actors: int) -> None:
        where = f"{actors} actors of Ray"
        print_notes(_announcement(facts, images.uri, model, run["shard"], where))
        if images.streamed:
            print_notes(f"{images.uri}: every actor reads all of it; see docs/distributed.md")

    return score_on_ray(
        model, pool, images, options=RayOptions(**cluster), announce=announce, **run
    )


def _check_outside(folder: ScoresFolder, pool: str) -> None:
    """Raise SettingsError for scores in the store's folder that the pool lists."""
    uri = PoolUri.parse(pool)
    if folder.local is not None or "://" not in uri.path:
        return
    if f"{folder.files.key}/".startswith(f"{folder_files(uri.path).key}/"):
        raise SettingsError(f"-o {folder}: is inside of the pool {uri}; choose one beside it")


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


def _announcement(facts: EngineFacts, pool: str, model: Path, shard: Shard, by: str = "") -> str:
    what = f"shard {shard} of {pool}" if shard.count > 1 else pool
    how = f"batches of {facts.batch_size}, {facts.engine.precision}"
    note = f" ({facts.note})" if facts.note else ""
    return f"score {what} with {model} on {by and by + ', '}{facts.device}: {how}{note}"


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
    return f"{folder}: {counted(report.scored, 'image')} scored{resumed}{skipped}"
