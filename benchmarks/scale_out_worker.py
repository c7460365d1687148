"""What ``scale_out.py`` measures of Ray, each time in a process of its own.

    python scale_out_worker.py parts NOTE score MODEL POOL -o OUT --on=ray ...
    python scale_out_worker.py rows NOTE in-actors|in-tasks MODEL FEW POOL OUT CORES

NOTE receives the times.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lloss.images.decode import decode_into
from lloss.images.input_spec import ImageSpec
from lloss.manifest import read_manifest
from lloss.runtime.batch_size import host_batch


def busy_seconds() -> float:
    """Core seconds that this machine has worked since it started; 0 where Linux does not say."""
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, softirq = map(int, line.split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def run_worker(kind: str, note: Path, words: Sequence[str]) -> None:
    """Do the work of a contestant, and note its times."""
    if kind == "parts":
        return note_parts(note, words)
    decode, model, few, pool, out, cores = words
    import ray.data

    ray.init("local", num_cpus=int(cores), include_dashboard=False, log_to_driver=False)
    busy, times = busy_seconds(), [time.perf_counter()]
    for images, folder in ((few, f"{out}-few"), (pool, out)):
        ray_data(decode, Path(model), images, folder, int(cores))
        times.append(time.perf_counter())
        if images == few:
            busy = busy_seconds() - busy
            shutil.rmtree(folder)
    note.write_text(f"{times[1] - times[0]} {busy} {times[2] - times[1]}\n", "ascii")


def note_parts(note: Path, words: Sequence[str]) -> None:
    """Run ``lloss`` with actors that note process, time and images of each part."""
    from lloss.serve.scoring.batch import ray_run

    from lloss.cli.main import main as lloss

    class NotingActor(ray_run.PartActor):
        def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
            row = super().__call__(batch)
            with note.open("a", encoding="ascii") as file:
                file.write(f"{os.getpid()} {time.time()} {row['scored'][0]}\n")
            return row

    ray_run.PartActor = NotingActor  # type: ignore[misc]
    lloss(list(words))


# What a user of Ray Data would write


def decoded(batch: dict[str, Any], spec: ImageSpec) -> dict[str, Any]:
    pixels = np.empty((len(batch["image"]), spec.height, spec.width, 3), np.uint8)
    for raw, row in zip(batch["image"], pixels):
        decode_into(raw, spec, row)
    return {"path": batch["path"], "image": pixels}


def ray_data(decode: str, model: Path, pool: str, out: str, cores: int) -> None:
    """Read files, score them with an actor a core, and write Parquet."""
    import ray.data

    from lloss import Scorer

    spec = read_manifest(model).image
    batch = host_batch(spec)
    images = ray.data.read_binary_files(pool, include_paths=True)
    images = images.rename_columns({"bytes": "image"})
    if decode == "in-tasks":
        images = images.map_batches(decoded, fn_kwargs={"spec": spec}, batch_size=batch)
    scored = images.map_batches(
        Scorer,
        fn_constructor_kwargs={"model": str(model), "provider": "cpu", "threads": 1},
        batch_size=batch,
        compute=ray.data.ActorPoolStrategy(size=cores),
        num_cpus=max(1, cores - 1) / cores,  # the rest is for the tasks that read
    )
    scored.write_parquet(out)


if __name__ == "__main__":
    run_worker(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
