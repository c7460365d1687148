"""Inside others' pipelines a scorer gives the scores that it gives alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lloss import Scorer

PIPELINES = Path(__file__).parents[2] / "benchmarks" / "pipelines"
PACKAGES = {
    "with_dataloader": "torch", "with_datasets": "datasets", "with_pandas": "pandas",
    "with_polars": "polars", "with_daft": "daft", "with_spark": "pyspark", "with_ray": "ray",
}  # fmt: skip
"""What each needs; the tests of Ray are those of make test-distributed."""
RUN = (
    "import json, sys; from {name} import losses\n"
    "found = losses(*sys.argv[1:])\n"
    "print(json.dumps({{path: float(loss) for path, loss in found.items()}}))"
)


def test_every_pipeline_is_tested() -> None:
    assert {path.stem for path in PIPELINES.glob("*.py")} == set(PACKAGES)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.distributed] if name == "with_ray" else [])
        for name in PACKAGES
    ],
)
def test_the_losses_are_those_of_a_scorer(name: str, onnx_file: Path, photos: Path) -> None:
    package = PACKAGES[name]
    pytest.importorskip(package, reason=f"{package} is not installed: pip install {package}")
    if name == "with_spark" and shutil.which("java") is None:
        pytest.skip("there is no Java: Debian's default-jre-headless has it")
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(name=name), str(onnx_file), str(photos)],
        cwd=PIPELINES, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    paths = sorted(str(path) for path in photos.rglob("*.png"))
    with Scorer(onnx_file) as scorer:
        alone = scorer.score(paths).loss
    assert found == pytest.approx(dict(zip(paths, map(float, alone))), rel=1e-5)
