"""Light imports, and one name in a wheel. Layers: import-linter in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "onnxruntime", "onnx", "pyarrow", "prometheus_client"}
PACKAGES = {"lloss": "lloss", "export": "lloss.export", "serve": "lloss.serve"}
FILES = [path for folder in PACKAGES for path in sorted((ROOT / folder).rglob("*.py"))]


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_import_lloss_is_light() -> None:
    done = run(f"import lloss, sys\nheavy = {HEAVY} & set(sys.modules)\nassert not heavy, heavy")
    assert done.returncode == 0, done.stderr


def test_scores_are_written_and_merged_without_torch_or_a_runtime() -> None:
    done = run(
        "import lloss.scores.scores_folder, lloss.pools, lloss.selection, sys\n"
        "heavy = {'torch', 'onnxruntime', 'prometheus_client'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    assert done.returncode == 0, done.stderr


def test_the_whole_of_serving_loads_no_torch() -> None:
    modules = [
        "lloss." + ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "serve").rglob("[a-z]*.py")
    ]
    assert len(modules) > 10
    done = run(f"import {', '.join(modules)}, sys; assert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_scoring_and_selecting_work_without_torch(artifact: Path, photos: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['torchvision'] = None\n"  # import fails
        "import lloss, lloss.serve\n"
        f"scorer = lloss.Scorer({str(artifact)!r}, device='cpu')\n"
        f"batches = list(scorer.stream({str(photos)!r}))\n"
        "from lloss.scores.score_source import TableScores\n"
        "chosen = lloss.select(TableScores(batches[0].table()), lloss.SelectionSettings(k=3))\n"
        "assert len(chosen.ids) == 3\n"
        "import lloss.cli.main; lloss.cli.main.main(['--help'])"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["train", "export", "evaluate", "next"])
def test_a_missing_extra_is_one_line_with_the_remedy(command: str, tmp_path: Path) -> None:
    arguments = {
        "train": ["cifar10", "-o", str(tmp_path / "run")],
        "export": [str(tmp_path), "-o", str(tmp_path / "m.onnx")],
        "evaluate": [str(tmp_path), "cifar10"],
        "next": [str(tmp_path)],
    }[command]
    done = run(
        "import sys; sys.modules['torch'] = sys.modules['torchvision'] = None\n"
        f"from lloss.cli.main import main; main({[command, *arguments]!r})"
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "pip install 'lloss[train]'" in done.stderr


def test_a_wheel_puts_one_name_into_site_packages(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
         "-w", str(tmp_path / "dist"), str(_copy(tmp_path))],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"lloss"}
    missing = {
        f"{PACKAGES[path.relative_to(ROOT).parts[0]].replace('.', '/')}/"
        + "/".join(path.relative_to(ROOT).parts[1:])
        for path in FILES
    } - set(names)
    assert not missing
    assert {"lloss/py.typed", "lloss/project/report.html"} <= set(names)
    deploy = {f"lloss/serve/deploy/{path.name}" for path in (ROOT / "serve/deploy").iterdir()}
    assert len(deploy) > 6 and deploy <= set(names)


def _copy(tmp_path: Path) -> Path:
    """The sources alone: a build leaves folders behind."""
    import shutil

    source = tmp_path / "source"
    source.mkdir()
    for folder in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    return source


def test_no_file_is_crowded() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in FILES
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert long == {}
