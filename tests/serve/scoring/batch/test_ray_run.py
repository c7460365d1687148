"""Scores made by Ray are those of one process, also where something dies during the run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lloss.serve.scoring.batch.score_pool import score_pool

from lloss import Scorer
from lloss.cli.main import main
from lloss.errors import LlossError, ScoresError, SettingsError
from lloss.pools import Chunk, Item, Pool, open_pool
from lloss.scores.scores_folder import ScoresFolder
from lloss.scores.shard_spec import Shard

from ....object_store import contents
from ....pools.pool_files import write
from ....scores.test_merge import _gz, _parquet, _tar
from ....waiting import until
from ..fakes import pictures

pytestmark = pytest.mark.distributed
ray = pytest.importorskip("ray", reason="Ray is not installed: make test-distributed installs it")

from lloss.serve.scoring.batch import ray_run  # noqa: E402
from lloss.serve.scoring.batch.ray_actor import PoolSource  # noqa: E402
from lloss.serve.scoring.batch.ray_run import RayOptions, score_on_ray  # noqa: E402

CPU = RayOptions(provider="cpu", batch_size=8)


@pytest.fixture(scope="module")
def scorer(onnx_file: Path) -> Scorer:
    return Scorer(onnx_file, provider="cpu", batch_size=8, threads=1)


@pytest.fixture(scope="module")
def cluster(s3: str) -> Iterator[None]:
    """Ray on this machine, with two cores; its processes know the store of ``s3``."""
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def on_ray(
    onnx_file: Path, pool: Path | str, out: Path | str, exclude: Any = (), **options: Any
) -> Any:
    source = PoolSource(str(pool), (), frozenset(exclude))
    options = {"part_size": 10, "options": CPU, **options}
    return score_on_ray(onnx_file, source, open_pool(pool), out, **options)


def test_the_command_writes_the_bytes_of_a_local_run(
    cluster: None,
    onnx_file: Path,
    pool: Path,
    s3: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(tmp_path / "done.csv", b"id\ndark/004.png\n")
    monkeypatch.chdir(tmp_path)
    words = ["score", str(onnx_file), "pool", "--provider=cpu", "--part-size=10",
             "--exclude=done.csv"]  # fmt: skip
    main([*words, "-o", "local"])
    for out in ("distributed", f"{s3}/{tmp_path.name}"):
        capsys.readouterr()
        main([*words, "-o", out, "--on", "ray"])
        lines = capsys.readouterr().err
        assert "on 2 actors of Ray, cpu: batches of 64, fp32" in lines
        assert "58 images scored, 2 skipped" in lines
        assert contents(out) == contents("local")
    main([*words, "-o", "distributed", "--on", "ray"])  # complete, and left alone
    assert "60 of them before" in capsys.readouterr().err


@pytest.mark.parametrize("make", [_gz, _tar, _parquet])
def test_other_kinds_of_pools(
    cluster: None,
    scorer: Scorer,
    onnx_file: Path,
    photos: Path,
    tmp_path: Path,
    make: Callable[[Path, Path], str],
) -> None:
    pool = make(photos, tmp_path)
    score_pool(scorer, open_pool(pool), tmp_path / "whole", part_size=10, shard=Shard(2, 3))
    report = on_ray(onnx_file, pool, tmp_path / "s", shard=Shard(2, 3))
    assert report.scored + report.skipped == 20
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_what_a_local_run_left_is_finished(
    cluster: None, scorer: Scorer, onnx_file: Path, pool: Path, tmp_path: Path
) -> None:
    score_pool(scorer, open_pool(pool), tmp_path / "s", part_size=10)
    whole, folder = contents(tmp_path / "s"), ScoresFolder(tmp_path / "s")
    for name in ("part-00000.parquet", "part-00003.parquet", "skipped.parquet"):
        (tmp_path / "s" / name).unlink()
    run = folder.run() or {}
    folder.write_run({**{k: v for k, v in run.items() if k != "scored"}, "state": "running"})
    assert on_ray(onnx_file, pool, tmp_path / "s").resumed == 41
    assert contents(tmp_path / "s") == whole


def test_workers_that_see_another_pool_end_the_run(
    cluster: None, onnx_file: Path, pool: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(pool, tmp_path / "other")
    (other / "red/002.png").rename(other / "red/renamed.png")
    source = PoolSource(str(other))
    with pytest.raises(ScoresError, match=r"sees other images in part \d of .*/pool"):
        score_on_ray(onnx_file, source, open_pool(pool), tmp_path / "s", options=CPU, part_size=10)
    np.save(tmp_path / "a.npy", pictures(60))
    np.save(tmp_path / "b.npy", pictures(60)[::-1])
    source = PoolSource(str(tmp_path / "b.npy"))
    with pytest.raises(LlossError, match=r"b\.npy: holds other images on another machine"):
        score_on_ray(onnx_file, source, open_pool(tmp_path / "a.npy"), tmp_path / "t", options=CPU)


def test_scores_on_the_disk_of_another_machine_are_noticed(
    cluster: None, onnx_file: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ray_run.PartWork

    def elsewhere(spec: Any, source: Any, out: str, *rest: Any) -> Any:
        return real(spec, source, str(tmp_path / "elsewhere"), *rest)

    monkeypatch.setattr(ray_run, "PartWork", elsewhere)
    with pytest.raises(ScoresError, match=r"part \d is not here, so it was written"):
        on_ray(onnx_file, pool, tmp_path / "s")


def test_what_a_cluster_lacks_is_one_line(
    cluster: None, onnx_file: Path, pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, message in (
        (RayOptions(provider="cuda"), "no machine of the cluster has a GPU"),
        (RayOptions(provider="cuda:1"), "give cuda, without a number"),
        (RayOptions(provider="cpu", threads=64), "no machine of the cluster has so many cores"),
    ):
        with pytest.raises(SettingsError, match=message):
            on_ray(onnx_file, pool, tmp_path / "s", options=options)
    words = ["score", str(onnx_file), str(pool), "-o", str(tmp_path / "s")]
    for more in (["--on", "ray", "--profile"], ["--ray-actors", "2"]):
        with pytest.raises(SystemExit) as left:
            main([*words, *more])
        assert left.value.code == 2
    assert "give --on ray with them" in capsys.readouterr().err
    write(tmp_path / "no.onnx", b"text")
    with pytest.raises(LlossError, match=r"on a worker of Ray: .*model\.onnx"):
        on_ray(tmp_path / "no.onnx", pool, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def actors() -> dict[int, int]:
    """Processes of the connected Ray's actors: the raylet's id by their own."""
    session = ray._private.worker._global_node.get_session_dir_path()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            if b"ray::MapWorker" in (folder / "cmdline").read_bytes():
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if session.encode() in Path(f"/proc/{parent}/cmdline").read_bytes():
                    found[int(folder.name)] = parent
    return found


@pytest.fixture
def array(scorer: Scorer, tmp_path: Path) -> Path:
    """An array of many parts of 100, and beside it ``whole``, its scores."""
    np.save(tmp_path / "a.npy", pictures(20_000))
    score_pool(scorer, open_pool(tmp_path / "a.npy"), tmp_path / "whole", part_size=100)
    return tmp_path / "a.npy"


def killing(folder: Path, kill: Callable[[], None]) -> threading.Thread:
    """Kill something once the folder has some parts, beside the run."""

    def wait() -> None:
        until(lambda: len(ScoresFolder(folder).part_numbers()) > 3)
        kill()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_killed_actor_costs_a_part(
    cluster: None, onnx_file: Path, array: Path, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill() -> None:
        killed.append(min(actors()))
        os.kill(killed[0], signal.SIGKILL)

    thread = killing(tmp_path / "s", kill)
    on_ray(onnx_file, array, tmp_path / "s", part_size=100)
    thread.join()
    assert killed and contents(tmp_path / "s") == contents(tmp_path / "whole")


class DeadlyPool(Pool):
    """A pool whose fifth part ends the process that reads it."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.uri = pool, pool.uri

    def __iter__(self) -> Iterator[Item]:
        return iter(self.pool)

    def fingerprint(self) -> str:
        return self.pool.fingerprint()

    def chunks(self, ranges: Iterable[range]) -> Iterator[Chunk]:
        for chunk in self.pool.chunks(ranges):
            if chunk.start == 400:
                os._exit(1)
            yield chunk


class DeadlySource(PoolSource):
    """Opens such a pool."""

    def open(self) -> Pool:
        return DeadlyPool(super().open())


def test_a_part_that_ends_each_actor_ends_the_run(
    cluster: None, onnx_file: Path, tmp_path: Path
) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    np.save(tmp_path / "a.npy", pictures(800))
    source, pool = DeadlySource(str(tmp_path / "a.npy")), open_pool(tmp_path / "a.npy")
    with pytest.raises(LlossError, match="part 4 was begun 4 times, and each time the actor died"):
        score_on_ray(onnx_file, source, pool, tmp_path / "s", options=CPU, part_size=100)
    done = ScoresFolder(tmp_path / "s").part_numbers()
    assert set(done) >= {0, 1, 2, 3} and 4 not in done


def test_a_killed_driver_leaves_whole_parts(
    scorer: Scorer, onnx_file: Path, array: Path, tmp_path: Path
) -> None:
    words = ["score", str(onnx_file), str(array), "-o", str(tmp_path / "s"), "--provider=cpu",
             "--part-size=100", "--batch-size=8", "--on=ray", "--ray-actors=2"]  # fmt: skip
    child = subprocess.Popen([sys.executable, "-m", "lloss", *words], stderr=subprocess.PIPE)
    folder = ScoresFolder(tmp_path / "s")
    until(lambda: len(folder.part_numbers()) > 3)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    child.communicate()
    done = folder.part_numbers()
    assert all(folder.part_counts(number) == (100, 0) for number in done) and len(done) < 200
    report = score_pool(scorer, open_pool(array), tmp_path / "s", part_size=100)
    assert report.resumed >= 100 * len(done)
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_a_killed_node_costs_its_parts(onnx_file: Path, array: Path, tmp_path: Path) -> None:
    if ray.is_initialized():
        ray.shutdown()
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = nodes.add_node(num_cpus=1)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="warning")
        raylet = second.all_processes["raylet"][0].process.pid
        killed: list[int] = []

        def kill() -> None:
            until(lambda: raylet in actors().values())  # an actor is there
            killed.append(raylet)
            nodes.remove_node(second, allow_graceful=False)

        thread = killing(tmp_path / "s", kill)
        on_ray(onnx_file, array, tmp_path / "s", part_size=100)
        thread.join()
        assert killed and sum(node["Alive"] for node in ray.nodes()) == 1
    finally:
        ray.shutdown()
        nodes.shutdown()
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")
