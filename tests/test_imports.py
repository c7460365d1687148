"""What an import loads, what each extra brings, what a wheel holds, how long a file is.

The layers themselves are import-linter contracts in pyproject.toml.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from lloss.cli.main import COMMANDS, EXTRAS

ROOT = Path(__file__).parents[1]
PACKAGES = {"lloss": "lloss", "export": "lloss/export", "serve": "lloss/serve"}
FILES = [path for folder in PACKAGES for path in sorted((ROOT / folder).rglob("*.py"))]
SERVING = ", ".join(
    "lloss." + ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in FILES
    if path.is_relative_to(ROOT / "serve")
    and path.stem not in ("__init__", "ray_run", "ray_actor")  # of an extra of their own
)
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        ("lloss", "torch onnxruntime onnx pyarrow prometheus_client"),
        ("lloss.runtime.cpu_count", "torch onnxruntime pyarrow"),
        ("lloss.pools, lloss.scores, lloss.selection", "torch onnxruntime prometheus_client"),
        ("lloss.project.labeling_tasks", "torch onnxruntime fiftyone"),
        (SERVING, "torch"),
    ],
)
def test_an_import_is_light(modules: str, unwanted: str) -> None:
    done = run(f"import {modules}, sys\nheavy = {set(unwanted.split())} & set(sys.modules)\n"
               "assert not heavy, heavy")  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_scoring_and_selecting_work_without_torch(onnx_file: Path, photos: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['torchvision'] = None\n"  # import fails
        "import lloss, lloss.serve\n"
        f"scorer = lloss.Scorer({str(onnx_file)!r}, provider='cpu')\n"
        f"batches = list(scorer.stream({str(photos)!r}))\n"
        "from lloss.scores.score_source import TableScores\n"
        "chosen = lloss.select(TableScores(batches[0].table()), lloss.SelectionSettings(k=3))\n"
        "assert len(chosen.ids) == 3\n"
        "import lloss.cli.main; lloss.cli.main.main(['--help'])"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("missing", "extra", "words"),
    [
        ("torch", "train", ["train", "cifar10", "-o", "run"]),
        ("torch", "train", ["evaluate", "run", "cifar10"]),
        ("torch", "train", ["export", "run", "-o", "m.onnx"]),
        ("torch", "train", ["next", "project"]),
        ("onnxruntime", "cpu", ["score", "m.onnx", "pool", "-o", "scores"]),
        ("ray", "ray", ["score", "m.onnx", "pool", "-o", "scores", "--on", "ray"]),
        ("onnxruntime", "cpu", ["serve", "m.onnx", "--data-dir", "data"]),
        ("uvicorn", "serve", ["serve", "m.onnx", "--data-dir", "data"]),
        ("sklearn", "demo", ["demo", "new"]),
    ],
)
def test_a_missing_extra_is_one_line_with_the_remedy(
    missing: str, extra: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(f"import sys; sys.modules[{missing!r}] = None\n"
               f"from lloss.cli.main import main; main({words!r})")  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"pip install 'lloss[{extra}]'" in done.stderr


def distributions(extra: str) -> set[str]:
    """Names of the packages that an extra installs, with those of the extras it includes."""
    names = set()
    for requirement in PROJECT["optional-dependencies"][extra]:
        if included := re.match(r"lloss\[(.*)\]", requirement):
            names |= {name for one in included[1].split(",") for name in distributions(one)}
        else:
            names.add(re.split(r"[^\w.-]", requirement)[0])
    return names


def test_extras_bring_what_the_command_line_says() -> None:
    base = {re.split(r"[^\w.-]", requirement)[0] for requirement in PROJECT["dependencies"]}
    assert not {"torch", "onnxruntime", "onnxruntime-gpu"} & base
    for module, extra in EXTRAS.items():
        distribution = {"sklearn": "scikit-learn"}.get(module, module.replace("_", "-"))
        assert distribution in distributions(extra) and distribution not in base


def test_the_runtimes_exclude_each_other() -> None:
    """Both install the module onnxruntime: demo and dev must agree with gpu where that exists."""
    extras = PROJECT["optional-dependencies"]
    for name in ("train", "serve", "remote", "trt"):
        assert not {"onnxruntime", "onnxruntime-gpu"} & distributions(name)
    here = [line for line in extras["demo"] if line.startswith("onnxruntime")]
    assert [line.partition(">=")[0] for line in here if "x86_64" in line] == ["onnxruntime-gpu"]


def test_errors_name_extras_that_exist() -> None:
    named = {
        extra
        for path in FILES
        for extra in re.findall(r'MissingExtraError\([^)]*?"(\w+)", "\w+"\)', path.read_text())
    }
    assert named and named <= PROJECT["optional-dependencies"].keys()


def test_every_command_has_a_file() -> None:
    for name in COMMANDS:
        assert (ROOT / "lloss" / "cli" / f"{name}.py").is_file()


def test_a_wheel_puts_one_name_into_site_packages(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a build writes into its folder
    source.mkdir()
    for folder in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
         "-w", str(tmp_path / "dist"), str(source)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"lloss"}
    data = [
        *(p for p in (ROOT / "serve/deploy").rglob("*") if p.is_file()),
        *(ROOT / "serve/daemon/ui").rglob("*.*"),
        *ROOT.glob("lloss/**/*.html"),
        ROOT / "lloss/py.typed",
    ]
    for path in [*FILES, *(p for p in data if "__pycache__" not in p.parts)]:
        folder, *rest = path.relative_to(ROOT).parts
        assert "/".join([PACKAGES[folder], *rest]) in names


def test_no_file_is_crowded() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: count for name, count in lengths.items() if count > 400} == {}
